"""A catalog planned in waves: together they are the plan that one wave would be."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import waves
from pipeline.data import manifest
from pipeline.errors import ItemError
from pipeline.plan import Entry, Plan, bucket_of, invalid_outcome
from pipeline.records import DONE, FAILED, Item, Outcome
from pipeline.waves import Waves

NAMES = [f"{letter}.png" for letter in "abcdefgh"]
KEYS = [*NAMES, "a", "a.png.tif", "b.png.tif", "b.png.tif.png", "c.tif"]  # large images are written as TIFF
START = datetime(2026, 1, 1, tzinfo=UTC)


def item(name: str, key: str = "", sigma: float = 0.0) -> Item:
    return Item(name, f"/in/{name}", key or name, 2, sigma, "delta", "center", work_id=f"work-{sigma}")


def failing(name: str) -> Outcome:
    return invalid_outcome(ItemError("bad-scale", "no scale"), name, uri=f"/in/{name}", work_id="work-0.0")


ENTRIES = st.lists(
    st.builds(
        lambda name, key, sigma, bad: failing(name) if bad else item(name, key, sigma),
        st.sampled_from(NAMES),
        st.sampled_from(KEYS),
        st.sampled_from([0.0, 2.55]),
        st.booleans(),
    ),
    max_size=16,
)
LOG = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, "a.png#row-3", "b.png#row-2", "stranger"]),
        st.sampled_from([0.0, 2.55]),
        st.sampled_from([None, "storage-transient", "corrupt-image"]),
        st.integers(1, 5),
    ),
    max_size=20,
)


def record(output: Path, log: list[tuple[str, float, str | None, int]]) -> None:
    for minute, (name, sigma, code, attempts) in enumerate(log):
        status, when = FAILED if code else DONE, START + timedelta(minutes=minute)
        row = Outcome(name, f"work-{sigma}", "r", status, code, attempts=attempts, written_at=when)
        manifest.write_part(str(output), f"run-{minute:02}", [row])


def planned(entries: list[Entry], output: Path, number: int, retry: str = "transient") -> Waves:
    return Waves(enumerate(entries), str(output), number=number, output_ending=".png", retry_failed=retry)


def together(made: Waves) -> tuple[object, ...]:
    """All that the plans say, in an order of its own."""
    plans = [made.plan(wave) for wave in range(made.number)]
    todo = sorted((todo for plan in plans for todo in plan.todo), key=lambda todo: todo.item_id)
    invalid = sorted((out for plan in plans for out in plan.invalid), key=lambda out: out.item_id)
    attempts = {name: tries for plan in plans for name, tries in plan.attempts.items()}
    return todo, invalid, attempts, sum(plan.done for plan in plans), sum(plan.waiting for plan in plans)


@given(ENTRIES, LOG, st.integers(2, 5), st.sampled_from(["none", "transient", "all"]), st.sampled_from([1, 3, 1000]))
def test_waves_together_are_the_plan_of_one(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[Entry],
    log: list[tuple[str, float, str | None, int]],
    number: int,
    retry: str,
    at_once: int,
) -> None:
    output = tmp_path_factory.mktemp("waves")
    record(output, log)
    with patch.object(waves, "_ROWS_AT_ONCE", at_once):
        several = planned(entries, output, number, retry)
    one = planned(entries, output, 1, retry)
    assert together(several) == together(one)
    assert together(several) == together(several), "asked again, they are the same"
    assert several.counts == one.counts
    assert several.counts.items == len(entries)


def test_of_rows_with_one_output_key_the_first_of_the_catalog_has_it_in_whatever_wave(tmp_path: Path) -> None:
    entries = [item(name, key="same.png") for name in NAMES]
    assert {bucket_of(name, 3) for name in NAMES} == {0, 1, 2}, "the rows lie in all three waves"
    for first in range(len(NAMES)):
        turned: list[Entry] = [*entries[first:], *entries[:first]]
        todo, invalid, *_ = together(planned(turned, tmp_path, 3))
        assert todo == [turned[0]]
        assert {outcome.error_code for outcome in invalid} == {"duplicate-output"}  # type: ignore[attr-defined]
        assert all(turned[0].item_id in (outcome.error or "") for outcome in invalid)  # type: ignore[attr-defined]


def test_a_hash_that_two_output_keys_share_makes_them_no_doubles(tmp_path: Path) -> None:
    entries: list[Entry] = [item(name) for name in NAMES]
    with patch.object(waves, "hash", lambda key: 7, create=True):
        assert planned(entries, tmp_path, 3).counts.todo == len(NAMES)


def test_a_double_stays_in_the_wave_of_the_id_it_doubles() -> None:
    for name in (*NAMES, "x#row-5"):
        assert len({bucket_of(other, 97) for other in (name, f"{name}#row-3", f"{name}#row-3#row-4")}) == 1


def test_ids_spread_evenly() -> None:
    counts = [0] * 10
    for n in range(10_000):
        counts[bucket_of(f"s3://bucket/scans/plate-{n:07}.png", 10)] += 1
    assert max(counts) < 1.15 * 1000


def test_what_is_done_in_one_wave_is_not_planned_again_and_the_others_are(tmp_path: Path) -> None:
    entries: list[Entry] = [item(name) for name in NAMES]
    first: Plan = planned(entries, tmp_path, 3).plan(0)
    rows = [Outcome(todo.item_id, todo.work_id, "r", DONE, written_at=START) for todo in first.todo]
    manifest.write_part(str(tmp_path), "run", rows)
    again = planned(entries, tmp_path, 3)
    assert (again.counts.done, again.counts.todo) == (len(first.todo), len(NAMES) - len(first.todo))
    assert again.plan(0).todo == []
    other = planned(entries, tmp_path, 2)
    assert (other.counts.done, other.counts.todo) == (again.counts.done, again.counts.todo), "the number may change"
