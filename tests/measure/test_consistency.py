"""The limit that flags: laws, and what it finds among wrong kernels."""

import math
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

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
def test_of_100_items_with_20_wrong_kernels_the_flags_are_nearly_all_right_and_find_half() -> None:
    rng, folder = np.random.default_rng(4), Path(skimage.__file__).parent / "data"
    photographs = [np.asarray(Image.open(folder / name).convert("RGB")) / 255 for name in PHOTOGRAPHS]
    images, told = [], []
    for n in range(100):
        photograph, scale, sigma = photographs[n % 6], (1, 2, 3, 4)[n % 4], (0.0, 2.55, 7.65)[n // 4 % 3]
        right, wrong = list(KERNELS.items())[n // 2 % 5]
        side = int(rng.integers(72, 120)) // scale * scale
        top, left = (int(rng.integers(0, size - side + 1)) for size in photograph.shape[:2])
        hr = photograph[top : top + side, left : left + side]
        lr = degrade(hr, parse_kernel(right, scale, "center"), scale, sigma, boundary="reflect", rng=rng)
        images.append(np.rint(lr.clip(0, 1) * 255).astype(np.uint8))
        kernel = parse_kernel(wrong if n % 5 == 0 else right, scale, "center")
        told.append(Degradation(kernel, scale, sigma))
    results = Restorer(load_usrnet()).batch(images, told)
    restored = [result for result in results if isinstance(result, Restored)]
    flagged = {n for n, r in enumerate(restored) if is_flagged(r.consistency_rms_255, told[n].sigma)}
    wrong_ones = set(range(0, 100, 5))
    precision, recall = len(flagged & wrong_ones) / max(1, len(flagged)), len(flagged & wrong_ones) / 20
    print(f"limit of the consistency: precision {precision:.2f}, recall {recall:.2f}, {sorted(flagged)}")
    assert len(restored) == 100
    assert precision >= 0.8
    assert recall >= 0.4
