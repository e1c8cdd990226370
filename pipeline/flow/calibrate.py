"""Measuring single work units on a replica of its own: read, restore and encode, nothing stored.

The replica is an actor with the resources that a run's replicas get, so it is measured where the
run would be. Reads and encodings are counted in CPU time, which is what they take from others;
restoring by the clock.
"""

import io
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from time import monotonic, process_time
from typing import Any

import pyarrow as pa
import ray

from pipeline.data import images
from pipeline.data.schema import items_to_table, table_to_items
from pipeline.flow.cluster import Placement
from pipeline.flow.graph import Settings
from pipeline.forecast import Measurement, Sample
from pipeline.records import Item, Work
from pipeline.stages.read import read

_KIB = 1024  # ru_maxrss counts in these on Linux


@dataclass(frozen=True)
class _Bite:
    """What one bite gave. peak, gpu_peak: bytes so far. pixels: HR pixels of its images."""

    samples: list[Sample]
    pixels: float
    peak: float
    gpu_peak: float


def calibrated(bites: Iterable[list[Item]], settings: Settings, placement: Placement, *, budget: float) -> Measurement:
    """Measure bites one after the other until `budget` seconds are over; at least one."""
    begin = monotonic()
    options: dict[str, Any] = {"num_cpus": placement.cpus, "num_gpus": placement.gpus or None}
    remote: Any = ray.remote(_Calibrator)
    actor = remote.options(**options).remote(replace(settings, weights=b""), placement.threads)
    try:
        base, gpu_base = ray.get(actor.load.remote(ray.put(settings.weights)))
        startup = monotonic() - begin
        measured = list(_within(bites, actor, budget))
    finally:
        ray.kill(actor)
    samples = [sample for bite in measured for sample in bite.samples]
    seconds = monotonic() - begin - startup
    return Measurement(
        f"{len(samples)} items restored on one replica in {seconds:.0f} s",
        samples,
        alone=True,
        startup_seconds=startup,
        memory_base=base,
        memory_per_pixel=_slope(base, ((bite.peak, bite.pixels) for bite in measured)),
        gpu_memory_base=gpu_base if placement.gpus else None,
        gpu_memory_per_pixel=_slope(gpu_base, ((bite.gpu_peak, bite.pixels) for bite in measured)),
    )


def _within(bites: Iterable[list[Item]], actor: Any, budget: float) -> Iterator[_Bite]:
    begin = monotonic()
    for bite in bites:
        yield ray.get(actor.measure.remote(items_to_table(bite)))
        if monotonic() - begin > budget:
            return


def _slope(base: float, peaks: Iterable[tuple[float, float]]) -> float:
    """Bytes a pixel, from the bite that had most pixels."""
    peak, pixels = max(peaks, key=lambda pair: pair[1], default=(base, 0.0))
    return max(0.0, peak - base) / pixels if pixels else 0.0


class _Calibrator:
    """A replica that also reads and encodes, and counts."""

    def __init__(self, settings: Settings, threads: int) -> None:
        self._settings, self._threads = settings, threads

    def load(self, weights: bytes) -> tuple[float, float]:
        """Load and warm up the network; bytes of the process, and of the GPU, after it."""
        import numpy as np
        import torch

        from pipeline.model.checkpoint import load_usrnet
        from pipeline.model.restore import Restorer
        from pipeline.records import Degradation

        torch.set_num_threads(self._threads)
        net = load_usrnet(io.BytesIO(weights))
        self._restorer = Restorer(net, precision=self._settings.precision, compile=self._settings.compile)
        self._restorer.batch([np.zeros((32, 32, 3), np.uint8)], [Degradation(np.ones((1, 1)), 2, 2.55)])
        return self._memory()

    def measure(self, unit: pa.Table) -> _Bite:
        from pipeline.stages.restore import restore

        works = read(table_to_items(unit), limits=self._settings.limits, clock=process_time)
        restored = restore(
            works,
            restorer=self._restorer,
            model_id="",
            boundary=self._settings.boundary,  # type: ignore[arg-type]
        )
        samples = [self._encoded(work) for work in restored if not work.failed]
        pixels = sum(sample.lr_pixels * sample.scale**2 for sample in samples)
        return _Bite(samples, pixels, *self._memory())

    def _encoded(self, work: Work) -> Sample:
        begin, encoding = process_time(), self._settings.encoding
        data = b""
        if work.picture is not None:
            data = images.encode(work.picture, encoding.format_of(work.item), encoding.options)
        outcome = replace(work.outcome, output_bytes=len(data), seconds_write=process_time() - begin)
        return Sample(
            scale=work.item.scale,
            lr_pixels=float((outcome.lr_width or 0) * (outcome.lr_height or 0)),
            bytes_in=outcome.input_bytes or 0,
            bytes_out=outcome.output_bytes or 0,
            seconds_read=outcome.seconds_read or 0.0,
            seconds_restore=outcome.seconds_restore or 0.0,
            seconds_write=outcome.seconds_write or 0.0,
        )

    def _memory(self) -> tuple[float, float]:
        import torch

        gpu = float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB), gpu
