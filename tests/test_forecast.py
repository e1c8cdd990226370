"""What a run will cost, from samples and a workload: laws of the estimate."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.forecast import (
    _RAY_CORES,
    _WINDOWS_BYTES,
    BUCKETS_MP,
    BY_WINDOWS,
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


def estimate(
    items: list[Item],
    samples: list[Sample],
    machines: Machines = ONE_CPU,
    large: Sequence[Item] = (),
    units: Sequence[list[Item]] | None = None,
    **measured: object,
) -> Forecast:
    """Of items that are work units by themselves, unless `units` are given."""
    measurement = Measurement("m", samples, alone=True, startup_seconds=5.0)
    measurement = replace(measurement, **measured)  # type: ignore[arg-type]
    workload = Workload()
    workload.add(units or [[i] for i in items], large, machines.replicas)
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
    slow_reads = estimate(10 * items, [sample(seconds_read=1e6)], GPUS)
    assert slow_reads.seconds == pytest.approx(5 + 80 * 1e6 / (16 - _RAY_CORES))


def test_on_cpus_reads_and_writes_take_cores_from_the_replica_and_so_does_ray() -> None:
    items = [item("a", 2, 100, 100)]
    busy = sample(seconds_read=6_000.0, seconds_write=4_000.0)
    assert estimate(10 * items, [busy]).seconds == pytest.approx(5 + 10 * (80_000 * 2 + 10_000) / (2 - _RAY_CORES))
    competed = estimate(10 * items, [busy], alone=False)
    assert competed.seconds == pytest.approx(5 + 800_000 + 10_000), "the first read and the last write overlap nothing"


def test_no_more_replicas_work_than_there_are_units_and_the_last_unit_is_waited_for() -> None:
    items = [item(str(n), 2, 100, 100) for n in range(8)]
    one_unit = estimate(items[:2], [sample()], GPUS, units=[items[:2]])
    assert (one_unit.units, one_unit.seconds) == (2, pytest.approx(5 + 80_000)), "halved, for two replicas"
    assert (one_unit.replicas, one_unit.replicas_busy) == (4, pytest.approx(2.0))
    five = estimate(items, [sample()], GPUS, units=[items[:1], items[1:2], items[2:3], items[3:4], items[4:]])
    assert five.seconds == pytest.approx(5 + 2 * 80_000), "the fifth, of four items, in four parts"
    assert five.replicas_busy == pytest.approx(8 / 2)
    one_large = estimate(items[:5], [sample()], GPUS, units=[[i] for i in items[:5]])
    assert one_large.seconds == pytest.approx(5 + 2 * 80_000), "the fifth after one of the others"


def test_large_images_are_a_row_of_their_own_and_follow_the_others() -> None:
    small, giant = item("a", 2, 100, 100), [item(name, 2, 10_000, 5_000, size=10**8) for name in ("b.tif", "c.tif")]
    slow = sample(side=500, seconds_restore=3e6, bytes_out=500_000, windows=True)
    made = estimate([small], [sample(), slow], GPUS, large=giant, replica_seconds=2.0)
    assert (made.large, made.large_hr_megapixels, made.units) == (2, 400.0, 1)
    whole, large = made.cells
    assert (whole.bucket, large.bucket, large.items) == ("<0.25 MP", "by windows", 2)
    assert large.seconds == pytest.approx(3.0 * 400e6), "measured by windows, though 100 pixels whole are nearer"
    assert large.bytes_out == pytest.approx(0.5 * 400e6)
    assert made.seconds == pytest.approx(5 + 2 + 80_000 + 3.0 * 200e6), "two of four replicas, started once more"
    assert made.bytes_in == pytest.approx(2e8 + 10_000)


def test_a_large_image_takes_the_seconds_of_whole_ones_where_none_was_measured() -> None:
    (cell,) = estimate([], [sample(), sample(3, seconds_restore=0.0)], large=[item("a.tif", 2, 10_000, 5_000)]).cells
    assert cell.seconds == pytest.approx(2.0 * 200e6)


def test_a_large_image_needs_bounded_memory_and_scratch_for_itself_and_its_result() -> None:
    measured = {"memory_base": 1e8, "memory_per_pixel": 100.0}
    tiff = item("a.tif", 2, 10_000, 5_000, size=10**8)
    made = estimate([], [sample(pixel_bytes=6.0, windows=True)], large=[tiff], **measured)
    assert made.scratch_bytes == pytest.approx(6 * 200e6 + 1e8)
    assert made.replica_memory_bytes == pytest.approx(1e8 + _WINDOWS_BYTES)
    decoded = item("a.png", 2, 10_000, 40_000, size=10**8)
    made = estimate([], [sample()], large=[decoded], **measured)
    assert made.replica_memory_bytes == pytest.approx(1e8 + 1e8 + 3 * 400e6), "the file and its pixels"
    assert made.scratch_bytes == pytest.approx(3 * 1600e6 + 1e8 + 3 * 400e6)
    assert made.object_store_bytes == 0, "it never goes through the object store"


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
    tried = sorted(i.item_id for bite in found for i in bite)
    assert tried == sorted(i.item_id for i in items), "none twice, and all where there is time"
    assert found[0][0].item_id == "3-700-4", "the heaviest cell, its middle"


def test_a_part_of_a_unit_is_from_all_over_it() -> None:
    unit = [item(str(n), 2, 100, 100 + n) for n in range(12)]
    first, *others = bites([unit], most_pixels=200_000)
    assert [i.item_id for i in first] == ["1", "4", "7", "10"]
    assert sorted(map(len, others)) == [4, 4]


def test_of_large_images_the_smallest_of_each_scale_is_tried_after_one_of_each_cell() -> None:
    units = [[item(f"{w}-{n}", 2, w, w)] for w in (40, 700) for n in range(3)]
    large = [item("large", 2, 9000, 9000), item("least", 2, 8000, 8000), item("other", 3, 8000, 8000)]
    found = [bite[0].item_id for bite in bites(units, 1e6, large)]
    assert set(found[2:4]) == {"least", "other"}
    assert sorted(found) == sorted([unit[0].item_id for unit in units] + ["least", "other"])


def test_buckets_are_named_by_their_bounds() -> None:
    assert bucket_name(BY_WINDOWS) == "by windows"
    names = [bucket_name(n) for n in range(len(BUCKETS_MP) + 1)]
    assert names == ["<0.25 MP", "0.25-1 MP", "1-4 MP", "4-16 MP", "16-64 MP", ">64 MP"]
