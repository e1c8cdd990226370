"""A distribution counted in passing agrees with one that holds all its values."""

import numpy as np
import pytest

from pipeline.measure.distribution import Distribution


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_quantiles_are_numpys_to_a_bins_width(share: float) -> None:
    values = np.random.default_rng(0).gamma(3, 5, 5000)
    for kind, tolerance in ((Distribution(0, 100), 0.05), (Distribution(1e-3, 1e3, logarithmic=True), 0.05)):
        for batch in np.split(values, 10):
            kind.add(batch)
        assert kind.quantile(share) == pytest.approx(np.quantile(values, share), rel=tolerance)


def test_bars_hold_every_value_between_their_edges() -> None:
    values = np.random.default_rng(1).normal(30, 3, 1000)
    kind = Distribution(0, 100)
    kind.add(values)
    edges, counts = kind.bars(12)
    assert len(counts) <= 12
    assert counts.sum() == 1000
    assert edges[0] <= values.min()
    assert edges[-1] >= values.max()
    assert np.array_equal(counts, np.histogram(values, edges)[0])


def test_values_outside_are_counted_at_the_ends_and_nan_not_at_all() -> None:
    kind = Distribution(1, 100, logarithmic=True)
    kind.add(np.array([0.0, 0.5, 10, 1000, np.nan, np.inf]))
    assert (kind.count, kind.left_out) == (4, 2)
    assert kind.quantile(0.01) == pytest.approx(1, rel=0.01)


def test_nothing_has_no_quantile_and_no_bars() -> None:
    kind = Distribution(0, 1)
    assert np.isnan(kind.quantile(0.5))
    assert len(kind.bars()[1]) == 0


def test_equal_values_make_one_bar() -> None:
    kind = Distribution(0, 10)
    kind.add(np.full(7, 3.0))
    assert kind.bars()[1].tolist() == [7]
    assert kind.quantile(0.5) == 3.0
