"""Charts: well-formed SVG that holds what it was given, whatever the numbers."""

from xml.etree import ElementTree

import pytest

from pipeline.pages.charts import area, histogram, shares


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def bars(svg: str, kind: str = "bar") -> list[ElementTree.Element]:
    return [part for part in drawn(svg).iter("rect") if kind in part.attrib["class"]]


def test_a_histogram_draws_a_bar_a_count_in_proportion() -> None:
    svg = histogram([0, 1, 2, 3], [2, 0, 4], label="numbers", unit="dB", marks=[(2.5, "median 2.5")])
    low, high = bars(svg)
    assert float(high.attrib["height"]) == pytest.approx(2 * float(low.attrib["height"]), rel=0.01)
    assert drawn(svg).attrib["role"] == "img"
    assert drawn(svg).attrib["aria-label"] == "numbers"
    assert "median 2.5" in svg


@pytest.mark.parametrize(
    ("edges", "logarithmic"),
    [([1e-3, 1e-2, 255], True), ([5, 5.0001, 5.0002], False), ([-1, 0, 1], False), ([3, 3.1, 3.2], True)],
)
def test_every_tick_lies_in_the_picture(edges: list[float], logarithmic: bool) -> None:
    svg = histogram(edges, [1, 100_000], label="l", unit="u", logarithmic=logarithmic)
    ticks = [part for part in drawn(svg).iter("text") if part.attrib["class"] == "x"]
    assert ticks
    assert all(0 <= float(tick.attrib["x"]) <= 440 for tick in ticks)


def test_an_area_of_nothing_lies_on_the_ground() -> None:
    assert drawn(area([0, 1], [0.0], label="l", unit="MP / s", x_unit="s")).find("path") is not None


def test_shares_fill_the_bar() -> None:
    parts = bars(shares([("read", 1.0), ("restore", 3.0)], label="l"), "part")
    assert float(parts[1].attrib["x"]) == pytest.approx(110)


def test_text_is_escaped() -> None:
    svg = histogram([0, 1], [1], label='"><script>', unit="<b>", marks=[(0.5, "<i>")])
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert "<i>" not in svg
