"""What a run will cost, from samples and a workload: laws of the estimate."""

from dataclasses import replace

import pytest

from pipeline.forecast import (
    BUCKETS_MP,
    Forecast,
    Machines,
    Measurement,
    Sample,
    Workload,
    bites,
    bucket_name,
    cell_of,
    forecast,
)
from pipeline.plan import cut_units
from pipeline.records import Item

ONE_CPU = Machines(1, 0.0, threads=2, cores=2.0, batch_pixels=2e6, units_in_flight=3, object_store_bytes=1e9)
GPUS = replace(ONE_CPU, replicas=4, gpus=0.5, threads=1, cores=16.0)


def item(name: str, scale: int, width: int, height: int, size: int | None = None) -> Item:
    return Item(name, name, name, scale, 0.0, "delta", "center", width=width, height=height, size=size)


def sample(scale: int = 2, side: int = 100, **changes: float) -> Sample:
    """2 seconds and 3 bytes a HR pixel of 100x100 LR pixels at x2, unless said otherwise."""
    hr = side * side * scale**2
    made = Sample(scale, side * side, side * side, 3 * hr, 0.0, 2.0 * hr, 0.0)
    return replace(made, **changes)  # type: ignore[arg-type]


def estimate(items: list[Item], samples: list[Sample], machines: Machines = ONE_CPU, **measured: object) -> Forecast:
    measurement = Measurement("m", samples, alone=True, startup_seconds=5.0)
    measurement = replace(measurement, **measured)  # type: ignore[arg-type]
    workload = Workload()
    workload.add(items)
    return forecast(Forecast(len(items), 0, 0, len(items)), workload, measurement, machines, price_per_hour=3.0)


def test_cost_is_pixels_times_the_measured_rate_of_their_cell() -> None:
    items = [item("a", 2, 100, 100), item("b", 2, 50, 100), item("c", 1, 300, 300)]
    made = estimate(items, [sample(), sample(1, 300, seconds_restore=90_000.0, bytes_out=9_000)])
    assert made.hr_megapixels == pytest.approx((40_000 + 20_000 + 90_000) / 1e6)
    assert made.lr_megapixels == pytest.approx((10_000 + 5_000 + 90_000) / 1e6)
    assert made.seconds_restore == pytest.approx(2.0 * 60_000 + 1.0 * 90_000)
    assert made.bytes_out == pytest.approx(3 * 60_000 + 0.1 * 90_000)
    assert sum(cell.items for cell in made.cells) == 3


def test_a_cell_without_a_sample_takes_the_rate_of_its_scale_then_of_all() -> None:
    large = item("large", 2, 2000, 2000)
    assert estimate([large], [sample(), sample(3, seconds_restore=0.0)]).seconds_restore == pytest.approx(2.0 * 16e6)
    (other,) = estimate([item("other", 4, 10, 10)], [sample()]).cells
    assert other.seconds == pytest.approx(2.0 * 1600)


def test_replicas_with_gpus_share_the_work_and_cores_may_be_what_limits() -> None:
    items = [item(str(n), 2, 100, 100) for n in range(8)]
    made = estimate(items, [sample()], GPUS)
    assert made.seconds == pytest.approx(5 + 8 * 80_000 / 4)
    assert (made.device, made.device_hours) == ("GPU", pytest.approx(made.seconds / 3600 * 2))
    assert made.cost == pytest.approx(3 * made.device_hours)
    slow_reads = estimate(items, [sample(seconds_read=1e6)], GPUS)
    assert slow_reads.seconds == pytest.approx(5 + 8 * 1e6 / 16)


def test_on_cpus_reads_and_writes_take_cores_from_the_replica() -> None:
    items = [item("a", 2, 100, 100)]
    busy = sample(seconds_read=6_000.0, seconds_write=4_000.0)
    assert estimate(items, [busy]).seconds == pytest.approx(5 + (80_000 * 2 + 10_000) / 2)
    assert estimate(items, [busy], alone=False).seconds == pytest.approx(5 + 80_000), "competed already"


def test_bytes_in_are_exact_where_sizes_are_known() -> None:
    made = estimate([item("a", 2, 100, 100, size=77), item("b", 2, 100, 100)], [sample(bytes_in=5_000)])
    assert made.bytes_in == pytest.approx(77 + 5_000)


def test_memory_grows_with_the_largest_image() -> None:
    measured = {"memory_base": 1e8, "memory_per_pixel": 100.0}
    small = estimate([item("a", 2, 100, 100)], [sample()], **measured)
    large = estimate([item("a", 2, 2000, 2000)], [sample()], **measured)
    assert small.replica_memory_bytes == pytest.approx(1e8 + 100 * 40_000)
    assert large.replica_memory_bytes == pytest.approx(1e8 + 100 * 16e6)
    assert small.gpu_memory_bytes is None


def test_the_first_bites_are_one_of_each_cell_and_no_larger_than_asked() -> None:
    items = [item(f"{s}-{w}-{n}", s, w, w) for s in (1, 2, 3) for w in (40, 700) for n in range(9)]
    found = list(bites(cut_units(items, megapixels=1.0, most_items=4), most_pixels=4_000))
    cells = {cell_of(i) for i in items}
    assert {cell_of(bite[0]) for bite in found[: len(cells)]} == cells
    assert all(len({i.scale for i in bite}) == 1 for bite in found)
    assert max(len(bite) for bite in found) == 2, "4000 pixels hold two of 40x40"
    starts = [bite[0].item_id for bite in found]
    assert len(set(starts)) == len(starts), "no unit twice"


def test_buckets_are_named_by_their_bounds() -> None:
    names = [bucket_name(n) for n in range(len(BUCKETS_MP) + 1)]
    assert names == ["<0.25 MP", "0.25-1 MP", "1-4 MP", "4-16 MP", "16-64 MP", ">64 MP"]
