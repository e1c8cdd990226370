"""Curves as text: a well-formed picture and a table, from whatever was measured."""

import csv
import io
from xml.etree import ElementTree

from pipeline.training.curves import csv_text, svg_text

HISTORY = [
    {"step": 0.0, "psnr_db": 25.0},
    {"step": 10.0, "loss": 0.5, "l1": 0.3, "discriminator": 0.7, "psnr_db": 26.0},
    {"step": 20.0, "loss": 0.4, "l1": 0.2, "discriminator": 0.6, "psnr_db": 27.5},
]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_table_has_a_column_for_all_that_was_ever_measured() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(HISTORY))))
    assert [row["step"] for row in rows] == ["0", "10", "20"]
    assert [row["loss"] for row in rows] == ["", "0.5", "0.4"]
    assert rows[2]["psnr_db"] == "27.5"


def test_the_picture_has_a_line_for_each_quantity_and_its_last_value() -> None:
    picture = ElementTree.fromstring(svg_text(HISTORY))
    panels = picture.findall(f"{SVG}g")
    texts = ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]
    assert len(panels) == 2
    assert {"loss 0.4", "l1 0.2", "discriminator 0.6", "psnr_db 27.5"} <= set(texts)
    curve = panels[1].findall(f"{SVG}path")[1].get("d")
    heights = [float(place.split()[1]) for place in curve[1:].split("L")]
    assert heights == sorted(heights, reverse=True), "it rises, and y points down"


def test_the_loss_and_its_only_term_are_one_line() -> None:
    history = [{"step": float(n), "loss": 1 / (n + 1), "l1": 1 / (n + 1)} for n in range(3)]
    texts = ["".join(t.itertext()) for t in ElementTree.fromstring(svg_text(history)).iter(f"{SVG}text")]
    assert any(text.startswith("loss ") for text in texts)
    assert not any(text.startswith("l1 ") for text in texts)


def test_one_point_and_none_are_pictures_too() -> None:
    for history in ([], HISTORY[:1], [{"step": 5.0, "loss": 0.0}]):
        ElementTree.fromstring(svg_text(history))
