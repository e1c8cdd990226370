"""What a run will cost, before it runs: its workload times measured rates. Pure.

    workload   the items to do, summed up by scale and by HR megapixels of an image: cells
    bites      which of the planned work units are worth measuring, most of the work first
    samples    what measuring (or an earlier run) says of single items
    forecast   per cell: pixels x seconds a pixel, pixels x bytes a pixel; cells without a sample take
               those of their scale, else of all; then time on so many replicas, and money

Knows no storage, no Ray, no torch.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from pipeline.plan import hr_pixels
from pipeline.records import Item

BUCKETS_MP = (0.25, 1.0, 4.0, 16.0, 64.0)  # upper bounds, HR megapixels of one image

CellKey = tuple[int, int]  # scale, bucket


@dataclass(frozen=True)
class Sample:
    """One item as measured. Pixels of LR and HR image, bytes of both files, seconds of each stage.

    seconds_read and seconds_write: CPU time where measured apart, the clock's in a manifest.
    """

    scale: int
    lr_pixels: float
    bytes_in: int
    bytes_out: int
    seconds_read: float
    seconds_restore: float
    seconds_write: float


@dataclass(frozen=True)
class Measurement:
    """Samples, and what was learnt beside them.

    source: in words. alone: restoring was measured without reads and writes competing for cores.
    startup_seconds: what a run takes before and after its items. memory_base, memory_per_pixel:
    bytes of a replica's process at rest, and more of them for each HR pixel in a batch; gpu_*: the
    same of the GPU. None: not measured.
    """

    source: str
    samples: Sequence[Sample]
    alone: bool
    startup_seconds: float
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
    guessed from bytes. seconds_restore: of all replicas together. device_hours: hours x GPUs, or
    x CPUs where there are none. Memory: bytes of one replica.
    """

    catalog_items: int
    done: int
    waiting: int
    todo: int
    invalid: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    lr_megapixels: float = 0.0
    hr_megapixels: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    measured: str = ""
    replicas: int = 0
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


@dataclass
class Load:
    """Items of one cell. bytes: of those whose objects' sizes are known. pixels: HR, unsized: of the others."""

    items: int = 0
    pixels: float = 0.0
    bytes: float = 0.0
    unsized: float = 0.0


@dataclass
class Workload:
    """All that an estimate needs of the items. largest: HR pixels of the largest image."""

    cells: dict[CellKey, Load] = field(default_factory=lambda: defaultdict(Load))
    largest: float = 0.0

    def add(self, items: Iterable[Item]) -> None:
        for item in items:
            load, pixels = self.cells[cell_of(item)], hr_pixels(item)
            load.items += 1
            load.pixels += pixels
            load.bytes += item.size or 0
            load.unsized += pixels if item.size is None else 0.0
            self.largest = max(self.largest, pixels)

    @property
    def items(self) -> int:
        return sum(load.items for load in self.cells.values())


def cell_of(item: Item) -> CellKey:
    return item.scale, bisect_right(BUCKETS_MP, hr_pixels(item) / 1e6)


def bucket_name(bucket: int) -> str:
    """`0.25-1 MP`: of one HR image."""
    if bucket == len(BUCKETS_MP):
        return f">{BUCKETS_MP[-1]:g} MP"
    return f"<{BUCKETS_MP[0]:g} MP" if bucket == 0 else f"{BUCKETS_MP[bucket - 1]:g}-{BUCKETS_MP[bucket]:g} MP"


def bites(units: Iterable[Sequence[Item]], most_pixels: float) -> Iterator[list[Item]]:
    """Parts of work units to measure, the most telling first: one of each cell, then a second, ...

    Within a cell the middle unit comes first, then those half way to its ends. most_pixels: HR
    pixels of a bite; at least one item.
    """
    by_cell: dict[CellKey, list[Sequence[Item]]] = defaultdict(list)
    for unit in units:
        by_cell[cell_of(unit[len(unit) // 2])].append(unit)
    heavy_first = sorted(by_cell.values(), key=lambda found: -sum(hr_pixels(i) for unit in found for i in unit))
    for row in zip_longest(*([found[n] for n in _halving(len(found))] for found in heavy_first)):
        for unit in filter(None, row):
            yield _bite(unit, most_pixels)


def forecast(
    result: Forecast,
    workload: Workload,
    measurement: Measurement,
    machines: Machines,
    price_per_hour: float | None = None,
) -> Forecast:
    """`result` with the workload and what it costs filled in.

    price_per_hour: of one GPU, or of one CPU where there are none.
    """
    rates = _Rates(measurement.samples)
    loads = sorted(workload.cells.items())
    result.cells = [_cell(key, load, rates) for key, load in loads]
    result.lr_megapixels = sum(cell.lr_megapixels for cell in result.cells)
    result.hr_megapixels = sum(cell.hr_megapixels for cell in result.cells)
    result.bytes_out = sum(cell.bytes_out for cell in result.cells)
    result.bytes_in = sum(_bytes_in(key, load, rates) for key, load in loads)
    result.seconds_restore = sum(cell.seconds for cell in result.cells)
    result.measured = measurement.source
    _time(result, workload, rates, measurement, machines)
    _money(result, machines, price_per_hour)
    _memory(result, workload.largest, measurement, machines)
    return result


class _Rates:
    """Seconds and bytes a pixel: of the cell where it was measured, else of its scale, else of all."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._groups: dict[object, list[Sample]] = defaultdict(list)
        for sample in samples:
            bucket = bisect_right(BUCKETS_MP, sample.lr_pixels * sample.scale**2 / 1e6)
            for key in ((sample.scale, bucket), sample.scale, None):
                self._groups[key].append(sample)

    def per_hr_pixel(self, key: CellKey, value: Callable[[Sample], float]) -> float:
        group = self._groups.get(key) or self._groups.get(key[0]) or self._groups.get(None) or []
        pixels = sum(sample.lr_pixels * sample.scale**2 for sample in group)
        return sum(map(value, group)) / pixels if pixels else 0.0


def _cell(key: CellKey, load: Load, rates: _Rates) -> Cell:
    scale, bucket = key
    return Cell(
        scale,
        bucket_name(bucket),
        load.items,
        load.pixels / scale**2 / 1e6,
        load.pixels / 1e6,
        load.pixels * rates.per_hr_pixel(key, lambda sample: sample.seconds_restore),
        load.pixels * rates.per_hr_pixel(key, lambda sample: sample.bytes_out),
    )


def _bytes_in(key: CellKey, load: Load, rates: _Rates) -> float:
    return load.bytes + load.unsized * rates.per_hr_pixel(key, lambda sample: sample.bytes_in)


def _time(result: Forecast, workload: Workload, rates: _Rates, measurement: Measurement, machines: Machines) -> None:
    """The slowest of two: the replicas, and the cores that everything else (on CPUs, all) shares."""

    def beside(sample: Sample) -> float:
        return sample.seconds_read + sample.seconds_write

    cpu_seconds = sum(load.pixels * rates.per_hr_pixel(key, beside) for key, load in workload.cells.items())
    replicas = max(1, min(machines.replicas, workload.items))
    if not machines.gpus and measurement.alone:
        cpu_seconds += result.seconds_restore * machines.threads
    busiest = max(result.seconds_restore / replicas, cpu_seconds / max(1.0, machines.cores))
    result.replicas = machines.replicas
    result.seconds_startup = measurement.startup_seconds
    result.seconds = measurement.startup_seconds + busiest
    if result.seconds_restore:
        result.hr_megapixels_per_second = result.hr_megapixels / result.seconds_restore


def _money(result: Forecast, machines: Machines, price_per_hour: float | None) -> None:
    devices = machines.gpus * machines.replicas or machines.cores
    result.device = "GPU" if machines.gpus else "CPU"
    result.device_hours = result.seconds / 3600 * devices
    result.price_per_hour = price_per_hour
    result.cost = None if price_per_hour is None else result.device_hours * price_per_hour


def _memory(result: Forecast, largest: float, measurement: Measurement, machines: Machines) -> None:
    batch = max(largest, min(machines.batch_pixels, result.hr_megapixels * 1e6))
    result.replica_memory_bytes = _linear(measurement.memory_base, measurement.memory_per_pixel, batch)
    result.gpu_memory_bytes = _linear(measurement.gpu_memory_base, measurement.gpu_memory_per_pixel, batch)
    unit_bytes = 3 * max(largest, min(2 * machines.batch_pixels, result.hr_megapixels * 1e6))
    result.object_store_bytes = min(unit_bytes * machines.units_in_flight, 3e6 * result.hr_megapixels)
    result.spilled_bytes = max(0.0, result.object_store_bytes - machines.object_store_bytes)


def _linear(base: float | None, slope: float | None, pixels: float) -> float | None:
    return None if base is None or slope is None else base + slope * pixels


def _bite(unit: Sequence[Item], most_pixels: float) -> list[Item]:
    """Items from all over the unit, which is sorted by size: small ones take longer for each pixel."""
    share = min(1.0, most_pixels / max(1.0, sum(map(hr_pixels, unit))))
    count = max(1, int(len(unit) * share))
    return [unit[(2 * n + 1) * len(unit) // (2 * count)] for n in range(count)]


def _halving(count: int) -> Iterator[int]:
    """0 to count-1: the middle, then the middles of both halves, and so on."""
    spans = [(0, count)]
    while spans:
        begin, end = spans.pop(0)
        if begin < end:
            middle = (begin + end) // 2
            yield middle
            spans += [(begin, middle), (middle + 1, end)]
