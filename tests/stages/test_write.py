"""The write stage: a whole object first, then an outcome that describes it."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data import images
from pipeline.records import FAILED, Item, Outcome, Picture, Work
from pipeline.stages.write import Encoding, write

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PNG = Encoding("png")
PIXELS = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)


def restored(**item: object) -> Work:
    made = replace(Item("a", "/in/x/a.jpg", "x/a.jpg", 2, 0.0, "delta", "center"), **item)  # type: ignore[arg-type]
    return Work(made, Outcome("a"), Picture(PIXELS, "RGB", "jpeg"))


def write_one(work: Work, output: Path, encoding: Encoding = PNG) -> Outcome:
    (written,) = write([work], output=str(output), encoding=encoding, now=lambda: NOW)
    assert written.picture is None
    return written.outcome


def test_the_outcome_describes_the_object_it_wrote(tmp_path: Path) -> None:
    outcome = write_one(restored(), tmp_path)
    path = tmp_path / "images" / "x" / "a.jpg.png"
    assert outcome.sr_uri == str(path)
    assert outcome.status == "done"
    assert outcome.output_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert outcome.output_bytes == path.stat().st_size
    assert outcome.written_at == NOW
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), PIXELS)


def test_tiff_is_written_when_asked(tmp_path: Path) -> None:
    outcome = write_one(restored(), tmp_path, Encoding("tiff", images.Options(tiff_compression="lzw")))
    assert str(outcome.sr_uri).endswith(".tif")
    with Image.open(str(outcome.sr_uri)) as image:
        assert np.array_equal(np.asarray(image), PIXELS)


def test_a_place_that_cannot_be_written_is_a_failed_row(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file where a folder should be")
    outcome = write_one(restored(), tmp_path)
    assert outcome.status == FAILED
    assert outcome.stage == "write"


def test_failed_work_is_dated_and_writes_nothing(tmp_path: Path) -> None:
    failed = Work(restored().item, Outcome("a", status=FAILED, error_code="corrupt-image"))
    outcome = write_one(failed, tmp_path)
    assert outcome.written_at == NOW
    assert not (tmp_path / "images").exists()


def test_quality_is_measured_against_a_ground_truth(tmp_path: Path) -> None:
    noisy = (PIXELS.astype(int) + np.random.default_rng(1).integers(-9, 9, PIXELS.shape)).clip(0, 255)
    Image.fromarray(noisy.astype(np.uint8)).save(tmp_path / "hr.png")
    outcome = write_one(restored(hr_uri=str(tmp_path / "hr.png")), tmp_path)
    inner = (slice(4, -4), slice(4, -4))
    mse = np.mean((PIXELS[inner].astype(float) - noisy[inner]) ** 2)
    assert outcome.psnr_db == pytest.approx(10 * np.log10(255**2 / mse))
    assert 0.5 < (outcome.ssim or 0) < 1


@pytest.mark.parametrize("truth", ["gone.png", "small.png"])
def test_a_useless_ground_truth_is_noted_and_costs_nothing_else(tmp_path: Path, truth: str) -> None:
    Image.fromarray(PIXELS[:8]).save(tmp_path / "small.png")
    outcome = write_one(restored(hr_uri=str(tmp_path / truth)), tmp_path)
    assert outcome.status == "done"
    assert outcome.psnr_db is None
    assert (outcome.error or "").startswith("hr_uri: ")
