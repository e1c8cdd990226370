"""Training on Ray Train: one worker or many, each running the same plain loop, DDP between them.

The workers keep the training in the output themselves, so whoever is started again, a lost worker
by Ray Train or the whole job by a person, goes on from the last state.
"""

import os
from collections.abc import Callable
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
from pipeline.model.checkpoint import model_id
from pipeline.training.begun import Begun, recalled, refuse_other_weights, remember
from pipeline.training.loop import Training, validation_pairs
from pipeline.training.pairs import Share, Source
from pipeline.training.recipe import Recipe
from pipeline.training.resume import Pace, go_on, words

Notice = Callable[[str], None]

_NOTES = ".ray_train"  # folder in the output for what Ray Train keeps for itself; cleared in the end


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
    output = StoredFolder(config.output)
    try:
        output.check_writable()
        before = recalled(output)
    except StorageError as error:
        raise ConfigError(f"output: {error}") from None
    material = gather(config, recipe, show, before.held_out if before else None)
    begun = Begun(model_id(material.start), material.held_out)
    refuse_other_weights(before, begun)
    if before is None:
        remember(output, begun)
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
        step = _fit(task, config, {"CPU": cpus, "GPU": float(gpus)}, show)
        messages.shutdown()
    if step is None or step < recipe.steps:
        raise NotFinished(f"stopped after step {step} of {recipe.steps}; run again to go on")


def _fit(task: Task, config: TrainConfig, resources: dict[str, float], show: Notice) -> int | None:
    """Run the workers to their end; returns the step they came to."""
    folder = StoredFolder(config.output)
    filesystem, path = folder.for_arrow(_NOTES)
    trainer = TorchTrainer(
        work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=config.workers.count, use_gpu=resources["GPU"] > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name="run",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=config.workers.restarts),
        ),
    )
    # Not in this process: its main thread would turn Ctrl-C into success, another one would outlive Ray's end.
    fitting = _failure_of.remote(trainer)
    try:
        step = _listen(task.messages, show, lambda: not ray.wait([fitting], timeout=0)[0])
        failure = ray.get(fitting)
    except RayError as error:
        raise NotFinished(f"the cluster was lost ({type(error).__name__}); run again to go on") from None
    finally:
        folder.clear(_NOTES)
    if failure is not None:
        raise _meaning(failure) from failure
    return step


@ray.remote(num_cpus=0, max_retries=0)
def _failure_of(trainer: TorchTrainer) -> Exception | None:
    """Train to the end; what went wrong is returned as it is, where raised it would come as Ray's."""
    try:
        trainer.fit()
    except Exception as error:
        return error
    return None


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


def _listen(messages: Queue, show: Notice, going_on: Callable[[], bool]) -> int | None:
    """Show the lines from the workers as they come; returns the last step, raises what they could not mend."""
    step = None
    while True:
        over = not going_on()  # asked before, so that nothing put before the end is missed
        try:
            message = messages.get(timeout=0.2)
        except Empty:
            if over:
                return step
            continue
        if isinstance(message, UnfoldError):
            raise message
        if isinstance(message, int):
            step = message
        else:
            show(message)


def _meaning(error: Exception) -> Exception:
    """The error of ours behind it; `NotFinished` where workers died; else, a bug, the error itself."""
    failures = list(getattr(error, "worker_failures", {}).values())
    for failure in failures:
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, UnfoldError):
            return cause
    if failures and all(isinstance(failure, RayError) for failure in failures):
        return NotFinished(f"workers were lost too often ({failures[0]}); run again to go on")
    return error
