"""The read stage on real files: pixels, kernel and facts, or the reason why not."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import storage
from pipeline.data.schema import table_to_work, work_to_table
from pipeline.measure.noise import estimate_sigma
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Item, Work
from pipeline.stages.read import ReadLimits, read

LIMITS = ReadLimits(lr_pixels=10_000, bytes=100_000, kernel=64)
PIXELS = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Item:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    return Item("a", str(path), "a.png", 3, 2.55, "gaussian(1.6)", "center")


def read_one(item: Item, limits: ReadLimits = LIMITS) -> Work:
    (work,) = read([item], limits=limits, clock=iter([10.0, 12.5]).__next__)
    return work


def test_pixels_kernel_and_facts_arrive(image: Item) -> None:
    work = read_one(image)
    assert work.picture is not None
    assert work.degradation is not None
    assert np.array_equal(work.picture.pixels_hwc, PIXELS)
    assert np.allclose(work.degradation.kernel, parse_kernel("gaussian(1.6)", 3, "center"))
    facts = work.outcome
    assert (facts.lr_width, facts.lr_height, facts.mode, facts.bits) == (20, 12, "RGB", 8)
    assert facts.input_bytes == Path(image.uri).stat().st_size
    assert facts.seconds_read == 2.5
    assert facts.status == ""


def test_one_bad_item_leaves_its_neighbours_alone_and_the_order_as_it_is(image: Item) -> None:
    missing = replace(image, item_id="b", uri=image.uri + ".gone")
    works = read([image, missing, image], limits=LIMITS)
    assert [work.item.item_id for work in works] == ["a", "b", "a"]
    assert [work.outcome.error_code for work in works] == [None, "input-missing", None]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"size": 5}, "input-changed", "the catalog says 5"),
        ({"width": 20, "height": 13}, "input-changed", "the catalog says 20×13"),
        ({"kernel": "gaussian(99)"}, "over-limit", ""),
        ({"kernel": "gone.npy"}, "bad-kernel", "gone.npy"),
        ({"page": 1}, "bad-page", ""),
        ({"kernel": "values", "kernel_values": [[1.0, -1.0]]}, "bad-kernel", "sums to zero"),
    ],
)
def test_what_does_not_fit_is_refused(image: Item, change: dict, code: str, words: str) -> None:
    outcome = read_one(replace(image, **change)).outcome
    assert outcome.error_code == code
    assert words in (outcome.error or "")


def test_an_etag_that_differs_is_another_object_and_the_true_one_is_recorded(image: Item) -> None:
    etag = storage.stat(image.uri).etag
    assert read_one(replace(image, etag=etag)).outcome.input_etag == etag
    outcome = read_one(replace(image, etag="of-last-year")).outcome
    assert outcome.error_code == "input-changed"
    assert "of-last-year" in (outcome.error or "")


def test_the_catalogs_own_kernel_wins(image: Item) -> None:
    work = read_one(replace(image, kernel="values", kernel_values=[[0.0, 1.0, 1.0]], phase="corner"))
    assert work.degradation is not None
    assert work.degradation.kernel.tolist() == [[0.0, 0.5, 0.5]]


def test_limits_are_kept(image: Item) -> None:
    assert read_one(image, replace(LIMITS, lr_pixels=100)).outcome.error_code == "over-limit"
    assert read_one(image, replace(LIMITS, bytes=100)).outcome.error_code == "over-limit"


def test_a_picture_survives_only_when_read_completely(image: Item) -> None:
    whole = Path(image.uri).read_bytes()
    Path(image.uri).write_bytes(whole[:-40])
    work = read_one(image)
    assert work.outcome.error_code == "corrupt-image"
    assert work.picture is None


def test_exif_orientation_counts_before_the_size_is_compared(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JPEG", exif=exif)
    (tmp_path / "r.jpg").write_bytes(buffer.getvalue())
    item = Item("r", str(tmp_path / "r.jpg"), "r.jpg", 2, 0.0, "delta", "center", width=12, height=20)
    work = read_one(item)
    assert work.outcome.error is None
    assert (work.outcome.lr_width, work.outcome.lr_height) == (12, 20)


def test_an_unknown_sigma_is_estimated_from_the_pixels_and_goes_on_with_the_work(image: Item) -> None:
    work = read_one(replace(image, sigma=None, sigma_source="estimated"))
    assert work.degradation is not None
    assert work.degradation.sigma == work.item.sigma == work.outcome.sigma == estimate_sigma(PIXELS)
    assert work.outcome.sigma_source == "estimated"
    (back,) = table_to_work(work_to_table([work]))
    assert back.degradation is not None
    assert back.degradation.sigma == work.degradation.sigma
