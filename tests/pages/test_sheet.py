"""The contact sheet in a real Chromium: look, enlarge, compare, step, copy."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from pipeline.config.load import load_config
from pipeline.config.upscale import UpscaleConfig
from pipeline.data.previews import Window
from pipeline.explore import Exploration, Trial, verdicts
from pipeline.pages.sheet import defaults_yaml, score, sheet_page
from pipeline.records import Item

if TYPE_CHECKING:
    from playwright.sync_api import Page

    Opened = Callable[..., AbstractContextManager[Page]]
    Violations = Callable[[Page], list[str]]

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = [(kernel, sigma) for kernel in ("delta", "gaussian(1.6)") for sigma in (0.0, 2.55)]
EVIDENCE = (-4.0, -2.0, -3.5, -1.0)


def exploration(name: str, scale: int = 2) -> Exploration:
    rng = np.random.default_rng(0)
    ranks = {value: rank for rank, value in enumerate(sorted(EVIDENCE, reverse=True), start=1)}
    trials = tuple(
        Trial(
            kernel, sigma, rng.integers(0, 256, (24 * scale, 32 * scale, 3), dtype=np.uint8), 1.5, e, ranks[e], n == 3
        )
        for n, ((kernel, sigma), e) in enumerate(zip(SETTINGS, EVIDENCE, strict=True))
    )
    item = Item(name, f"/archive/{name}", name, scale, 0.0, "delta", "center")
    lr = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Exploration(item, lr, Window(0, 0, 24, 32), (48, 32), trials, ("gone.npy: there is no such object",))


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    found = [
        exploration("a-plate-with-a-name-that-is-longer-than-a-telephone-is-wide.png"),
        exploration("b.png", scale=1),
    ]
    html = sheet_page(found, verdicts(found), ["c.png: there is no such object"], catalog="/archive/c.csv", now=NOW)
    (tmp_path / "sheet.html").write_bytes(html)
    return tmp_path / "sheet.html"


def settings(page: "Page") -> list[str]:
    return [text.replace("\n", "") for text in page.locator("#item-1 .setting .rank").all_inner_texts()]


def test_every_trial_shows_its_setting_rank_score_and_consistency(sheet: Path, opened: "Opened") -> None:
    with opened(sheet) as page:
        trial = page.locator("#item-1 .trials li").nth(3)
        assert trial.inner_text().split() == (
            ["1", "gaussian(1.6),", "σ", "2.55", "score", "0,", "consistency", "1.5", "given", "in", "the", "catalog"]
        )
        assert page.locator("#item-1 li.first-three").count() == 3
        assert page.locator("#item-1 .references img").count() == 2
        assert page.locator("#item-2 .references img").count() == 1, "at scale 1 the input needs no enlarging"
        assert "c.png: there is no such object" in page.locator("main").inner_text()


def test_pictures_can_be_put_in_the_order_of_their_score(sheet: Path, opened: "Opened") -> None:
    with opened(sheet) as page:
        assert settings(page) == ["4", "2", "3", "1"]
        page.locator(".choice.order").get_by_text("Score").click()
        assert settings(page) == ["1", "2", "3", "4"]
        page.get_by_text("Kernel by sigma").click()
        assert settings(page) == ["4", "2", "3", "1"]


def test_a_picture_opens_at_full_size_over_its_input_and_keys_step_through(
    sheet: Path, opened: "Opened", violations: "Violations"
) -> None:
    from playwright.sync_api import expect

    with opened(sheet) as page:
        third = page.locator("#item-1 button.open").nth(2)
        third.focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        assert dialog.get_by_role("heading").inner_text() == "gaussian(1.6), σ 0"
        assert dialog.locator(".after").evaluate("e => [e.clientWidth, e.naturalWidth]") == [64, 64]
        assert dialog.locator(".before").get_attribute("src") == page.locator("#item-1-input").get_attribute("src")
        assert violations(page) == []
        page.keyboard.press("ArrowRight")
        assert dialog.get_by_role("heading").inner_text() == "gaussian(1.6), σ 2.55"
        page.keyboard.press("ArrowRight")
        assert dialog.get_by_role("heading").inner_text() == "delta, σ 0"
        dialog.get_by_text("4×").click()
        assert dialog.locator(".after").evaluate("e => e.clientWidth") == 256
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        expect(page.locator(":focus")).to_have_attribute("aria-label", re.compile("^delta, σ 0"))  # soon, not at once


@pytest.mark.parametrize("allowed", [True, False])
def test_a_copied_setting_is_what_the_main_jobs_configuration_takes(
    sheet: Path, opened: "Opened", allowed: bool
) -> None:
    with opened(sheet, permissions=["clipboard-read", "clipboard-write"]) as page:
        if not allowed:  # as in a browser that keeps the clipboard from files
            page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
        page.locator("#item-1 button.open").nth(3).click()
        page.get_by_role("dialog").get_by_text("Copy as defaults").click()
        page.get_by_text("Copied", exact=True).wait_for()
        copied = yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))
        assert copied == {"defaults": {"kernel": "gaussian(1.6)", "sigma": 2.55, "scale": 2, "phase": "center"}}
        (sheet.parent / "job.yaml").write_text(yaml.safe_dump({"catalog": "c.csv", "output": "out", **copied}))
        assert load_config(UpscaleConfig, sheet.parent / "job.yaml").defaults.sigma == 2.55
        page.get_by_role("button", name="Close").click()
        page.locator("#together button").first.click()
        together = yaml.safe_load(page.evaluate("navigator.clipboard.readText()"))
        assert together == {"defaults": {"kernel": "gaussian(1.6)", "sigma": 2.55, "phase": "center"}}, "two scales"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_keeps_the_rules_of_accessibility_in_light_and_dark(
    sheet: Path, opened: "Opened", violations: "Violations", scheme: str
) -> None:
    with opened(sheet, color_scheme=scheme) as page:
        assert violations(page) == []


@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_hangs_over_the_edge(sheet: Path, opened: "Opened", width: int) -> None:
    with opened(sheet, viewport={"width": width, "height": 800}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_a_phone_a_picture_that_opens_is_seen_from_its_top(sheet: Path, opened: "Opened") -> None:
    with opened(sheet, viewport={"width": 360, "height": 640}) as page:
        page.locator(".open").first.click()
        page.locator("dialog[open]").wait_for()
        dialog, picture = (page.locator(part).bounding_box() for part in ("dialog", "dialog .compare"))
        assert dialog is not None
        assert picture is not None
        assert dialog["y"] <= picture["y"] < picture["y"] + 40 < dialog["y"] + dialog["height"]
        page.get_by_role("button", name="Close").click()


def test_a_sheet_of_nothing_says_why(tmp_path: Path, opened: "Opened", violations: "Violations") -> None:
    (tmp_path / "sheet.html").write_bytes(sheet_page([], [], ["a.png: gone"], catalog="c.csv", now=NOW))
    with opened(tmp_path / "sheet.html") as page:
        assert page.get_by_role("heading", level=1).inner_text() == "No item could be shown."
        assert "a.png: gone" in page.locator("main").inner_text()
        assert violations(page) == []


def test_items_that_disagree_are_said_to(tmp_path: Path) -> None:
    found = [exploration(f"{n}.png") for n in range(3)]
    apart = [Exploration(e.item, e.lr, e.window, e.size, tuple(t for t in e.trials if t.rank > 3)) for e in found]
    for explorations, words in ((found, False), (apart, True)):
        html = sheet_page(explorations, verdicts(explorations), [], catalog="c.csv", now=NOW).decode()
        assert ("The items disagree" in html) == words


def test_what_is_not_shared_by_all_items_is_left_out_of_the_defaults() -> None:
    assert defaults_yaml("delta", 0.0, None, "corner") == "defaults:\n  kernel: delta\n  sigma: 0.0\n  phase: corner\n"


def test_a_kernel_of_one_items_own_is_no_default() -> None:
    assert yaml.safe_load(defaults_yaml("values", 1.0, 2, "center")) == {
        "defaults": {"sigma": 1.0, "scale": 2, "phase": "center"}
    }


@pytest.mark.parametrize(("evidence", "text"), [(-2.0, "0"), (-2.0032, "-3.2"), (-3.24, "-1,240"), (-np.inf, "0")])
def test_a_score_counts_from_the_best(evidence: float, text: str) -> None:
    assert score(evidence, -2.0) == text
