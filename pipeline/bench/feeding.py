"""What lies around the engine: the whole flow timed against the bare engine, and its cost by item.

    speed of light   the bare engine's seconds over the flow's, for the same units: 1 is the best there is
    overhead         CPU time of driver and workers by item, with an engine that only repeats pixels

Speed of light counts from the first restore to the last manifest row, overhead from the first finished
work unit to the last, so that starting Ray and loading weights is apart. The flow is the archive's own:
read, restore, write, manifest.
"""

import csv
import io
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psutil

from pipeline import uris
from pipeline.bench.pictures import drawn
from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import images, storage
from pipeline.errors import ConfigError, ItemError
from pipeline.flow import archive, cluster, graph
from pipeline.flow.replica import Replica
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Restorer
from pipeline.physics.kernels import parse_kernel
from pipeline.plan import Plan
from pipeline.records import DONE, Degradation, Item, Outcome, Picture, Work

# LR pixels (height, width) of a mixed archive: at x2 from 0.04 to 1.2 HR megapixels, 0.4 in the middle
SIZES = ((96, 96), (96, 128), (150, 200), (192, 256), (300, 400), (384, 512), (480, 640))


@dataclass(frozen=True)
class Flow:
    """One run. items, cpu_seconds, steady_seconds: after the first finished unit, to the last.

    restoring_seconds: from the first restore to the last finished unit, of all items.
    """

    start_seconds: float
    restoring_seconds: float
    steady_seconds: float
    cpu_seconds: float
    items: int


@dataclass(frozen=True)
class Prepared:
    """An archive that is ready to be restored. units: its work units in order."""

    config: UpscaleConfig
    plan: Plan
    weights: bytes
    units: list[list[Item]]


def make_archive(root: str, count: int, sizes: Sequence[tuple[int, int]], scale: int) -> str:
    """`count` LR pictures below `root` and their catalog, whose URI comes back."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("uri", "scale", "sigma", "kernel", "width", "height"))
    for n in range(count):
        h, w = sizes[n % len(sizes)]
        picture = Picture(drawn(h, w, n, noise=4), mode="RGB", bits=8, format="PNG")
        storage.write_bytes(uris.join(root, f"{n:05d}.png"), images.encode(picture, "png", images.Options()))
        rows.writerow((f"{n:05d}.png", scale, 2.55, "gaussian(1.2)", w, h))
    storage.write_bytes(uris.join(root, "catalog.csv"), table.getvalue().encode())
    return uris.join(root, "catalog.csv")


def prepare(catalog: str, output: str, *overrides: str) -> Prepared:
    """What a run of the archive would restore, as the job itself finds it."""
    config = load_config(UpscaleConfig, None, (f"catalog={catalog}", f"output={output}", *overrides))
    weights, model_id = archive.load_weights(config.model.weights)
    plan = archive.plan_waves(config, model_id, print).plan(0)
    return Prepared(config, plan, weights, list(archive.units_of(config, plan.todo)))


def run(prepared: Prepared, replica: type[Replica] = Replica) -> Flow:
    """The archive through the flow. Raises `ConfigError` on a cluster not its own: its CPU time is not seen."""
    settings = archive.settings(prepared.config, prepared.plan.attempts, prepared.weights, "benchmark")
    begin = time.perf_counter()
    with cluster.joined() as own:
        if not own:
            raise ConfigError("RAY_ADDRESS names a cluster whose workers' CPU time is not seen from here; unset it")
        placement = archive.place(prepared.config, True, print)
        stream = graph.outcomes(prepared.units, settings, placement, replica=replica)
        first = _done(next(stream))
        started, cpu = time.perf_counter(), _cpu_seconds()
        items = sum(len(_done(unit)) for unit in stream)
        ended, cpu_after = time.perf_counter(), _cpu_seconds()
    earlier = sum((outcome.seconds_restore or 0) + (outcome.seconds_write or 0) for outcome in first)
    steady = ended - started
    return Flow(started - earlier - begin, steady + earlier, steady, cpu_after - cpu, items)


def _done(unit: list[Outcome]) -> list[Outcome]:
    """The unit; an item that failed would only look fast."""
    for outcome in unit:
        if outcome.status != DONE:
            raise ItemError(str(outcome.error_code), f"{outcome.uri}: {outcome.error}")
    return unit


def bare_engine_seconds(prepared: Prepared) -> float:
    """The same units restored one after the other by a Restorer in this process, pictures at hand."""
    restorer = Restorer(load_usrnet(prepared.config.model.weights))
    loaded = [_pictures(unit) for unit in prepared.units]
    restorer.batch(*loaded[0])
    begin = time.perf_counter()
    for pictures, degradations in loaded:
        restorer.batch(pictures, degradations)
    return time.perf_counter() - begin


class PassThrough(Replica):
    """A replica whose engine only repeats pixels."""

    def _restored(self, works: list[Work], weights: object) -> list[Work]:
        from pipeline.bench.passthrough import PassThroughRestorer
        from pipeline.stages.restore import restore

        return restore(works, restorer=PassThroughRestorer(), model_id="none", boundary="smooth")  # type: ignore[arg-type]


def _pictures(unit: list[Item]) -> tuple[list[npt.NDArray[np.uint8]], list[Degradation]]:
    pictures = [images.decode(storage.read_bytes(item.uri), max_pixels=2**28).pixels_hwc for item in unit]
    kernels = [parse_kernel(item.kernel, item.scale, item.phase) for item in unit]
    return pictures, [Degradation(k, item.scale, item.sigma or 0.0) for k, item in zip(kernels, unit, strict=True)]  # type: ignore[return-value]


def _cpu_seconds() -> float:
    """CPU time so far of this process and all that it started, Ray's among them."""
    here, seconds = psutil.Process(), 0.0
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it ended since it was listed
            seconds += sum(process.cpu_times()[:2])
    return seconds
