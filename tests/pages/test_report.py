"""The report in a real Chromium: slider, keyboard, colours, no request; and archives of any size."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from jobs.make_demo import make_archive
from pipeline.data import manifest
from pipeline.pages.report import write_report
from pipeline.records import DONE, FAILED, Outcome

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Opened = Callable[..., AbstractContextManager[Page]]
    Violations = Callable[[Page], list[str]]

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCHEMES = ("light", "dark")


def done(folder: Path, n: int, **values: object) -> Outcome:
    """A finished item, its input (dark) and its result (bright) stored."""
    rng = np.random.default_rng(n)
    lr, sr = folder / "in" / f"{n}.png", folder / "images" / f"{n}.png"
    for path, side, low in ((lr, 40, 0), (sr, 80, 200)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(low, low + 50, (side, side, 3), dtype=np.uint8)).save(path)
    row = Outcome(
        f"item-{n}", work_id="w", run_id="run-1", status=DONE, uri=str(lr), sr_uri=str(sr), scale=2, sigma=2.55,
        kernel="gaussian(1.6)", phase="center", lr_width=40, lr_height=40, sr_width=80, sr_height=80, input_bytes=900,
        output_bytes=4000, seconds_read=0.1, seconds_restore=1 + n, seconds_write=0.2, model_id="0123abcd",
        consistency_rms_255=2 + 4 * (n % 3), psnr_db=25 + n, ssim=0.8, written_at=NOW + timedelta(seconds=5 * n),
    )  # fmt: skip
    return replace(row, **values)  # type: ignore[arg-type]


def failed(n: int, message: str = "the file is cut short") -> Outcome:
    code, error_class = [("corrupt-image", "permanent"), ("storage-transient", "transient")][n % 2]
    return Outcome(
        f"bad-{n}", work_id="w", run_id="run-1", status=FAILED, error_code=code, error=message,
        error_class=error_class, uri=f"/in/bad-{n}.png", stage="read", written_at=NOW,
    )  # fmt: skip


def report(folder: Path, rows: list[Outcome]) -> Path:
    if rows:
        manifest.write_part(str(folder), "run-1", rows)
        record = {
            "run_id": "run-1", "started": NOW.isoformat(), "seconds": 60.0, "done": len(rows), "failures": {},
            "hr_megapixels": 0.1, "finished": True, "config": {"output": str(folder)}, "versions": {"unfold": "0"},
        }  # fmt: skip
        (folder / "run").mkdir()
        (folder / "run" / "run-1.json").write_text(json.dumps(record))
    uri, _ = write_report(str(folder), pictures=3, now=NOW)
    return Path(uri)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return report(tmp_path, [*(done(tmp_path, n) for n in range(5)), failed(0), failed(1)])


def test_the_slider_uncovers_the_result_by_mouse_and_by_keys(archive: Path, opened: "Opened") -> None:
    with opened(archive) as page:
        pair = page.locator(".compare").first
        slider = pair.get_by_role("slider")
        before = pair.locator(".before")
        assert slider.get_attribute("aria-valuetext") == "50% input, 50% result"
        slider.focus()
        page.keyboard.press("Home")
        assert before.evaluate("e => getComputedStyle(e).clipPath") == "inset(0px 100% 0px 0px)"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == "2% input, 98% result"
        pair.scroll_into_view_if_needed()
        box = pair.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 3, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 40)
        page.mouse.up()
        assert abs(int(slider.input_value()) - 75) <= 1


def test_before_and_after_are_the_runs_own_pictures_one_over_the_other(archive: Path, opened: "Opened") -> None:
    with opened(archive) as page:
        pair = page.locator(".compare").first
        boxes = [pair.locator(kind).bounding_box() for kind in (".before", ".after")]
        assert boxes[0] == boxes[1]
        pair.scroll_into_view_if_needed()
        shown = Image.open(BytesIO(pair.screenshot())).convert("L")
        left, right = (np.asarray(shown.crop((int(a * shown.width), 40, int(b * shown.width), 80)), float).mean()
                       for a, b in ((0.05, 0.4), (0.6, 0.95)))  # fmt: skip
        assert left < 80 < 180 < right


def test_every_part_can_be_reached_and_worked_by_keys(archive: Path, opened: "Opened") -> None:
    with opened(archive) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName + (document.activeElement.type || '')"))
        assert {"SUMMARY", "INPUTrange"} <= reached
        first = page.locator(".failure summary").first
        first.focus()
        page.keyboard.press("Enter")
        assert page.locator(".failure").first.get_attribute("open") is None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_keeps_the_rules_of_accessibility_in_light_and_dark(
    archive: Path, opened: "Opened", violations: "Violations", scheme: str
) -> None:
    with opened(archive, color_scheme=scheme) as page:
        assert violations(page) == []


def test_colours_follow_the_system_until_a_person_chooses(archive: Path, opened: "Opened") -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(archive, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.get_by_text("Light", exact=True).click()
        light = page.evaluate(ground)
        page.get_by_text("Auto", exact=True).click()
        assert page.evaluate(ground) == dark != light


def test_motion_is_for_those_who_want_it(archive: Path, opened: "Opened") -> None:
    behavior = "getComputedStyle(document.documentElement).scrollBehavior"
    for wish, expected in (("reduce", "auto"), ("no-preference", "smooth")):
        with opened(archive, reduced_motion=wish) as page:
            assert page.evaluate(behavior) == expected


def test_without_script_both_pictures_stand_side_by_side(archive: Path, opened: "Opened") -> None:
    with opened(archive, java_script_enabled=False) as page:
        pair = page.locator(".compare").first
        before, after = (pair.locator(kind).bounding_box() for kind in (".before", ".after"))
        assert before is not None
        assert after is not None
        assert before["x"] + before["width"] <= after["x"] + 1


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_hangs_over_the_edge(archive: Path, opened: "Opened", width: int) -> None:
    with opened(archive, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_phone_the_head_is_whole_and_covers_no_heading_that_is_jumped_to(archive: Path, opened: "Opened") -> None:
    with opened(archive, viewport={"width": 360, "height": 740}, reduced_motion="reduce") as page:
        for part in (".brand", ".theme", "nav"):
            box = page.locator(f".top {part}").bounding_box()
            assert box is not None
            assert box["y"] >= 4, f"{part} has room above it"
        page.locator("nav a[href='#quality']").click()
        head, title = (page.locator(part).bounding_box() for part in (".top", "#quality-title"))
        assert head is not None
        assert title is not None
        assert head["height"] <= title["y"] < 740


def test_hostile_names_and_messages_neither_run_nor_call_home(
    tmp_path: Path, opened: "Opened", ear: tuple[str, list[str]]
) -> None:
    home, asked = ear
    evil = f'"><img src="{home}/leak"><script>document.title="taken"; fetch("{home}/script")</script>'
    rows = [done(tmp_path, 1, kernel=evil, model_id=evil, psnr_db=None), failed(0, evil)]
    with opened(report(tmp_path, rows)) as page:
        assert evil in page.locator("body").inner_text()
        assert page.title() != "taken"
    assert asked == []


def test_the_policy_refuses_even_what_a_script_tries(
    archive: Path, browser: object, ear: tuple[str, list[str]]
) -> None:
    home, asked = ear
    page = browser.new_page()  # type: ignore[attr-defined]
    page.goto(archive.as_uri())
    tried = f"""async () => {{
        new Image().src = "{home}/image";
        return fetch("{home}/fetch").then(() => "answered", () => "refused")
    }}"""
    assert page.evaluate(tried) == "refused"
    page.wait_for_timeout(200)
    assert asked == []
    page.goto(f"{home}/proof")
    assert "/proof" in asked, "the server does listen"
    page.close()


def test_an_archive_of_nothing_says_what_to_do(tmp_path: Path, opened: "Opened", violations: "Violations") -> None:
    with opened(report(tmp_path, [])) as page:
        assert page.get_by_role("heading", level=1).inner_text() == "Nothing has been recorded here yet."
        assert "jobs/upscale_archive.py" in page.locator("main").inner_text()
        assert violations(page) == []


def test_an_archive_of_failures_is_about_its_failures(
    tmp_path: Path, opened: "Opened", violations: "Violations"
) -> None:
    with opened(report(tmp_path, [failed(n) for n in range(20)])) as page:
        assert "None of 20 items could be restored." in page.get_by_role("heading", level=1).inner_text()
        assert page.locator(".failure").count() == 2
        assert "5 of 10 are shown" in page.locator(".failure").first.inner_text()
        assert page.locator("#gallery").count() == 0
        assert violations(page) == []


def test_a_picture_that_is_gone_costs_only_its_place(tmp_path: Path, opened: "Opened") -> None:
    rows = [done(tmp_path, n) for n in range(2)]
    Path(rows[0].uri).unlink()
    with opened(report(tmp_path, rows)) as page:
        assert page.locator(".absent").first.inner_text().startswith("No picture: ")
        assert page.locator(".compare").count() >= 1


def test_each_picture_is_made_once_and_the_page_stays_small(tmp_path: Path) -> None:
    file = report(tmp_path, [done(tmp_path, n) for n in range(9)])
    assert file.stat().st_size < 1_000_000


def test_the_demos_report_stays_under_five_megabytes(tmp_path: Path) -> None:
    """The demo's own inputs; in place of the results the ground truth, which has their sizes."""
    samples = make_archive(tmp_path)
    made = [
        done(tmp_path, n, uri=str(tmp_path / s.uri), sr_uri=str(tmp_path / s.hr_uri), scale=s.scale, sigma=s.sigma)
        for n, s in enumerate(samples)
    ]
    file = report(tmp_path, made)
    uri, length = write_report(str(tmp_path), pictures=6, now=NOW)
    assert (uri, length) == (str(file), file.stat().st_size)
    assert file.read_text().count("data:image/webp") >= 2 * 18, "three groups of six, or nearly"
    assert 100_000 < length < 5_000_000


def rows(count: int, part: int, n: int) -> list[Outcome]:
    rng = np.random.default_rng(n)
    return [
        Outcome(
            f"s3://archive/box-{n:04}/plate-{i:05}.png", work_id="w", run_id="run-1", uri=f"s3://gone/{n}/{i}.png",
            written_at=NOW + timedelta(seconds=n * part + i), status=DONE if i % 20 else FAILED, scale=2, sigma=2.55,
            error_code=None if i % 20 else "input-missing", kernel=f"psf-{n}-{i}.npy", phase="center", sr_uri="/gone",
            lr_width=100, lr_height=100, sr_width=200, sr_height=200, seconds_restore=float(rng.gamma(2)),
            consistency_rms_255=float(rng.gamma(2)), psnr_db=float(rng.normal(30)), model_id="m",
        )
        for i in range(min(part, count - n * part))
    ]  # fmt: skip


def peak_mb(output: Path) -> float:
    """Of a process that makes the report."""
    script = (
        "import resource, sys; from pipeline.pages.report import write_report; write_report(sys.argv[1]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    shown = subprocess.run([sys.executable, "-c", script, str(output)], capture_output=True, text=True, check=True)
    return float(shown.stdout)


@pytest.mark.slow
def test_a_hundred_thousand_rows_give_a_good_page_in_the_memory_of_ten_thousand(
    tmp_path: Path, opened: "Opened", violations: "Violations"
) -> None:
    peaks = []
    for count in (10_000, 100_000):
        output = tmp_path / str(count)
        for n in range(count // 1000):
            manifest.write_part(str(output), "run-1", rows(count, 1000, n))
        peaks.append(peak_mb(output))
    assert peaks[1] < peaks[0] + 100, "a row that is kept costs about a kilobyte: 100 MB if all were"
    file = output / "report.html"
    assert file.stat().st_size < 5_000_000
    with opened(file) as page:
        assert page.get_by_role("heading", level=1).inner_text() == "95,000 of 100,000 items restored, 5,000 failed."
        assert violations(page) == []
