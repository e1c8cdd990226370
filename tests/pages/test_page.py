"""The frame of every page: one file, its own policy, everything escaped; and how numbers are written."""

import base64
import hashlib
import re
from datetime import UTC, datetime

import pytest
from jinja2 import UndefinedError

from pipeline.pages.page import data_uri, number, page, short, size

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EVIL = '<img src="http://127.0.0.1:9/leak.png" onerror="alert(1)"><script>alert(1)</script>'


def sheet(**values: object) -> str:
    nothing = {"items": [], "verdicts": [], "tried": 0, "agreed": True, "troubles": [], "catalog": "c.csv"}
    return page("sheet.html", now=NOW, **{**nothing, **values}).decode()


def test_the_policy_names_exactly_the_style_and_script_that_are_there() -> None:
    html = sheet()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', html)
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert policy.startswith("default-src &#39;none&#39;")


def test_what_came_out_of_an_archive_is_text_and_nothing_else() -> None:
    html = sheet(catalog=EVIL, troubles=[EVIL])
    assert EVIL not in html
    assert "<img src" not in html
    assert html.count("<script>") == 1
    assert html.count("&lt;script&gt;alert(1)") >= 2


def test_a_value_that_a_template_needs_cannot_be_forgotten() -> None:
    with pytest.raises(UndefinedError):
        page("sheet.html", now=NOW)


def test_a_name_that_is_no_unicode_does_not_stop_the_page() -> None:
    assert "c\\udcff" not in sheet(catalog="c\udcff.csv")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123456, "0.0123"),
        (2.55, "2.55"),
        (99.96, "100"),
        (12.349, "12.3"),
        (1234567.8, "1,234,568"),
        (-3.24159, "-3.24"),
        (1e-7, "0"),
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "∞"),
    ],
)
def test_a_number_has_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (999_999, "1 MB")])
def test_a_size_has_its_unit(count: int, text: str) -> None:
    assert size(count) == text


def test_a_long_uri_keeps_its_end() -> None:
    uri = "s3://bucket/" + "folder/" * 20 + "plate-01.png"
    assert short(uri, 30) == "…/folder/folder/plate-01.png"
    assert short("a.png", 30) == "a.png"
    assert len(short("x" * 100, 30)) == 30


def test_a_picture_is_carried_in_its_address() -> None:
    assert data_uri(b"abc") == "data:image/webp;base64,YWJj"
