"""The limit that flags: laws, and what it finds among wrong kernels."""

import math
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from pipeline.measure import consistency
from pipeline.measure.consistency import is_flagged, limit
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Restored, Restorer
from pipeline.physics.degradation import degrade
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "ihc.png")
KERNELS = {
    "gaussian(1.2)": "gaussian(2.4)",
    "gaussian(2.0, 0.8, 30)": "gaussian(4.0, 1.6, 30)",
    "disk(2.5)": "disk(5)",
    "motion(9, 20)": "motion(18, 20)",
    "gaussian(1.6)": "gaussian(3.2)",
}


def test_the_limit_is_the_noise_and_a_misfit_that_add_as_squares() -> None:
    assert limit(0.0) == 1.5
    assert limit(10.0) == pytest.approx(math.sqrt(10.2**2 + 1.5**2))
    assert limit(50.0) < 50 * 1.03, "noise alone decides where there is much of it"


def test_at_the_limit_nothing_is_flagged_and_what_is_no_number_always_is() -> None:
    assert not is_flagged(limit(5.0), 5.0)
    assert is_flagged(limit(5.0) + 1e-9, 5.0)
    assert is_flagged(float("nan"), 5.0)


@pytest.mark.slow
def test_the_limit_parts_right_kernels_from_wrong_ones() -> None:
    """100 crops, each told its kernel and one of twice the width; the table of limits is what the docstring quotes."""
    right, wrong = _misfits(wrong=False), _misfits(wrong=True)
    print("limit of misfit | right ones flagged | wrong ones flagged | precision with 20 wrong of 100")
    for misfit in (1.0, 1.2, 1.4, 1.5, 1.6, 1.8, 2.0, 2.5):
        alarms, hits = _share_above(right, misfit), _share_above(wrong, misfit)
        print(f"{misfit:4} | {alarms:5.2f} | {hits:5.2f} | {20 * hits / max(1e-9, 20 * hits + 80 * alarms):5.2f}")
    alarms, hits = _share_above(right, consistency._MISFIT_255), _share_above(wrong, consistency._MISFIT_255)
    assert alarms <= 0.04
    assert hits >= 0.3


def _misfits(wrong: bool) -> list[tuple[float, float]]:
    """(consistency, sigma) of 100 crops of photographs, told the right kernel or one of twice its width."""
    rng, folder = np.random.default_rng(4), Path(skimage.__file__).parent / "data"
    photographs = [np.asarray(Image.open(folder / name).convert("RGB")) / 255 for name in PHOTOGRAPHS]
    images, told = [], []
    for n in range(100):
        photograph, scale, sigma = photographs[n % 6], (1, 2, 3, 4)[n % 4], (0.0, 2.55, 7.65)[n // 4 % 3]
        kernels = list(KERNELS.items())[n // 2 % 5]
        side = int(rng.integers(72, 120)) // scale * scale
        top, left = (int(rng.integers(0, size - side + 1)) for size in photograph.shape[:2])
        hr = photograph[top : top + side, left : left + side]
        lr = degrade(hr, parse_kernel(kernels[0], scale, "center"), scale, sigma, boundary="reflect", rng=rng)
        images.append(np.rint(lr.clip(0, 1) * 255).astype(np.uint8))
        told.append(Degradation(parse_kernel(kernels[wrong], scale, "center"), scale, sigma))
    results = Restorer(load_usrnet()).batch(images, told)
    return [
        (result.consistency_rms_255, given.sigma)
        for result, given in zip(results, told, strict=True)
        if isinstance(result, Restored)
    ]


def _share_above(found: list[tuple[float, float]], misfit: float) -> float:
    assert len(found) == 100
    return sum(rms > math.hypot(consistency._SCATTER * sigma, misfit) for rms, sigma in found) / 100
