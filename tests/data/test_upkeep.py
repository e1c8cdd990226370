"""Upkeep of the manifest: whatever is merged or forgotten, what is current stays what it was."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import manifest, storage, upkeep
from pipeline.records import DONE, FAILED, Outcome

START = datetime(2026, 1, 1, tzinfo=UTC)


def outcome(item: str, work: str, status: str, minute: int, run: str = "r", code: str | None = None) -> Outcome:
    when = START + timedelta(minutes=minute)
    return Outcome(item, work, run, status, code, uri=item, written_at=when)


def told(table: pa.Table) -> list[tuple[object, ...]]:
    names = ("item_id", "work_id", "status", "written_at")
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True))


log = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["w1", "w2"]), st.sampled_from([DONE, FAILED])),
    min_size=1,
    max_size=40,
)


@settings(max_examples=20)
@given(log, st.integers(1, 8), st.integers(2, 20))
def test_compaction_keeps_what_is_current_and_leaves_few_sorted_parts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], small: int, large: int
) -> None:
    output = str(tmp_path_factory.mktemp("log"))
    for minute, row in enumerate(rows):
        manifest.write_part(output, f"run{minute // 3}", [outcome(*row, minute)])
    before = told(manifest.current(output))
    upkeep.compact(output, small=small, large=large)
    assert told(manifest.current(output)) == before
    assert told(manifest.read(output)) == before, "a plain read shows each item once"
    sizes = []
    for uri in manifest.parts(output):
        ids = pq.read_table(uri)["item_id"].to_pylist()
        assert ids == sorted(ids)
        sizes.append(len(ids))
    assert max(sizes) <= max(large, small)
    assert sum(size < small for size in sizes) <= 1 + sum(sizes) // max(1, large - small + 1)


class Dies(BaseException):
    """The end of a process."""


@settings(max_examples=20)
@given(log, st.integers(1, 8), st.integers(2, 20), st.data())
def test_a_compaction_that_dies_at_any_change_of_the_store_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    small: int,
    large: int,
    data: st.DataObject,
) -> None:
    """Before each change a reader sees what is current; after the last the process dies, and the next one mends."""
    output = str(tmp_path_factory.mktemp("log"))
    for minute, row in enumerate(rows):
        manifest.write_part(output, f"run{minute // 3}", [outcome(*row, minute)])
    before, left = told(manifest.current(output)), [data.draw(st.integers(0, 8), label="changes until it dies")]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_bytes", "delete"):
            patch.setattr(storage, name, dying(getattr(storage, name), output, before, left))
        with contextlib.suppress(Dies):
            upkeep.compact(output, small=small, large=large)
    assert told(manifest.current(output)) == before
    upkeep.compact(output, small=small, large=large)
    assert told(manifest.read(output)) == before, "the next one mends it"


def dying(
    change: Callable[..., None], output: str, before: list[tuple[object, ...]], left: list[int]
) -> Callable[..., None]:
    def changed(*args: object) -> None:
        assert told(manifest.current(output)) == before
        if left[0] == 0:
            raise Dies
        left[0] -= 1
        change(*args)

    return changed


def many_parts(output: str, count: int = 30) -> None:
    for number in range(count):
        manifest.write_part(output, "r", [outcome(f"i{number:03}", "w", DONE, number)])


@pytest.mark.parametrize("place", ["file", "s3"])
def test_many_parts_become_one(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    output = str(tmp_path) if place == "file" else request.getfixturevalue("s3_prefix")
    many_parts(output)
    assert upkeep.compact(output) == (30, 1)
    assert upkeep.compact(output) == (1, 1), "a second compaction finds nothing to do"
    assert manifest.read(output, ["item_id"])["item_id"].to_pylist() == [f"i{n:03}" for n in range(30)]


@pytest.mark.parametrize("after", range(0, 12, 3))
def test_a_compaction_cut_short_anywhere_loses_nothing_and_is_mended_by_the_next(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = str(tmp_path)
    many_parts(output, 10)
    before = told(manifest.current(output))
    deletions = []

    def dies(uri: str) -> None:
        if len(deletions) == after:
            raise KeyboardInterrupt
        deletions.append(uri)
        real(uri)

    real = storage.delete
    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", dies)
        try:
            upkeep.compact(output)
        except KeyboardInterrupt:
            assert after < 10
    assert told(manifest.current(output)) == before
    upkeep.compact(output)
    assert told(manifest.read(output)) == before


def test_a_reader_that_listed_the_old_parts_sees_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compaction comes between the reader's listing and its reading."""
    output, real = str(tmp_path), manifest.parts
    many_parts(output, 10)
    before = told(manifest.current(output))
    compacted = []

    def list_and_then_compact(where: str) -> list[str]:
        listed = real(where)
        if not compacted:
            compacted.append(True)
            upkeep.compact(output)
        return listed

    monkeypatch.setattr(manifest, "parts", list_and_then_compact)
    assert told(manifest.read(output)) == before
    assert len(real(output)) == 1


def test_what_a_run_recorded_by_one_error_can_be_taken_back(tmp_path: Path) -> None:
    output = str(tmp_path)
    manifest.write_part(output, "1", [outcome("a", "w", FAILED, 0, "1", "storage-denied")])
    rows = [
        outcome("b", "w", FAILED, 1, "2", "storage-denied"),
        outcome("c", "w", FAILED, 1, "2", "not-an-image"),
        outcome("d", "w", DONE, 1, "2"),
    ]
    manifest.write_part(output, "2", rows)
    assert upkeep.take_back(output, "2", "storage-denied") == 1
    assert sorted(manifest.read(output, ["item_id"])["item_id"].to_pylist()) == ["a", "c", "d"]


def test_forgotten_items_have_no_row(tmp_path: Path) -> None:
    many_parts(str(tmp_path), 5)
    assert upkeep.forget(str(tmp_path), {"i001", "i003", "nobody"}) == 2
    assert upkeep.forget(str(tmp_path), set()) == 0
    assert sorted(manifest.known(str(tmp_path))) == ["i000", "i002", "i004"]


def test_doubled_items_are_told(tmp_path: Path) -> None:
    many_parts(str(tmp_path), 3)
    manifest.write_part(str(tmp_path), "s", [outcome("i001", "w", DONE, 99)])
    assert upkeep.doubled(str(tmp_path)) == ["i001"]
