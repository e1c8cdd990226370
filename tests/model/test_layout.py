"""How images are cut: sizes, overlaps, and what a layout promises."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.layout import context_lr, lay_out
from pipeline.model.memory import bytes_per_pixel
from pipeline.model.usrnet import TINY
from pipeline.records import Degradation


def degradation(width: int, scale: int) -> Degradation:
    return Degradation(np.ones((width, width)), scale, 0)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 7])
def test_extended_shapes_leave_room_and_suit_the_fft_and_the_prior(scale: int) -> None:
    for n in (1, 17, 100, 333):
        for width in (1, 25, 70):
            layout = lay_out((n, n), degradation(width, scale), "smooth", 10**9)
            h, w = layout.shape
            assert h == w > n
            assert (h - n) * scale >= width, "the kernel never reaches from one border to the other"
            assert h * scale % 8 == 0
            rest = h
            for prime in (2, 3, 5, 7):
                while rest % prime == 0:
                    rest //= prime
            assert rest == 1
            assert lay_out((n, n), degradation(width, scale), "circular", 1).shape == (n, n)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 4), st.sampled_from([1, 25, 70]), st.integers(16, 24))
def test_every_pixel_is_read_with_context_and_windows_stay_small(h: int, w: int, s: int, width: int, log2: int) -> None:
    layout = lay_out((h, w), degradation(width, s), "smooth", 2**log2)
    for n, axis in ((h, layout.rows), (w, layout.columns)):
        assert axis[0].first == 0
        assert axis[-1].last == n
        for left, right in pairwise(axis):
            assert left.last == right.first
            assert left.stop - right.start >= context_lr(width, s)
        lengths = [span.stop - span.start for span in axis]
        assert max(lengths) - min(lengths) < 8
        assert all(0 <= span.start < span.stop <= n for span in axis)
        assert all(span.start * s % 8 == 0 for span in axis), "aligned with the prior's strides"
    for weights in (layout.row_weights, layout.column_weights):
        assert all((weight >= 0).all() and (weight <= 1).all() for weight in weights)
    least = (2 * context_lr(width, s) + 36) ** 2 * s * s  # below that, windows cannot go
    assert layout.shape[0] * layout.shape[1] * s * s <= 1.6 * max(2**log2, least)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_overlaps_cost_little_at_four_megapixels(scale: int) -> None:
    """Pixels that go through the network over pixels of the result, margins and all; 25×25 kernel."""

    def cost(pixels: int) -> tuple[int, float]:
        layout = lay_out((2048 // scale,) * 2, degradation(25, scale), "smooth", pixels)
        return layout.tiles, layout.tiles * layout.shape[0] * layout.shape[1] / (2048 // scale) ** 2

    usual = 2**30 // bytes_per_pixel(TINY, torch.bfloat16)  # the most that a CPU gives a batch
    (whole, alone), (halves, cut), (quarters, finer) = (cost(pixels) for pixels in (10**9, usual, 1_500_000))
    assert (whole, halves, quarters) == (1, 2, 4)
    assert cut <= 1.25
    assert finer <= 1.33
    assert finer <= 1.25 * alone, "against the same picture whole, whose margin costs too"


def test_compiled_graphs_meet_few_shapes() -> None:
    shapes = {lay_out((h, h + 7), degradation(25, 2), "smooth", 10**7, few_shapes=True).shape for h in range(60, 460)}
    assert len({side for shape in shapes for side in shape}) <= 14
