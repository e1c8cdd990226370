"""The nouns: an impossible degradation cannot be made."""

import math
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import ItemError
from pipeline.records import (
    DONE,
    FAILED,
    Degradation,
    Item,
    Outcome,
    Work,
    checked_scale,
    checked_sigma,
    normalized_kernel,
)

taps = arrays.arrays(
    np.float64, arrays.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(0.001, 1e6)
)


@given(taps)
def test_a_kernel_is_scaled_to_sum_one_and_keeps_its_shape(kernel: np.ndarray) -> None:
    normalized = normalized_kernel(kernel)
    assert normalized.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(normalized * kernel.sum(), kernel, rtol=1e-12)


def test_negative_taps_are_legal() -> None:
    np.testing.assert_allclose(normalized_kernel([[-1, 4, -1]]), [[-0.5, 2, -0.5]])


def test_a_kernel_that_sums_to_a_negative_number_is_turned_over() -> None:
    np.testing.assert_array_equal(normalized_kernel([[-2.0, -2.0]]), [[0.5, 0.5]])


def test_the_callers_kernel_is_neither_changed_nor_shared() -> None:
    kernel = np.ones((3, 3))
    normalized = normalized_kernel(kernel)
    assert (kernel == 1).all()
    assert not np.shares_memory(kernel, normalized)


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        ([], "2-D"),
        ([1, 2, 3], "2-D"),
        (np.ones((2, 2, 2)), "2-D"),
        (np.ones((0, 3)), "non-empty"),
        (5, "2-D"),
        ([[1, math.nan]], "NaN"),
        ([[1, math.inf]], "infinite"),
        ([[math.inf, -math.inf]], "infinite"),
        ([[1e308, 1e308]], "enormous"),
        ([[1, -1]], "zero"),
        ([[0.1 + 0.2, -0.3]], "zero"),
        (np.zeros((3, 3)), "zero"),
        ([[1, 2], [3]], "not a table"),
        ([[1, None]], "not a table"),
        ([["a", "b"]], "not a table"),
        ([[1j, 2]], "not a table"),
        ([[10**400]], "not a table"),
        (None, "not a table"),
        ("gaussian(1)", "not a table"),
    ],
)
def test_an_impossible_kernel_is_refused_in_words(kernel: Any, says: str) -> None:
    with pytest.raises(ItemError, match=says) as raised:
        normalized_kernel(kernel)
    assert raised.value.code == "bad-kernel"


@pytest.mark.parametrize("scale", [1, 2, 2.0, np.int64(3), np.float32(4), 10**6])
def test_a_whole_scale_is_an_int(scale: Any) -> None:
    checked = checked_scale(scale)
    assert type(checked) is int
    assert checked == scale


@pytest.mark.parametrize(
    "scale", [0, -1, 1.5, math.nan, math.inf, -math.inf, "2", None, True, np.True_, [2], 2j, -(10**400)]
)
def test_any_other_scale_is_refused(scale: Any) -> None:
    with pytest.raises(ItemError, match="scale must be") as raised:
        checked_scale(scale)
    assert raised.value.code == "bad-scale"


@pytest.mark.parametrize("sigma", [0, 255, 2.55, np.float32(7.5), np.int8(3)])
def test_a_sigma_in_grey_levels_is_a_float(sigma: Any) -> None:
    checked = checked_sigma(sigma)
    assert type(checked) is float
    assert checked == sigma


@pytest.mark.parametrize("sigma", [-0.1, 255.1, math.nan, math.inf, "7", None, False, [1], 10**400])
def test_any_other_sigma_is_refused(sigma: Any) -> None:
    with pytest.raises(ItemError, match="sigma must be") as raised:
        checked_sigma(sigma)
    assert raised.value.code == "bad-sigma"


def test_a_degradation_holds_checked_values() -> None:
    degradation = Degradation(kernel=[[2, 2]], scale=2.0, sigma=3)  # type: ignore[arg-type]
    np.testing.assert_array_equal(degradation.kernel, [[0.5, 0.5]])
    assert (degradation.scale, degradation.sigma) == (2, 3.0)
    assert degradation.kernel.dtype == np.float64


def test_a_degradation_does_not_change() -> None:
    degradation = Degradation(np.ones((1, 1)), 2, 0)
    with pytest.raises(FrozenInstanceError):
        degradation.scale = 3  # type: ignore[misc]


def test_work_has_failed_when_its_outcome_has() -> None:
    item = Item("a", "/a.png", "a.png", 2, 0.0, "delta", "center")
    assert not Work(item, Outcome("a")).failed
    assert not Work(item, Outcome("a", status=DONE)).failed
    assert Work(item, Outcome("a", status=FAILED)).failed
