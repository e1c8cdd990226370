"""What a run will cost, before it runs: its workload times measured rates. Pure.

    workload   the items to do, summed up by scale and by HR megapixels of an image: cells; those that
               are restored by windows (pipeline.stages.windows) are cells of their own
    bites      which of the planned work units are worth measuring, most of the work first
    samples    what measuring (or an earlier run) says of single items
    forecast   per cell: pixels x seconds a pixel, pixels x bytes a pixel; cells without a sample take
               those of their scale, else of all; then the work units one after the other on so many
               replicas, then the large images, and money

Knows no storage, no Ray, no torch.
"""

import heapq
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import ceil

from pipeline.plan import halves, hr_pixels, tapered
from pipeline.records import Item

BUCKETS_MP = (0.25, 1.0, 4.0, 16.0, 64.0)  # upper bounds, HR megapixels of one image
BY_WINDOWS = len(BUCKETS_MP) + 1  # the bucket of images that are restored by windows, whatever their size

# CPU seconds a second of the head's machine for Ray's daemons and the driver, as long as a run lasts: an
# eighth of two cores (docs/engine.md, "Feeding").
_RAY_CORES = 0.25
# A replica that restores by windows, above its process at rest: 100 and 400 MP took the same (docs/engine.md).
_WINDOWS_BYTES = 1210 * 2**20
_PARTWISE = (".tif", ".tiff")  # names of files that are read by parts; others are decoded whole onto scratch

CellKey = tuple[int, int]  # scale, bucket


@dataclass(frozen=True)
class Sample:
    """One item as measured. Pixels of LR and HR image, bytes of both files, seconds of each stage.

    seconds_read and seconds_write: CPU time where measured apart, the clock's in a manifest.
    pixel_bytes: of one decoded pixel. windows: restored by windows (a part of it, where measured);
    seconds_restore is then everything.
    """

    scale: int
    lr_pixels: float
    bytes_in: int
    bytes_out: int
    seconds_read: float
    seconds_restore: float
    seconds_write: float
    pixel_bytes: float = 3.0
    windows: bool = False


@dataclass(frozen=True)
class Measurement:
    """Samples, and what was learnt beside them.

    source: in words. alone: restoring was measured without reads and writes competing for cores.
    startup_seconds: what a run takes before and after its items, replica_seconds of it to start the
    replicas. memory_base, memory_per_pixel: bytes of a replica's process at rest, and more of them for
    each HR pixel in a batch; gpu_*: the same of the GPU. None: not measured.
    """

    source: str
    samples: Sequence[Sample]
    alone: bool
    startup_seconds: float
    replica_seconds: float = 0.0
    memory_base: float | None = None
    memory_per_pixel: float | None = None
    gpu_memory_base: float | None = None
    gpu_memory_per_pixel: float | None = None


@dataclass(frozen=True)
class Machines:
    """What the run would have. gpus, threads: of one replica. cores: CPUs of the cluster.

    batch_pixels: HR pixels restored at once. units_in_flight: work units between read and write.
    """

    replicas: int
    gpus: float
    threads: int
    cores: float
    batch_pixels: float
    units_in_flight: int
    object_store_bytes: float


@dataclass(frozen=True)
class Cell:
    """Items of one scale and of one bucket of HR sizes."""

    scale: int
    bucket: str
    items: int
    lr_megapixels: float
    hr_megapixels: float
    seconds: float = 0.0
    bytes_out: float = 0.0


@dataclass
class Forecast:
    """A run's workload and cost. Bytes and megapixels are totals; hours are of the clock.

    invalid: items that fail before any work, unreadable: items whose header says that they will
    fail, both by error code. sizes: how many items' sizes are from the catalog, their header, or
    guessed from bytes. large: items above `whole_megapixels` of HR, restored by windows; units: work
    units of the others. replicas: at most; replicas_busy: mean of those at work. seconds_restore: of all
    replicas together. device_hours: hours x GPUs, or x CPUs where there are none. Memory and
    scratch_bytes (local disk for one large image at a time): of one replica.
    """

    catalog_items: int
    done: int
    waiting: int
    todo: int
    invalid: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    large: int = 0
    large_hr_megapixels: float = 0.0
    whole_megapixels: float = 0.0
    units: int = 0
    lr_megapixels: float = 0.0
    hr_megapixels: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    measured: str = ""
    replicas: int = 0
    replicas_busy: float = 0.0
    hr_megapixels_per_second: float | None = None
    seconds_startup: float = 0.0
    seconds_restore: float = 0.0
    seconds: float = 0.0
    device: str = "CPU"
    device_hours: float = 0.0
    price_per_hour: float | None = None
    cost: float | None = None
    replica_memory_bytes: float | None = None
    gpu_memory_bytes: float | None = None
    object_store_bytes: float = 0.0
    spilled_bytes: float = 0.0
    scratch_bytes: float = 0.0


@dataclass
class Load:
    """Items of one cell. pixels: HR. bytes: of the objects whose size is known; unsized: HR pixels of the others."""

    items: int = 0
    pixels: float = 0.0
    bytes: float = 0.0
    unsized: float = 0.0

    def add(self, item: Item) -> None:
        pixels = hr_pixels(item)
        self.items += 1
        self.pixels += pixels
        self.bytes += item.size or 0
        self.unsized += pixels if item.size is None else 0.0


UnitLoad = dict[CellKey, float]  # HR pixels of a work unit, by cell


@dataclass
class Workload:
    """All that an estimate needs of a run's items, added up wave by wave.

    units: in the order of the run. large: items restored by windows. largest: HR pixels of the largest
    other image. flows: how often replicas start: once for the units of a wave, once for its large images.
    """

    cells: dict[CellKey, Load] = field(default_factory=lambda: defaultdict(Load))
    units: list[UnitLoad] = field(default_factory=list)
    large: list[Item] = field(default_factory=list)
    largest: float = 0.0
    flows: int = 0

    def add(self, units: Sequence[list[Item]], large: Sequence[Item], replicas: int) -> None:
        """A wave: its work units, which the run cuts finer at the end, and its large images, which come after."""
        for unit in tapered(units, replicas, halves):
            load: UnitLoad = defaultdict(float)
            for item in unit:
                key = cell_of(item)
                load[key] += hr_pixels(item)
                self.cells[key].add(item)
                self.largest = max(self.largest, hr_pixels(item))
            self.units.append(dict(load))
        for item in large:
            self.cells[item.scale, BY_WINDOWS].add(item)
        self.large += large
        self.flows += bool(units) + bool(large)


def cell_of(item: Item) -> CellKey:
    return item.scale, bisect_right(BUCKETS_MP, hr_pixels(item) / 1e6)


def bucket_name(bucket: int) -> str:
    """`0.25-1 MP`: of one HR image."""
    if bucket == BY_WINDOWS:
        return "by windows"
    if bucket == len(BUCKETS_MP):
        return f">{BUCKETS_MP[-1]:g} MP"
    return f"<{BUCKETS_MP[0]:g} MP" if bucket == 0 else f"{BUCKETS_MP[bucket - 1]:g}-{BUCKETS_MP[bucket]:g} MP"


def bites(units: Iterable[Sequence[Item]], most_pixels: float, large: Iterable[Item] = ()) -> Iterator[list[Item]]:
    """Parts of work units to measure, the most telling first: one of each cell, then a second, ...

    Within a cell the middle unit comes first, then those half way to its ends, then the next part of
    each. most_pixels: HR pixels of a bite, about; at least one item. large: images restored by windows;
    the smallest of each scale comes after the first of each cell: it has to be fetched whole, though only
    a part is measured.
    """
    by_cell: dict[CellKey, list[Sequence[Item]]] = defaultdict(list)
    for unit in units:
        by_cell[cell_of(unit[len(unit) // 2])].append(unit)
    heavy_first = sorted(by_cell.values(), key=lambda found: -sum(hr_pixels(i) for unit in found for i in unit))
    rows = zip_longest(*(_bites_of_cell(found, most_pixels) for found in heavy_first))
    yield from next(rows, ())
    yield from ([item] for item in {i.scale: i for i in sorted(large, key=hr_pixels, reverse=True)}.values())
    yield from (bite for row in rows for bite in row if bite)


def forecast(
    result: Forecast,
    workload: Workload,
    measurement: Measurement,
    machines: Machines,
    price_per_hour: float | None = None,
) -> Forecast:
    """`result` with the workload and what it costs filled in. price_per_hour: of one GPU, or of one CPU."""
    rates = _Rates(measurement.samples)
    loads = sorted(workload.cells.items())
    result.units, result.large = len(workload.units), len(workload.large)
    result.large_hr_megapixels = sum(map(hr_pixels, workload.large)) / 1e6
    result.cells = [_cell(key, load, rates) for key, load in loads]
    result.lr_megapixels = sum(cell.lr_megapixels for cell in result.cells)
    result.hr_megapixels = sum(cell.hr_megapixels for cell in result.cells)
    result.bytes_out = sum(cell.bytes_out for cell in result.cells)
    result.bytes_in = sum(load.bytes + load.unsized * rates.per_hr_pixel(key, _bytes_read) for key, load in loads)
    result.seconds_restore = sum(cell.seconds for cell in result.cells)
    result.measured = measurement.source
    _time(result, workload, rates, measurement, machines)
    _money(result, machines, price_per_hour)
    _memory(result, workload.largest, measurement, machines)
    _memory_of_large(result, workload.large, rates, measurement)
    return result


class _Rates:
    """Seconds and bytes a pixel: of the cell where it was measured, else of its scale, else of all.

    Whole images stand in for those restored by windows, and the other way round, only where there is
    nothing better.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._groups: dict[object, list[Sample]] = defaultdict(list)
        self._known: dict[tuple[CellKey, Callable[[Sample], float]], float] = {}
        for sample in samples:
            bucket = bisect_right(BUCKETS_MP, sample.lr_pixels * sample.scale**2 / 1e6)
            for key in _groups((sample.scale, BY_WINDOWS if sample.windows else bucket), sample.windows):
                self._groups[key].append(sample)

    def per_hr_pixel(self, key: CellKey, value: Callable[[Sample], float]) -> float:
        """value: one of the functions below; asked for every item, so what was found is kept."""
        if (key, value) not in self._known:
            self._known[key, value] = self._mean(key, value)
        return self._known[key, value]

    def _mean(self, key: CellKey, value: Callable[[Sample], float]) -> float:
        windows = key[1] == BY_WINDOWS
        keys = (*_groups(key, windows), *_groups(key, not windows)[1:])
        group = next((self._groups[key] for key in keys if key in self._groups), [])
        pixels = sum(sample.lr_pixels * sample.scale**2 for sample in group)
        return sum(map(value, group)) / pixels if pixels else 0.0

    @property
    def pixel_bytes(self) -> float:
        """Most bytes of a decoded pixel: 3 are usual."""
        return max((sample.pixel_bytes for group in self._groups.values() for sample in group), default=3.0)


def _groups(key: CellKey, windows: bool) -> tuple[object, object, object]:
    """What a cell belongs to: itself, its scale, all; images restored by windows apart."""
    return key, (windows, key[0], "scale"), (windows, "all")


def _cell(key: CellKey, load: Load, rates: _Rates) -> Cell:
    scale, bucket = key
    return Cell(
        scale,
        bucket_name(bucket),
        load.items,
        load.pixels / scale**2 / 1e6,
        load.pixels / 1e6,
        load.pixels * rates.per_hr_pixel(key, _restoring),
        load.pixels * rates.per_hr_pixel(key, _bytes_written),
    )


def _bytes_read(sample: Sample) -> float:
    return sample.bytes_in


def _bytes_written(sample: Sample) -> float:
    return sample.bytes_out


def _reading(sample: Sample) -> float:
    return sample.seconds_read


def _restoring(sample: Sample) -> float:
    return sample.seconds_restore


def _writing(sample: Sample) -> float:
    return sample.seconds_write


def _time(result: Forecast, workload: Workload, rates: _Rates, measurement: Measurement, machines: Machines) -> None:
    """Work units first, then the large images, each on the next replica that is free.

    Of the units it is the slowest of two: the replicas, with the first unit's read before and the last
    one's write after; and the cores that everything else (on CPUs, all) shares.
    """
    units, large = workload.units, workload.large

    def seconds(unit: UnitLoad, value: Callable[[Sample], float]) -> float:
        return sum(pixels * rates.per_hr_pixel(key, value) for key, pixels in unit.items())

    busy = _makespan((seconds(unit, _restoring) for unit in units), machines.replicas)
    ends = seconds(units[0], _reading) + seconds(units[-1], _writing) if units else 0.0
    core_seconds = sum(seconds(unit, _reading) + seconds(unit, _writing) for unit in units)
    if not machines.gpus and measurement.alone:
        core_seconds += sum(seconds(unit, _restoring) for unit in units) * machines.threads
    by_cores = core_seconds / max(1.0, machines.cores - _RAY_CORES)
    after = (hr_pixels(item) * rates.per_hr_pixel((item.scale, BY_WINDOWS), _restoring) for item in large)
    working = max(busy + ends, by_cores) + _makespan(after, machines.replicas)
    result.replicas = machines.replicas
    result.replicas_busy = result.seconds_restore / working if working else 0.0
    again = measurement.replica_seconds * max(0, workload.flows - 1)
    result.seconds_startup = measurement.startup_seconds + again
    result.seconds = result.seconds_startup + working
    if result.seconds_restore:
        result.hr_megapixels_per_second = result.hr_megapixels / result.seconds_restore


def _makespan(seconds: Iterable[float], workers: int) -> float:
    """When the last of these is done if each, in turn, goes to the worker that is free first."""
    free_at = [0.0] * max(1, workers)
    for each in seconds:
        heapq.heapreplace(free_at, free_at[0] + each)
    return max(free_at)


def _money(result: Forecast, machines: Machines, price_per_hour: float | None) -> None:
    devices = machines.gpus * machines.replicas or machines.cores
    result.device = "GPU" if machines.gpus else "CPU"
    result.device_hours = result.seconds / 3600 * devices
    result.price_per_hour = price_per_hour
    result.cost = None if price_per_hour is None else result.device_hours * price_per_hour


def _memory(result: Forecast, largest: float, measurement: Measurement, machines: Machines) -> None:
    """Of what is restored whole, in batches of a work unit. largest: HR pixels of one image."""
    pixels = 1e6 * (result.hr_megapixels - result.large_hr_megapixels)
    batch = max(largest, min(machines.batch_pixels, pixels))
    result.replica_memory_bytes = _linear(measurement.memory_base, measurement.memory_per_pixel, batch)
    result.gpu_memory_bytes = _linear(measurement.gpu_memory_base, measurement.gpu_memory_per_pixel, batch)
    unit_bytes = 3 * max(largest, min(2 * machines.batch_pixels, pixels))
    result.object_store_bytes = min(unit_bytes * machines.units_in_flight, 3 * pixels)
    result.spilled_bytes = max(0.0, result.object_store_bytes - machines.object_store_bytes)


def _memory_of_large(result: Forecast, large: Sequence[Item], rates: _Rates, measurement: Measurement) -> None:
    """Of images restored by windows: bounded, but for files that are decoded whole; input and result on disk."""
    for item in large:
        key = item.scale, BY_WINDOWS
        size = float(item.size) if item.size is not None else hr_pixels(item) * rates.per_hr_pixel(key, _bytes_read)
        whole = 0.0 if item.key.lower().endswith(_PARTWISE) else rates.pixel_bytes * hr_pixels(item) / item.scale**2
        result.scratch_bytes = max(result.scratch_bytes, size + whole + rates.pixel_bytes * hr_pixels(item))
        if measurement.memory_base is not None:
            needed = measurement.memory_base + max(_WINDOWS_BYTES, size + whole if whole else 0.0)
            result.replica_memory_bytes = max(result.replica_memory_bytes or 0.0, needed)


def _linear(base: float | None, slope: float | None, pixels: float) -> float | None:
    return None if base is None or slope is None else base + slope * pixels


def _bites_of_cell(units: Sequence[Sequence[Item]], most_pixels: float) -> Iterator[list[Item]]:
    cut = [_parts(units[n], most_pixels) for n in _halving(len(units))]
    yield from (part for row in zip_longest(*cut) for part in row if part)


def _parts(unit: Sequence[Item], most_pixels: float) -> list[list[Item]]:
    """Each of items from all over the unit, which is sorted by size: small ones take longer for each pixel."""
    count = min(len(unit), max(1, ceil(sum(map(hr_pixels, unit)) / most_pixels)))
    return [list(unit[n::count]) for n in _halving(count)]


def _halving(count: int) -> Iterator[int]:
    """0 to count-1: the middle, then the middles of both halves, and so on."""
    spans = [(0, count)]
    while spans:
        begin, end = spans.pop(0)
        if begin < end:
            middle = (begin + end) // 2
            yield middle
            spans += [(begin, middle), (middle + 1, end)]
