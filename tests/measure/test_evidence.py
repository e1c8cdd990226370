"""The evidence of a setting: it finds the true one where its model holds, and on photographs."""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from jobs.make_demo import KERNELS, SIGMAS, make_archive, write_catalog
from pipeline.measure.evidence import LARGEST_SIDE, log_evidence, periodogram
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel

GRID = ("delta", "gaussian(0.8)", "gaussian(1.6)", "gaussian(2.4)", "disk(2.5)", "motion(9, 20)")
DISTRACTORS = ("delta", "gaussian(0.8)", "gaussian(1.6)", "gaussian(2.2)", "disk(1.5)", "motion(5, 20)")


def power_law(rng: np.random.Generator, side: int) -> npt.NDArray[np.float64]:
    """A random image whose power falls as 1/f², white at 255."""
    f2 = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.fftfreq(side)[None, :] ** 2
    f2[0, 0] = np.inf
    image = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) / np.sqrt(f2)).real
    return np.asarray(127 + 40 * image / image.std())


def ranking(lr: npt.NDArray[np.uint8], kernels: tuple[str, ...], scale: int) -> list[tuple[str, float]]:
    """Settings of the grid kernels x SIGMAS, the most probable first."""
    seen = periodogram(lr)
    found = {}
    for kernel in kernels:
        nats = log_evidence(seen, parse_kernel(kernel, scale, "center"), scale, SIGMAS)
        found.update(((kernel, sigma), value) for sigma, value in zip(SIGMAS, nats, strict=True))
    return sorted(found, key=lambda setting: -found[setting])


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("kernel", GRID)
def test_a_power_law_image_is_most_probable_under_its_own_setting(kernel: str, scale: int) -> None:
    rng = np.random.default_rng(scale)
    hr = power_law(rng, 96 * scale) / 255
    sigma = SIGMAS[1]
    lr = degrade(hr, parse_kernel(kernel, scale, "center"), scale, sigma, rng=rng) * 255
    best, second = ranking(np.rint(lr.clip(0, 255)).astype(np.uint8), GRID, scale)[:2]
    assert best[0] == kernel
    assert (kernel, sigma) in (best, second)  # folded frequencies and noise look alike where nothing blurs


def test_of_ten_demo_photographs_eight_rank_their_setting_among_the_first_three(tmp_path: Path) -> None:
    samples = make_archive(tmp_path)[::3]
    write_catalog(tmp_path, samples)
    with (tmp_path / "catalog.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if "damaged" not in row["uri"]]
    ranks = []
    for row in rows:
        lr = np.asarray(Image.open(tmp_path / row["uri"]))
        ordered = ranking(lr, DISTRACTORS + KERNELS, int(row["scale"]))
        ranks.append(ordered.index((row["kernel"], float(row["sigma"]))) + 1)
    assert len(ranks) == 10
    assert sum(rank <= 3 for rank in ranks) >= 8, ranks


def test_channels_and_sample_types_do_not_matter_to_a_gray_image() -> None:
    gray = power_law(np.random.default_rng(0), 48).clip(0, 255)
    kernel = parse_kernel("gaussian(1)", 1)
    alone = log_evidence(periodogram(gray), kernel, 1, [2.0])
    assert log_evidence(periodogram(gray[:, :, None]), kernel, 1, [2.0]) == pytest.approx(alone)


def test_only_the_middle_of_a_large_image_is_looked_at() -> None:
    image = power_law(np.random.default_rng(0), LARGEST_SIDE + 40)
    middle = image[20:-20, 20:-20]
    assert np.array_equal(periodogram(image).power, periodogram(middle).power)


def test_a_flat_image_prefers_no_noise_and_breaks_nothing() -> None:
    flat = np.full((32, 32, 3), 128, np.uint8)
    nats = log_evidence(periodogram(flat), parse_kernel("gaussian(1)", 2), 2, [0.0, 5.0])
    assert np.isfinite(nats).all()
    assert nats[0] > nats[1]


def test_an_image_without_frequencies_is_refused() -> None:
    with pytest.raises(ValueError, match="7×40 pixels is too small"):
        periodogram(np.zeros((40, 7), np.uint8))
