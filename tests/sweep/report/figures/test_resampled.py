"""Intervals over documents and pairs of them hold what they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from sweep.report.figures.resampled import alikeness, mean_interval, pair_mean_intervals

RNG = np.random.default_rng(5)


def test_the_interval_of_a_mean_is_the_percentile_bootstraps():
    values = RNG.normal(2.0, 1.0, 60)
    found = mean_interval(values)
    scipy = bootstrap((values,), np.mean, method="percentile", n_resamples=2000, rng=np.random.default_rng(0))
    assert found == pytest.approx(tuple(scipy.confidence_interval), abs=0.05)
    assert mean_interval(values) == found and mean_interval(values[:1]) is None
    assert mean_interval(np.full(5, 0.5)) == (0.5, 0.5)


def test_pairs_that_share_a_document_are_drawn_together():
    """One odd document is in a sixth of all pairs: pairs drawn one by one would hide how much hangs on it."""
    left, right = np.triu_indices(12, k=1)
    values = np.where((left == 0) | (right == 0), 1.0, 0.0)
    everything, one, none = np.ones(66, dtype=bool), np.arange(66) == 3, np.zeros(66, dtype=bool)
    (low, high), *others = pair_mean_intervals(values, left, right, [everything, one, none])
    naive = mean_interval(values)
    assert naive is not None and low < values.mean() < high and high - low > 1.5 * (naive[1] - naive[0])
    assert others == [None, None]


def test_rows_are_as_alike_as_their_cosines_are_on_average():
    rows = RNG.random((7, 5))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (units @ units.T)[np.triu_indices(7, k=1)]
    found = alikeness(rows)
    assert found is not None and found[1] is not None
    assert found[0] == pytest.approx(cosines.mean()) and found[1][0] < found[0] < found[1][1]
    assert alikeness(np.eye(3)) == (0.0, (0.0, 0.0)) and alikeness(rows[:1]) is None
