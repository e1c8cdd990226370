"""Records become Arrow tables and come back the same, pixels bit for bit."""

from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.data.schema import (
    ITEM_SCHEMA,
    MANIFEST_SCHEMA,
    WORK_SCHEMA,
    items_to_table,
    outcomes_to_table,
    table_to_items,
    table_to_outcomes,
    table_to_work,
    work_to_table,
)
from pipeline.records import DONE, FAILED, Degradation, Item, Outcome, Picture, Work

PLAIN_ITEM = Item("a", "/archive/a.png", "a.png", 2, 2.55, "gaussian(1.6)", "center")
FULL_ITEM = Item(
    "b#page=3",
    "s3://bucket/ü b.tif",
    "ü b.tif",
    4,
    0.0,
    "values",
    "corner",
    page=3,
    kernel_values=[[0.25, 0.5], [0.125, 0.125]],
    kernel_digest="12ab",
    width=640,
    height=480,
    etag="e",
    size=12345678901,
    hr_uri="/truth/b.png",
    work_id="w",
)
PLAIN_OUTCOME = Outcome("a")
FULL_OUTCOME = Outcome(
    "b",
    status=DONE,
    sr_uri="s3://out/b.png",
    sigma=2.5,
    scale=4,
    psnr_db=31.25,
    seconds_restore=0.5,
    written_at=datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC),
)


def pixels(*shape: int, dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=np.dtype(dtype).newbyteorder("="))


def picture(*shape: int, dtype: str = "uint8", alpha: bool = False) -> Picture:
    alpha_hw = pixels(*shape[:2], dtype=dtype) if alpha else None
    return Picture(pixels(*shape, dtype=dtype), "RGB", "png", alpha_hw=alpha_hw)


def assert_same_picture(first: Picture | None, second: Picture | None) -> None:
    assert first is not None
    assert second is not None
    for field in fields(Picture):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b, strict=True)
        else:
            assert a == b, field.name


def through_a_file(table: pa.Table) -> pa.Table:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return pq.read_table(pa.BufferReader(sink.getvalue()))


@pytest.mark.parametrize("items", [[], [PLAIN_ITEM], [PLAIN_ITEM, FULL_ITEM, PLAIN_ITEM]])
def test_items_come_back_the_same(items: list[Item]) -> None:
    assert table_to_items(items_to_table(items)) == items
    assert table_to_items(through_a_file(items_to_table(items))) == items


@pytest.mark.parametrize("outcomes", [[], [PLAIN_OUTCOME], [FULL_OUTCOME, PLAIN_OUTCOME]])
def test_outcomes_come_back_the_same_from_a_parquet_file(outcomes: list[Outcome]) -> None:
    assert table_to_outcomes(through_a_file(outcomes_to_table(outcomes))) == outcomes


def test_the_columns_are_the_fields_of_the_records_in_order() -> None:
    assert ITEM_SCHEMA.names == [field.name for field in fields(Item)]
    assert MANIFEST_SCHEMA.names == [field.name for field in fields(Outcome)]
    assert WORK_SCHEMA.field("item").type == pa.struct(list(ITEM_SCHEMA))


def test_a_column_has_one_type_even_where_all_its_values_are_absent() -> None:
    """Parts written by different workers can then be read as one table."""
    assert outcomes_to_table([PLAIN_OUTCOME]).schema == MANIFEST_SCHEMA
    assert outcomes_to_table([FULL_OUTCOME]).schema == MANIFEST_SCHEMA
    assert work_to_table([Work(PLAIN_ITEM, PLAIN_OUTCOME)]).schema == WORK_SCHEMA
    assert work_to_table([]).schema == WORK_SCHEMA


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 7, 1), (1, 1, 1)])
@pytest.mark.parametrize("alpha", [False, True])
def test_pixels_come_back_bit_for_bit(dtype: str, shape: tuple[int, ...], alpha: bool) -> None:
    work = Work(PLAIN_ITEM, PLAIN_OUTCOME, picture(*shape, dtype=dtype, alpha=alpha))
    (back,) = table_to_work(work_to_table([work]))
    assert_same_picture(back.picture, work.picture)


def test_what_a_picture_carries_comes_back() -> None:
    carried = replace(picture(2, 2, 3), bits=16, icc=b"\x00icc", exif=b"", xmp=b"<x/>", dpi=(300.0, 72.5))
    (back,) = table_to_work(work_to_table([Work(PLAIN_ITEM, PLAIN_OUTCOME, carried)]))
    assert_same_picture(back.picture, carried)


def test_unlike_work_travels_in_one_table() -> None:
    """Gray beside RGB, 8 bits beside 16 at odd offsets, with and without alpha, failed in between."""
    works = [
        Work(PLAIN_ITEM, PLAIN_OUTCOME, picture(3, 5, 1), Degradation(np.ones((2, 3)), 2, 2.55)),
        Work(FULL_ITEM, FULL_OUTCOME, picture(2, 3, 3, dtype="uint16", alpha=True)),
        Work(PLAIN_ITEM, replace(PLAIN_OUTCOME, status=FAILED)),
        Work(PLAIN_ITEM, PLAIN_OUTCOME, picture(7, 1, 3, alpha=True), Degradation(np.ones((1, 1)), 2, 2.55)),
    ]
    back = table_to_work(work_to_table(works))
    assert [work.item for work in back] == [work.item for work in works]
    assert [work.outcome for work in back] == [work.outcome for work in works]
    for got, sent in zip(back, works, strict=True):
        assert (got.picture is None) == (sent.picture is None)
        if sent.picture is not None:
            assert_same_picture(got.picture, sent.picture)
        assert (got.degradation is None) == (sent.degradation is None)
        if got.degradation is not None and sent.degradation is not None:
            np.testing.assert_allclose(got.degradation.kernel, sent.degradation.kernel, rtol=1e-15)
            assert got.degradation.scale == sent.degradation.scale
            assert got.degradation.sigma == sent.degradation.sigma


def test_pictures_in_a_foreign_byte_order_and_memory_layout_keep_their_values() -> None:
    values = pixels(4, 6, 3, dtype="uint16")
    big_endian = Picture(values.astype(">u2"), "RGB", "tiff", bits=16)
    transposed = Picture(np.asfortranarray(values), "RGB", "tiff", bits=16)
    for picture_ in (big_endian, transposed, replace(transposed, pixels_hwc=values[::-1, ::2])):
        (back,) = table_to_work(work_to_table([Work(PLAIN_ITEM, PLAIN_OUTCOME, picture_)]))
        assert back.picture is not None
        np.testing.assert_array_equal(back.picture.pixels_hwc, picture_.pixels_hwc)
        assert back.picture.pixels_hwc.dtype == np.uint16


def test_slices_and_joined_tables_keep_rows_and_pixels_together() -> None:
    works = [Work(replace(PLAIN_ITEM, item_id=str(n)), PLAIN_OUTCOME, picture(n, 3, 3)) for n in range(1, 8)]
    joined = pa.concat_tables([work_to_table(works[:3]), work_to_table(works[3:])]).slice(2, 4)
    for got, sent in zip(table_to_work(joined), works[2:6], strict=True):
        assert got.item == sent.item
        assert_same_picture(got.picture, sent.picture)


def test_pixels_are_read_as_views_of_the_table() -> None:
    table = work_to_table([Work(PLAIN_ITEM, PLAIN_OUTCOME, picture(8, 8, 3))])
    first, second = (table_to_work(table)[0].picture for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.shares_memory(first.pixels_hwc, second.pixels_hwc)
    assert not first.pixels_hwc.flags.writeable
