"""What lies around the engine: the whole flow timed against the bare engine, and its cost by item.

    speed of light   the bare engine's seconds over the flow's, for the same units: 1 is the best there is
    overhead         CPU time of driver and workers by item, with an engine that only repeats pixels

Both are taken in the steady state, from the first finished work unit to the last, so that starting
Ray and loading weights is apart. The flow is the archive's own: read, restore, write, manifest.
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import psutil
import torch

from pipeline import uris
from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data import images, storage
from pipeline.flow import archive, cluster, graph
from pipeline.flow.replica import Replica
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Restorer
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation, Item, Picture, Work

SIZES = ((96, 96), (128, 96), (160, 128), (200, 150), (256, 192))  # LR pixels of a mixed archive


@dataclass(frozen=True)
class Flow:
    """One run in its steady state. items, seconds, cpu_seconds: from the first finished unit to the last."""

    start_seconds: float
    seconds: float
    cpu_seconds: float
    items: int
    first_unit: list[str]
    finished: int


def make_archive(root: str, count: int, sizes: Sequence[tuple[int, int]], scale: int) -> str:
    """`count` LR pictures below `root` and their catalog, whose URI comes back."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(("uri", "scale", "sigma", "kernel", "width", "height"))
    rng = np.random.default_rng(0)
    for n in range(count):
        h, w = sizes[n % len(sizes)]
        picture = Picture(wavy(h, w, rng), mode="RGB", bits=8, format="PNG")
        storage.write_bytes(uris.join(root, f"{n:05d}.png"), images.encode(picture, "png", images.Options()))
        rows.writerow((f"{n:05d}.png", scale, 2.55, "gaussian(1.2)", w, h))
    storage.write_bytes(uris.join(root, "catalog.csv"), table.getvalue().encode())
    return uris.join(root, "catalog.csv")


def wavy(height: int, width: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Smooth waves and noise: PNG needs about as long for it as for a photograph."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / a + y / b) for a, b in rng.uniform(5, 40, (3, 2))]
    return np.clip(127 + 80 * np.stack(waves, 2) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


def run(
    catalog: str, output: str, replica: type[Replica] | None = None, *overrides: str
) -> tuple[Flow, list[list[Item]]]:
    """The archive through the flow; its timing, and its work units in order."""
    config = load_config(UpscaleConfig, None, (f"catalog={catalog}", f"output={output}", *overrides))
    weights, model_id = archive.load_weights(config.model.weights)
    plan = archive.make_plan(config, model_id, print)
    begin = time.perf_counter()
    with cluster.joined():
        placement = archive.place(config, True, print)
        units = list(archive.units_of(config, plan.todo))
        stream = graph.outcomes(
            units, archive.settings(config, plan, weights, "benchmark"), placement, replica=replica or Replica
        )
        first = next(stream)
        started, cpu = time.perf_counter(), _cpu_seconds()
        finished = [outcome.status for unit in stream for outcome in unit]
        ended, cpu_after = time.perf_counter(), _cpu_seconds()
    done = [outcome.item_id for outcome in first]
    flow = Flow(started - begin, ended - started, cpu_after - cpu, len(finished), done, finished.count("done"))
    return flow, units


def bare_engine_seconds(units: Sequence[list[Item]], weights: str | None, threads: int) -> float:
    """The same units restored one after the other by a Restorer in this process, pictures at hand."""
    torch.set_num_threads(threads)
    restorer = Restorer(load_usrnet(weights))
    loaded = [_pictures(unit) for unit in units]
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
    return sum(sum(process.cpu_times()[:2]) for process in _family())


def _family() -> Iterator[psutil.Process]:
    here = psutil.Process()
    yield here
    yield from here.children(recursive=True)
