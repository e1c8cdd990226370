"""The manifest: one part per unit, current rows by item, work and time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import manifest
from pipeline.data.schema import MANIFEST_SCHEMA, outcomes_to_table
from pipeline.errors import StorageError
from pipeline.records import DONE, FAILED, Outcome

START = datetime(2026, 1, 1, tzinfo=UTC)

# The README's query for what is current.
CURRENT = """
    select * exclude (newest_work) from (
        select *, first_value(work_id) over (partition by item_id order by written_at desc) as newest_work
        from read_parquet('{parts}')
    ) where work_id = newest_work
    qualify row_number() over (partition by item_id order by status = 'done' desc, written_at desc) = 1
"""


def outcome(item: str, work: str, status: str, minute: int) -> Outcome:
    return Outcome(item, work_id=work, status=status, uri=item, written_at=START + timedelta(minutes=minute))


def test_a_part_reads_back_with_every_column(tmp_path: Path) -> None:
    row = outcome("a", "w", DONE, 0)
    manifest.write_part(str(tmp_path), "run", [row])
    table = manifest.read(str(tmp_path))
    assert table.schema.equals(MANIFEST_SCHEMA)
    assert table.equals(outcomes_to_table([row]))


def test_a_repeated_task_overwrites_its_own_part(tmp_path: Path) -> None:
    rows = [outcome("a", "w", DONE, 0), outcome("b", "w", DONE, 0)]
    assert manifest.write_part(str(tmp_path), "run", rows) == manifest.write_part(str(tmp_path), "run", rows)
    assert len(manifest.parts(str(tmp_path))) == 1
    manifest.write_part(str(tmp_path), "run", rows[:1])
    assert len(manifest.parts(str(tmp_path))) == 2


def test_done_beats_a_later_failure_of_the_same_work(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "1", [outcome("a", "w", DONE, 0)])
    manifest.write_part(str(tmp_path), "2", [outcome("a", "w", FAILED, 1)])
    assert manifest.current(str(tmp_path))["status"].to_pylist() == [DONE]


def test_newer_work_beats_older_even_when_it_failed(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "1", [outcome("a", "old", DONE, 0)])
    manifest.write_part(str(tmp_path), "2", [outcome("a", "new", FAILED, 1)])
    assert manifest.known(str(tmp_path))["a"].work_id == "new"
    assert manifest.known(str(tmp_path))["a"].status == FAILED


def test_an_archive_without_manifest_has_nothing_current(tmp_path: Path) -> None:
    assert manifest.known(str(tmp_path)) == {}
    assert len(manifest.current(str(tmp_path))) == 0
    assert manifest.settle(str(tmp_path)) == 0


def test_a_part_of_an_older_version_lacks_columns_and_still_reads(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "manifest").mkdir()
    old = outcomes_to_table([outcome("a", "w", DONE, 0)]).drop_columns(["ssim", "precision"])
    pq.write_table(old, tmp_path / "manifest" / "old.parquet")
    assert manifest.current(str(tmp_path))["ssim"].to_pylist() == [None]


log = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["v", "w"]), st.sampled_from([DONE, FAILED])),
    min_size=1,
    max_size=30,
)


@given(log, st.sampled_from([1, 4, 1000]), st.sampled_from([1, 5, 1000]))
def test_current_is_the_readmes_query_and_settling_keeps_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], at_once: int, parts_in_bulk: int
) -> None:
    """Also where the rows do not fit into memory at once, and go by way of the disk."""
    output = tmp_path_factory.mktemp("log")
    for minute, row in enumerate(rows):
        manifest.write_part(str(output), f"run{minute // 3}", [outcome(*row, minute)])
    query = CURRENT.format(parts=output / "manifest" / "*.parquet")
    by_query = sorted(duckdb.sql(query).select("item_id, work_id, status, epoch_us(written_at)").fetchall())
    assert told(manifest.current(str(output))) == by_query
    before = len(manifest.read(str(output)))
    with patch.multiple(manifest, _ROWS_AT_ONCE=at_once, _BULK_PARTS=parts_in_bulk):
        gone = manifest.settle(str(output))
    left = manifest.read(str(output))
    assert len(left) == len(by_query)
    assert told(left) == by_query
    assert gone == before - len(left)


def told(table: pa.Table) -> list[tuple[object, ...]]:
    """item, work, status and microseconds of each row."""
    when = table["written_at"].cast(pa.int64()).to_pylist()
    names = ("item_id", "work_id", "status")
    return sorted(zip(*(table[name].to_pylist() for name in names), when, strict=True))


@pytest.mark.parametrize("at_once", [7, 1000])
def test_a_stream_of_current_rows_is_the_current_table_part_by_part(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_ROWS_AT_ONCE", at_once)
    for n in range(40):  # more parts than are fetched ahead
        rows = [outcome(f"item-{n % 9}", f"work-{n % 4}", (DONE, FAILED)[n % 2], n), outcome(f"one-{n}", "w", DONE, n)]
        manifest.write_part(str(tmp_path), f"run-{n:02}", rows)
    columns = ["item_id", "status", "written_at"]
    streamed = pa.concat_tables(manifest.stream_current(str(tmp_path), columns))
    assert streamed.equals(manifest.current(str(tmp_path)).select(columns))


def test_a_part_that_changes_while_it_is_streamed_is_said(tmp_path: Path) -> None:
    for n in range(33):
        manifest.write_part(str(tmp_path), f"sun-{n:02}", [outcome(f"b{n}", "w", DONE, 0)])
    stream = manifest.stream_current(str(tmp_path), ["item_id"])
    next(stream)
    longer = outcomes_to_table([outcome("x", "w", DONE, 0), outcome("y", "w", DONE, 0)])
    pq.write_table(longer, manifest.parts(str(tmp_path))[-1])
    with pytest.raises(StorageError, match="changed while it was read"):
        list(stream)
