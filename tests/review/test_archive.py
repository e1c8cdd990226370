"""The review: what it counts is what the manifest says, and it stays small however long that is."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.data import manifest
from pipeline.errors import ItemError
from pipeline.measure.consistency import limit
from pipeline.records import DONE, FAILED, Outcome
from pipeline.review.archive import review
from pipeline.review.figures import Timeline
from pipeline.review.picks import GROUPS

START = datetime(2026, 1, 1, tzinfo=UTC)


def done(n: int, **values: object) -> Outcome:
    row = Outcome(
        f"item-{n:03}",
        work_id="w",
        run_id="run-1",
        status=DONE,
        uri=f"/in/{n:03}.png",
        sr_uri=f"/out/{n:03}.png",
        lr_width=100,
        lr_height=50,
        sr_width=200,
        sr_height=100,
        scale=2,
        sigma=2.55,
        kernel="gaussian(1.6)",
        phase="center",
        model_id="m",
        input_bytes=10,
        output_bytes=40,
        seconds_read=0.5,
        seconds_restore=2.0,
        seconds_write=0.25,
        consistency_rms_255=1.0 + n / 100,
        written_at=START + timedelta(seconds=n),
    )
    return replace(row, **values)  # type: ignore[arg-type]


def failed(n: int, code: str) -> Outcome:
    return Outcome(
        f"bad-{n:03}", work_id="w", run_id="run-1", status=FAILED, error_code=code, error=f"because {n}",
        error_class="permanent", uri=f"/in/bad-{n:03}.png", written_at=START,
    )  # fmt: skip


def record(output: Path, run_id: str, **values: object) -> None:
    (output / "run").mkdir(exist_ok=True)
    (output / "run" / f"{run_id}.json").write_text(json.dumps({"run_id": run_id, **values}))


def test_counts_sums_and_shares_are_the_manifests(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "a", [done(n) for n in range(6)])
    manifest.write_part(str(tmp_path), "b", [done(6, kernel="delta", sigma=0.0, consistency_rms_255=9.0)])
    manifest.write_part(str(tmp_path), "c", [failed(n, "input-missing") for n in range(7)] + [failed(9, "bad-kernel")])
    record(tmp_path, "run-1", done=7)
    found = review(str(tmp_path), pictures=2)
    assert (found.items, found.done, found.failed, found.flagged) == (15, 7, 8, 1)
    assert found.hr_megapixels == pytest.approx(7 * 0.02)
    assert found.lr_megapixels == pytest.approx(7 * 0.005)
    assert (found.bytes_in, found.bytes_out) == (70, 280)
    assert found.seconds == pytest.approx({"read": 3.5, "restore": 14.0, "write": 1.75})
    assert found.seconds_per_mp.quantile(0.5) == pytest.approx(100, rel=0.01)
    assert {code: failure.count for code, failure in found.failures.items()} == {"input-missing": 7, "bad-kernel": 1}
    assert len(found.failures["input-missing"].examples) == 5
    assert found.failures["bad-kernel"].examples == [("/in/bad-009.png", "because 9", 1)]
    gaussian = found.settings[2, "gaussian(1.6)", 2.55]
    assert (gaussian.items, gaussian.flagged, gaussian.psnr_items) == (6, 0, 0)
    assert gaussian.consistency / gaussian.items == pytest.approx(1.025)
    assert sum(found.timeline.megapixels.values()) == pytest.approx(found.hr_megapixels)


def test_superseded_rows_count_no_more(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "a", [done(1, status=FAILED, error_code="internal"), done(2)])
    manifest.write_part(str(tmp_path), "b", [done(1, written_at=START + timedelta(hours=1))])
    found = review(str(tmp_path), pictures=2)
    assert (found.done, found.failed) == (2, 0)


def test_nothing_at_all_is_a_review_of_nothing(tmp_path: Path) -> None:
    found = review(str(tmp_path), pictures=2)
    assert (found.items, found.runs, found.failures) == (0, [], {})
    assert found.showcase == {group: [] for group in GROUPS}


def test_best_and_worst_go_by_psnr_where_there_is_truth(tmp_path: Path) -> None:
    rows = [done(n, psnr_db=20.0 + n) for n in range(5)]
    for row in rows:  # a part each: what is best is known only at the end
        manifest.write_part(str(tmp_path), row.item_id, [row])
    shown = review(str(tmp_path), pictures=2)
    names = {group: [row["item_id"] for row in rows] for group, rows in shown.showcase.items()}
    assert shown.ranked_by == "psnr"
    assert names["best"] == ["item-004", "item-003"]
    assert names["worst"] == ["item-000", "item-001"]
    assert len(names["random"]) == 2
    assert names["flagged"] == []


def test_without_truth_they_go_by_consistency_against_its_limit(tmp_path: Path) -> None:
    high = done(7, sigma=20.0, consistency_rms_255=20.0)  # much noise, well explained
    rows = [*(done(n) for n in range(5)), high, done(8, consistency_rms_255=11.0), done(9, consistency_rms_255=50.0)]
    manifest.write_part(str(tmp_path), "a", rows)
    shown = review(str(tmp_path), pictures=1)
    assert shown.ranked_by == "consistency"
    assert [row["item_id"] for row in shown.showcase["worst"]] == ["item-009"]
    assert [row["item_id"] for row in shown.showcase["flagged"]] == ["item-009"]
    assert [row["item_id"] for row in shown.showcase["best"]] == ["item-000"]
    assert shown.flagged == 2
    assert limit(20.0) > 20.0


def test_the_random_ones_are_the_same_each_time(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "a", [done(n) for n in range(50)])
    first, second = (review(str(tmp_path), pictures=3).showcase["random"] for _ in range(2))
    assert first == second


def test_huge_pictures_are_not_shown(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "a", [done(1, sr_width=40_000, sr_height=40_000)])
    assert review(str(tmp_path), pictures=3).showcase["random"] == []


def test_the_newest_run_with_results_is_drawn_unless_another_is_named(tmp_path: Path) -> None:
    manifest.write_part(str(tmp_path), "a", [done(1), done(2, run_id="run-0")])
    for name, count in (("run-0", 1), ("run-1", 1), ("run-2", 0)):
        record(tmp_path, name, done=count)
    (tmp_path / "run" / "run-3.json").write_text("{ cut sho")
    (tmp_path / "run" / "lease").mkdir()
    (tmp_path / "run" / "lease" / "000001.json").write_text('{"run_id": "no run"}')
    found = review(str(tmp_path), pictures=0)
    assert [run["run_id"] for run in found.runs] == ["run-2", "run-1", "run-0"]
    assert found.timeline.run_id == "run-1"
    assert review(str(tmp_path), pictures=0, run_id="run-0").timeline.items == {int(START.timestamp()) + 2: 1}
    with pytest.raises(ItemError, match="no record of the run 'run-9'"):
        review(str(tmp_path), pictures=0, run_id="run-9")


def test_a_run_older_than_all_that_are_listed_is_found_and_nights_without_work_do_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.review.archive._SHOWN_RUNS", 3)
    manifest.write_part(str(tmp_path), "a", [done(1, run_id="run-0"), done(2, run_id="run-1")])
    for n in range(9):
        record(tmp_path, f"run-{n}", done=int(n < 2), config={"number": n})
    found = review(str(tmp_path), pictures=0)
    assert [run["run_id"] for run in found.runs] == ["run-8", "run-7", "run-6"]
    assert (found.run_count, found.timeline.run_id) == (9, "run-1")
    assert sum(found.timeline.items.values()) == 1
    oldest = review(str(tmp_path), pictures=0, run_id="run-0")
    assert (oldest.timeline.run_id, (oldest.drawn_run or {})["config"]) == ("run-0", {"number": 0})
    with pytest.raises(ItemError, match="no record of the run 'run-9'"):
        review(str(tmp_path), pictures=0, run_id="run-9")


def test_kernels_given_as_numbers_are_one_setting_only_where_the_numbers_are_the_same(tmp_path: Path) -> None:
    rows = [done(n, kernel="values", kernel_digest=f"{n % 2}234567890ab") for n in range(5)]
    manifest.write_part(str(tmp_path), "a", rows)
    found = review(str(tmp_path), pictures=0)
    counts = {kernel: setting.items for (_, kernel, _), setting in found.settings.items()}
    assert counts == {"values 02345678": 3, "values 12345678": 2}


def test_a_setting_an_image_is_kept_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.review.archive._MOST_SETTINGS", 3)
    manifest.write_part(str(tmp_path), "a", [done(n, kernel=f"psf-{n}.npy") for n in range(10)])
    found = review(str(tmp_path), pictures=0)
    assert (len(found.settings), found.other_settings.items) == (3, 7)


def test_a_long_run_gets_coarser_steps_and_loses_nothing() -> None:
    line = Timeline("run")
    for second in range(0, 100_000, 3):
        line.add(second, 2.0)
    assert len(line.items) <= 4096
    assert sum(line.items.values()) == len(range(0, 100_000, 3))
    assert sum(line.megapixels.values()) == 2 * sum(line.items.values())
