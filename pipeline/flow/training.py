"""Training on Ray Train: one worker or many, each running the same plain loop, DDP between them.

The workers keep the training in the output themselves, so whoever is started again, a lost worker
by Ray Train or the whole job by a person, goes on from the last state.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.flow import cluster  # sets what Ray reads when it is imported

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import ray
import ray.train
import torch
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.queue import Empty, Queue

from pipeline.config.train import TrainConfig
from pipeline.data.folder import StoredFolder
from pipeline.errors import ConfigError, NotFinished, StorageError, UnfoldError, WeightsError
from pipeline.flow.material import Material, gather, recipe_of
from pipeline.training.loop import Training, validation_pairs
from pipeline.training.pairs import Share, Source
from pipeline.training.recipe import Recipe
from pipeline.training.resume import Pace, go_on, words

Notice = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """All that a worker is told."""

    material: Any  # an object reference of a `Material`: one copy a machine, whatever the workers
    recipe: Recipe
    pace: Pace
    output: str
    threads: int
    messages: Queue


def train(config: TrainConfig, show: Notice) -> None:
    """Train as `config` says; `show` is given each line for a person.

    Raises `ConfigError` and `WeightsError` before anything starts, `NotFinished` when the time was
    up or workers were lost too often: run again to go on.
    """
    recipe = recipe_of(config)
    material = gather(config, recipe, show)
    try:
        StoredFolder(config.output).check_writable()
    except StorageError as error:
        raise ConfigError(f"output: {error}") from None
    with cluster.joined(show) as own:
        gpus = cluster.gpus_for(config.workers.count, config.workers.gpus)
        threads = config.workers.threads or cluster.threads_for(config.workers.count)
        # A CPU worker computes on `threads` cores; a GPU worker's Python and loaders need about two.
        cpus = 2.0 if gpus else float(threads)
        if own and (problem := cluster.too_many(config.workers.count, cpus, gpus)):
            raise ConfigError(problem)  # a cluster that was joined may grow; this one would wait for ever
        loaders = config.workers.loaders if config.workers.loaders is not None else (4 if gpus else 0)
        pace = Pace(config.every, config.keep, config.seconds, loaders)
        messages = Queue(actor_options={"num_cpus": 0})
        task = Task(ray.put(material), recipe, pace, config.output, threads, messages)
        with _shown(messages, show) as outcome:
            _fit(task, config, {"CPU": cpus, "GPU": float(gpus)})
        messages.shutdown()
    outcome.check(recipe.steps)


def _fit(task: Task, config: TrainConfig, resources: dict[str, float]) -> None:
    folder = StoredFolder(config.output)
    filesystem, path = folder.for_arrow("ray")
    trainer = TorchTrainer(
        work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=config.workers.count, use_gpu=resources["GPU"] > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="run",  # Ray Train's own notes, of no use to us afterwards
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.workers.restarts),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _meaning(error) from error
    finally:
        folder.clear("ray")


def work(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs."""
    task: Task = config["task"]
    context = ray.train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    try:
        _go_on(task, share)
    except (ConfigError, WeightsError) as error:  # starting again would not help
        task.messages.put(error)


def _go_on(task: Task, share: Share) -> None:
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(task.threads)
    material: Material = ray.get(task.material)
    training = Training(material.start, task.recipe, device, share=share, perceptual=material.perceptual)
    source = Source(material.photographs, task.recipe, material.kernels, share)
    validation = validation_pairs(material.validation, task.recipe, material.kernels, device=device)

    def tell(message: object) -> None:
        if share.rank == 0:
            task.messages.put(message)

    for progress in go_on(training, source, validation, StoredFolder(task.output), task.pace, tell):
        tell(words(progress))
        ray.train.report({"step": progress.step, **progress.losses})
    tell(training.step)


class _Outcome:
    """What the workers said beside their lines: how far they came, or why they could not go on."""

    def __init__(self) -> None:
        self.step: int | None = None
        self.error: UnfoldError | None = None

    def check(self, steps: int) -> None:
        if self.error is not None:
            raise self.error
        if self.step is None or self.step < steps:
            raise NotFinished(f"stopped after step {self.step} of {steps}; run again to go on")


@contextlib.contextmanager
def _shown(messages: Queue, show: Notice) -> Iterator[_Outcome]:
    """Inside: lines from the workers are shown as they come."""
    outcome, ended = _Outcome(), threading.Event()

    def read() -> None:
        while True:
            over = ended.is_set()  # asked before, so that nothing put before the end is missed
            try:
                message = messages.get(timeout=0.2)
            except Empty:
                if over:
                    return
                continue
            except RayError:
                return
            if isinstance(message, UnfoldError):
                outcome.error = message
            elif isinstance(message, int):
                outcome.step = message
            else:
                show(message)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield outcome
    finally:
        ended.set()
        reader.join(30)


def _meaning(error: ray.train.TrainingFailedError) -> Exception:
    """The error of ours behind it; `NotFinished` where workers died; else, a bug, the error itself."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, UnfoldError):
            return cause
    if failures and all(isinstance(failure, RayError) for failure in failures):
        return NotFinished(f"workers were lost too often ({failures[0]}); run again to go on")
    return error
