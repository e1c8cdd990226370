"""Measuring single work units on replicas of their own: read, restore and encode, nothing stored.

The replicas are actors with the resources that a run's replicas get, so they are measured where the
run would be; as many at once as would share a GPU, or a machine's caches and memory. Reads and
encodings are counted in CPU time, which is what they take from others; restoring by the clock.
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
from pipeline.errors import ItemError
from pipeline.flow.cluster import Placement
from pipeline.flow.graph import Settings
from pipeline.forecast import Measurement, Sample
from pipeline.plan import hr_pixels
from pipeline.records import Item, Work
from pipeline.stages.read import read

_MOST_FETCHED = 2**30  # bytes of a large image of which only a part is measured
_KIB = 1024  # ru_maxrss counts in these on Linux


@dataclass(frozen=True)
class _Bite:
    """What one bite gave. peak, gpu_peak: most bytes so far of a process that restored whole images only,
    else None. pixels: HR pixels of its images.
    """

    samples: list[Sample]
    pixels: float
    peak: float | None = None
    gpu_peak: float | None = None


def calibrated(
    bites: Iterable[list[Item]],
    settings: Settings,
    placement: Placement,
    *,
    at_once: int,
    part: float,
    budget: float,
) -> Measurement:
    """Measure bites, on each replica one after the other, until `budget` seconds are over; at least one.

    at_once: replicas that work side by side, as they would in the run. part: HR pixels of an image
    above `limits.whole`, by windows.
    """
    begin = monotonic()
    options: dict[str, Any] = {"num_cpus": placement.cpus, "num_gpus": placement.gpus or None}
    remote: Any = ray.remote(_Calibrator)
    bare = replace(settings, weights=b"")
    actors = [remote.options(**options).remote(bare, placement.threads, part) for _ in range(at_once)]
    try:
        weights = ray.put(settings.weights)
        base, gpu_base = map(max, zip(*ray.get([actor.load.remote(weights) for actor in actors]), strict=True))
        startup = monotonic() - begin
        measured = list(_within(bites, actors, budget))
    finally:
        for actor in actors:
            ray.kill(actor)
    samples = [sample for bite in measured for sample in bite.samples]
    seconds = monotonic() - begin - startup
    return Measurement(
        f"{len(samples)} items restored on {_count(at_once, 'replica')} in {seconds:.0f} s",
        samples,
        alone=True,
        startup_seconds=startup,
        replica_seconds=startup,
        memory_base=base,
        memory_per_pixel=_slope(base, ((bite.peak, bite.pixels) for bite in measured)),
        gpu_memory_base=gpu_base if placement.gpus else None,
        gpu_memory_per_pixel=_slope(gpu_base, ((bite.gpu_peak, bite.pixels) for bite in measured)),
    )


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s side by side"


def _within(bites: Iterable[list[Item]], actors: list[Any], budget: float) -> Iterator[_Bite]:
    """Each actor takes the next bite when it is done with its last; none once the time is over."""
    begin, waiting = monotonic(), iter(bites)
    under_way = {
        actor.measure.remote(items_to_table(bite)): actor for actor, bite in zip(actors, waiting, strict=False)
    }
    while under_way:
        (done, *_), _ = ray.wait(list(under_way))
        actor = under_way.pop(done)
        yield ray.get(done)
        if monotonic() - begin < budget and (bite := next(waiting, None)) is not None:
            under_way[actor.measure.remote(items_to_table(bite))] = actor


def _slope(base: float, peaks: Iterable[tuple[float | None, float]]) -> float | None:
    """Bytes a pixel, from the bite that had most pixels; None where none was measured."""
    known = [(peak, pixels) for peak, pixels in peaks if peak is not None and pixels]
    if not known:
        return None
    peak, pixels = max(known, key=lambda pair: pair[1])
    return max(0.0, peak - base) / pixels


class _Calibrator:
    """A replica that also reads and encodes, and counts."""

    def __init__(self, settings: Settings, threads: int, part: float) -> None:
        self._settings, self._threads, self._part = settings, threads, part
        self._by_windows = False

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
        items = table_to_items(unit)
        if hr_pixels(items[0]) > self._settings.limits.whole:
            return self._measure_part(items[0])
        return self._measure_whole(items)

    def _measure_whole(self, items: list[Item]) -> _Bite:
        from pipeline.stages.restore import restore

        works = read(items, limits=self._settings.limits, clock=process_time)
        restored = restore(
            works,
            restorer=self._restorer,
            model_id="",
            boundary=self._settings.boundary,  # type: ignore[arg-type]
        )
        samples = [self._encoded(work) for work in restored if not work.failed]
        pixels = sum(sample.lr_pixels * sample.scale**2 for sample in samples)
        return _Bite(samples, pixels) if self._by_windows else _Bite(samples, pixels, *self._memory())

    def _measure_part(self, item: Item) -> _Bite:
        """One that cannot be fetched or restored gives no sample, as a whole image does."""
        from pipeline.stages.windows import tried

        self._by_windows = True
        try:
            trial = tried(
                item,
                hr_pixels=self._part,
                restorer=self._restorer,
                limits=replace(self._settings.limits, bytes=min(_MOST_FETCHED, self._settings.limits.bytes)),
                encoding=self._settings.encoding,
                scratch=self._settings.scratch,
            )
        except ItemError:
            return _Bite([], 0.0)
        sample = Sample(
            scale=item.scale,
            lr_pixels=trial.pixels,
            bytes_in=int(trial.bytes_in),
            bytes_out=trial.bytes_out,
            seconds_read=0.0,
            seconds_restore=trial.seconds,
            seconds_write=0.0,
            pixel_bytes=trial.pixel_bytes,
            windows=True,
        )
        return _Bite([sample], trial.pixels * item.scale**2)

    def _encoded(self, work: Work) -> Sample:
        begin, encoding = process_time(), self._settings.encoding
        data, pixel_bytes = b"", 3
        if work.picture is not None:
            pixel_bytes = work.picture.pixels_hwc[:1, :1].nbytes
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
            pixel_bytes=pixel_bytes,
        )

    def _memory(self) -> tuple[float, float]:
        import torch

        gpu = float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB), gpu
