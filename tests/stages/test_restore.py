"""The restore stage: a unit in, results in the same order, alpha on the right grid."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ItemError
from pipeline.model.layout import BoundaryMode
from pipeline.model.restore import Restored, Restorer
from pipeline.model.usrnet import Architecture
from pipeline.records import FAILED, Degradation, Item, Outcome, Picture, Work
from pipeline.stages.restore import restore
from pipeline.training.loop import initial_usrnet


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer(initial_usrnet(Architecture(2, 8, (8, 8, 8, 8), 1), 0), precision="fp32")


def work(name: str, h: int, w: int, channels: int = 3, scale: int = 2, **picture: object) -> Work:
    pixels = np.random.default_rng(h * w).integers(0, 255, (h, w, channels), dtype=np.uint8)
    shown = Picture(pixels, "RGB" if channels == 3 else "L", "png", **picture)  # type: ignore[arg-type]
    item = Item(name, name, name, scale, 0.0, "delta", "corner")
    return Work(item, Outcome(name), shown, Degradation(np.ones((1, 1)), scale, 0))


def run(works: list[Work], restorer: Restorer) -> list[Work]:
    return restore(works, restorer=restorer, model_id="m", boundary="smooth", clock=iter([0.0, 6.0]).__next__)


def test_results_keep_order_channels_and_failed_neighbours(restorer: Restorer) -> None:
    failed = replace(work("b", 4, 4), outcome=Outcome("b", status=FAILED, error_code="corrupt-image"), picture=None)
    a, b, c = run([work("a", 10, 12), failed, work("c", 9, 7, 1, scale=3)], restorer)
    assert a.picture is not None
    assert c.picture is not None
    assert a.picture.pixels_hwc.shape == (20, 24, 3)
    assert b is failed
    assert c.picture.pixels_hwc.shape == (27, 21, 1)
    assert (a.outcome.sr_width, a.outcome.sr_height, a.outcome.model_id) == (24, 20, "m")
    assert a.outcome.precision == "fp32"


def test_the_units_time_is_shared_by_pixels(restorer: Restorer) -> None:
    small, large = run([work("a", 10, 10), work("b", 20, 10)], restorer)
    assert small.outcome.seconds_restore == pytest.approx(2.0)
    assert large.outcome.seconds_restore == pytest.approx(4.0)


def test_alpha_is_resampled_on_the_items_grid(restorer: Restorer) -> None:
    alpha = np.tile(np.arange(0, 200, 20, dtype=np.uint8), (10, 1))
    (result,) = run([work("a", 10, 10, alpha_hw=alpha)], restorer)
    assert result.picture is not None
    assert result.picture.alpha_hw is not None
    assert result.picture.alpha_hw.dtype == np.uint8
    assert np.array_equal(result.picture.alpha_hw[::2, ::2], alpha), "corner phase: LR pixel at the block's corner"


class Choosy:
    """A restorer that breaks on pictures 7 pixels high, in a way nobody foresaw."""

    def batch(
        self, images: Sequence[np.ndarray], degradations: Sequence[Degradation], boundary: BoundaryMode
    ) -> list[Restored | ItemError]:
        if any(image.shape[0] == 7 for image in images):
            raise ArithmeticError("seven")
        return [Restored(0.0, "fp32", "eager", image=image.repeat(2, 0).repeat(2, 1)) for image in images]


def test_an_unforeseen_error_is_pinned_on_the_item_that_causes_it() -> None:
    works = [work("a", 6, 6), work("b", 7, 6), work("c", 8, 6)]
    done = restore(works, restorer=Choosy(), model_id="m", boundary="smooth")  # type: ignore[arg-type]
    assert [w.outcome.error_code for w in done] == [None, "internal", None]
    assert "ArithmeticError: seven" in (done[1].outcome.error or "")


def test_a_unit_of_failures_asks_nothing_of_the_network(restorer: Restorer) -> None:
    failed = replace(work("b", 4, 4), outcome=Outcome("b", status=FAILED), picture=None, degradation=None)
    assert run([failed], restorer) == [failed]


@pytest.mark.parametrize(("consistency", "flagged"), [(2.0, False), (3.5, True)])
def test_a_result_beyond_the_limit_of_its_own_sigma_is_flagged_and_still_done(
    consistency: float, flagged: bool
) -> None:
    class Fixed:
        def batch(self, images: Sequence[np.ndarray], *_: object) -> list[Restored]:
            return [Restored(consistency, "fp32", "eager", image=images[0].repeat(2, 0).repeat(2, 1))]

    noisy = work("a", 6, 6)
    noisy = replace(noisy, item=replace(noisy.item, sigma=2.55))
    (done,) = restore([noisy], restorer=Fixed(), model_id="m", boundary="smooth")  # type: ignore[arg-type]
    assert done.outcome.consistency_flagged is flagged
    assert not done.failed


def test_what_is_fully_transparent_does_not_bleed(restorer: Restorer) -> None:
    """Whatever a file stores under alpha 0, the visible colours are the same."""
    alpha = np.full((12, 12), 255, np.uint8)
    alpha[:, 6:] = 0
    results = []
    for hidden in (0, 255):
        (given,) = [work("a", 12, 12, alpha_hw=alpha)]
        assert given.picture is not None
        pixels = np.full((12, 12, 3), 120, np.uint8)
        pixels[:, 6:] = hidden
        (done,) = run([replace(given, picture=replace(given.picture, pixels_hwc=pixels))], restorer)
        assert done.picture is not None
        results.append(done.picture.pixels_hwc)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_samples_and_their_alpha_keep_their_type(restorer: Restorer, dtype: type) -> None:
    (given,) = [work("a", 10, 10, 1)]
    assert given.picture is not None
    deep = (np.linspace(0.2, 0.8, 100).reshape(10, 10) * (1 if dtype is np.float32 else 65535)).astype(dtype)
    picture = replace(given.picture, pixels_hwc=deep[:, :, None], alpha_hw=deep)
    (done,) = run([replace(given, picture=picture)], restorer)
    assert done.picture is not None
    assert done.picture.alpha_hw is not None
    assert done.picture.pixels_hwc.dtype == done.picture.alpha_hw.dtype == dtype
    assert done.picture.pixels_hwc.shape == (20, 20, 1)
