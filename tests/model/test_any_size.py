"""Any mixture of sizes, scales and kernels in one call, and pictures larger than any batch."""

import numpy as np
import pytest

from pipeline.bench.passthrough import pass_through
from pipeline.bench.pictures import Gradient, drawn
from pipeline.model.checkpoint import load_usrnet
from pipeline.model.restore import Restored, Restorer
from pipeline.model.runner import Runner, Window, _Launched
from pipeline.physics.kernels import parse_kernel
from pipeline.records import Degradation

# LR height, width, scale, kernel width: from 17×23 up to 4 MP of output
MIXTURE = [
    (17, 23, 1, 5),
    (17, 23, 4, 25),
    (64, 48, 2, 70),
    (33, 90, 3, 15),
    (128, 128, 2, 25),
    (128, 128, 2, 9),
    (40, 44, 2, 65),  # with the next one in one batch: two kernels, one of odd and one of even width
    (40, 44, 2, 70),
    (240, 310, 1, 70),
    (500, 500, 4, 25),
    (700, 1400, 2, 41),
]


def kernel(width: int) -> np.ndarray:
    """A Gaussian in an array of exactly this width, even ones too."""
    y, x = np.mgrid[:width, :width] - width // 2
    weights = np.exp(-(x**2 + y**2) / (2 * (width / 8) ** 2))
    return weights / weights.sum()


# Grey levels by which one call may differ from single ones, at most and in the mean. The sums of a convolution
# are taken in another order: in fp32 that moves at most a rounding to 8 bits. Numbers of 8 bits' precision
# move by a level, more where several passes move them the same way.
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "most", "mean"), [("fp32", 1, 0.01), ("bf16", 4, 0.25)])
def test_a_mixture_in_one_call_gives_what_each_gives_alone(
    monkeypatch: pytest.MonkeyPatch, precision: str, most: int, mean: float
) -> None:
    restorer = Restorer(load_usrnet(), precision=precision)
    images = [drawn(h, w, n) for n, (h, w, _, _) in enumerate(MIXTURE)]
    degradations = [Degradation(kernel(width), scale, 2.55) for _, _, scale, width in MIXTURE]
    kernels_of_batches = spied_on(monkeypatch)
    together = restorer.batch(images, degradations)
    assert {65, 70} in kernels_of_batches
    for image, degradation, result in zip(images, degradations, together, strict=True):
        (alone,) = restorer.batch([image], [degradation])
        assert isinstance(result, Restored)
        assert isinstance(alone, Restored)
        assert result.image.shape[:2] == tuple(n * degradation.scale for n in image.shape[:2])
        difference = np.abs(result.image.astype(int) - alone.image)
        assert difference.max() <= most
        assert difference.mean() <= mean
        assert result.consistency_rms_255 == pytest.approx(alone.consistency_rms_255, rel=1e-3 * most)


def spied_on(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The kernel widths of each batch that is launched from now on."""
    launch, seen = Runner._launch, list[set[int]]()

    def noted(self: Runner, windows: list[Window], precision: str) -> _Launched:
        seen.append({window.degradation.kernel.shape[0] for window in windows})
        return launch(self, windows, precision)

    monkeypatch.setattr(Runner, "_launch", noted)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["batch", "windows"])
def test_twenty_four_megapixels_pass_through_unchanged(mode: str) -> None:
    restorer = Restorer(pass_through())
    source, degradation = Gradient(4000, 6000), Degradation(parse_kernel("gaussian(3)"), 1, 0)
    whole = source.read(0, 4000, 0, 6000)
    if mode == "batch":
        (result,) = restorer.batch([whole], [degradation])
        assert isinstance(result, Restored)
        assert result.tiles > 1
        restored = result.image
    else:
        restored = np.concatenate([tile for _, _, tile in restorer.windows(source, degradation)])
    assert np.array_equal(restored, whole)
