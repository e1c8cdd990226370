"""Windows on one axis: they cover it, stay inside, and their weights sum to one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.physics.windows import overhead, spans, weights


@given(
    st.integers(1, 3000),
    st.integers(40, 600),
    st.integers(0, 300),
    st.integers(1, 4),
    st.integers(1, 40),
    st.sampled_from([1, 2, 8]),
)
def test_weights_sum_to_one_everywhere(n: int, longest: int, overlap: int, scale: int, band: int, step: int) -> None:
    overlap = min(overlap, longest // 2)
    axis = spans(n, longest, overlap, step)
    assert all(span.start % step == 0 for span in axis)
    assert all(left.stop - right.start >= overlap for left, right in pairwise(axis))
    lengths = [span.stop - span.start for span in axis]
    assert max(lengths) - min(lengths) < step
    total = np.zeros(n * scale)
    for span, weight in zip(axis, weights(axis, scale, band), strict=True):
        assert 0 <= span.start <= span.first < span.last <= span.stop <= n
        assert span.stop - span.start <= longest
        total[span.start * scale : span.stop * scale] += weight
    assert np.allclose(total, 1, atol=1e-6)


def test_neighbours_share_at_least_the_overlap_evenly() -> None:
    axis = spans(1000, 300, 100)
    shared = [left.stop - right.start for left, right in pairwise(axis)]
    assert min(shared) >= 100
    assert max(shared) - min(shared) <= 2
    assert overhead(axis) == pytest.approx(sum(shared) / 1000 + 1)


def test_windows_are_no_longer_than_their_number_and_the_step_demand() -> None:
    for n in range(400, 700):
        axis = spans(n, 380, 52, 8)
        even = (n - 52) / len(axis) + 52
        assert max(span.stop - span.start for span in axis) < even + 8 or len(axis) == 1


def test_a_short_axis_is_one_window() -> None:
    (only,) = spans(300, 300, 100)
    assert (only.start, only.stop, only.first, only.last) == (0, 300, 0, 300)


def test_windows_that_get_nowhere_are_refused() -> None:
    with pytest.raises(ValueError, match="never cover"):
        spans(300, 100, 100)
