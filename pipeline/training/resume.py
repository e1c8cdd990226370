"""A training that keeps itself in a store: it goes on where it stopped, however it stopped.

The same with and without Ray: `go_on` is what every worker runs. The first worker writes; all read.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError, UnfoldError
from pipeline.model.checkpoint import model_id, safetensors_bytes
from pipeline.training.curves import csv_text, svg_text
from pipeline.training.loop import Progress, Training
from pipeline.training.output import States, Store
from pipeline.training.pairs import Pairs, Source


@dataclass(frozen=True)
class Pace:
    """every: steps between two lines of progress, validations and states. keep: states kept.
    seconds: after which to stop and be gone on with later; None trains to the end.
    loaders: processes that crop ahead."""

    every: int = 100
    keep: int = 3
    seconds: float | None = None
    loaders: int = 0


def go_on(
    training: Training,
    source: Source,
    validation: Sequence[Pairs],
    output: Store,
    pace: Pace,
    notice: Callable[[str], None],
) -> Iterator[Progress]:
    """Train from the newest whole state in `output`, or from the beginning; yields each line of progress.

    notice: takes what a person should know. Raises `ConfigError` when the state there is of another
    training, or the loss is no longer finite.
    """
    states, started = States(output, pace.keep), time.monotonic()
    _restore_newest(training, states, notice)
    kept = training.step
    until = None if pace.seconds is None else lambda: time.monotonic() - started >= (pace.seconds or 0)
    for progress in training.run(source, validation, every=pace.every, loaders=pace.loaders, until=until):
        if training.share.rank == 0 and training.step:
            keep(training, states)
        kept = training.step
        yield progress
    if training.share.rank == 0 and training.step > kept:
        keep(training, states)


def keep(training: Training, states: States) -> None:
    """Write weights, curves, and last the state: what it says was done is there.

    Raises `ConfigError`, and writes nothing, when a weight is no longer finite.
    """
    if not training.is_finite():
        raise ConfigError(
            f"the weights are not finite at step {training.step}; lower recipe.learning_rate and go on from the "
            "last state, or begin anew in another output"
        )
    net, store = training.averaged(), states.store
    about = {"step": str(training.step), "recipe": repr(training.recipe), "model_id": model_id(net)}
    store.write(weights_name(training), safetensors_bytes(net.state_dict(), about))
    store.write("history.csv", csv_text(training.history).encode())
    store.write("curves.svg", svg_text(training.history).encode())
    states.save(training.step, training.state())


def weights_name(training: Training) -> str:
    return "usrnet.safetensors" if training.recipe.gan is None else "usrgan.safetensors"


def words(progress: Progress) -> str:
    """`step 200/4500   4%  loss 0.02690  validation 26.57 dB  23.7 img/s  ETA 41m 09s`."""
    share = 100 * progress.step / progress.steps
    parts = [f"step {progress.step}/{progress.steps} {share:3.0f}%"]
    parts += [f"{name} {value:.5f}" for name, value in _told(progress.losses).items()]
    if progress.psnr_db is not None:
        parts.append(f"validation {progress.psnr_db:.2f} dB")
    if progress.seconds_left is not None:
        parts += [f"{progress.images_per_second:.1f} img/s", f"ETA {_duration(progress.seconds_left)}"]
    return "  ".join(parts)


def _told(losses: dict[str, float]) -> dict[str, float]:
    """One term alone is the loss itself."""
    return {name: value for name, value in losses.items() if name != "l1" or len(losses) > 2}


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h {m:02}m" if hours else f"{m}m {s:02}s" if minutes else f"{s}s"


def _restore_newest(training: Training, states: States, notice: Callable[[str], None]) -> None:
    damaged = []
    for name, data in states.newest_first():
        try:
            changed = training.restore(data)
        except UnfoldError:
            raise
        except Exception as error:  # a damaged file raises whatever its bytes lead torch.load to
            damaged.append(name)
            notice(f"{name} cannot be read ({type(error).__name__}); trying the one before")
            continue
        for line in changed:
            notice(f"from here on recipe.{line}")
        return
    if damaged:
        raise ConfigError(f"no state in the output can be read ({', '.join(damaged)}); delete them to begin anew")
