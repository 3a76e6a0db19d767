"""Intervals and p of paired differences, against scipy's permutation test and against what is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_rel

from sweep.report.comparisons.fever import holm_corrected
from sweep.report.comparisons.paired import flip_p, grouped_difference, paired_difference, paired_differences


def by_scipy(differences: np.ndarray, draws: int) -> float:
    return permutation_test(
        (differences, np.zeros_like(differences)), lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples", n_resamples=draws, random_state=np.random.default_rng(1),
    ).pvalue  # fmt: skip


@pytest.mark.parametrize("units", [2, 3, 7, 10])
def test_few_units_are_counted_in_full(units):
    rng = np.random.default_rng(units)
    columns = np.concatenate([rng.normal(0.5, 1, (units, 5)), rng.integers(-1, 2, (units, 5))], axis=1)
    columns[:, 4] = 3.0  # all alike: as far out as can be
    expected = [by_scipy(column, 5000) for column in columns.T]
    assert flip_p(columns).tolist() == pytest.approx(expected)
    assert flip_p(columns)[4] == 2 / 2**units


def test_many_units_come_out_as_by_scipy():
    columns = np.random.default_rng(0).normal(0.15, 1, (120, 12)) + np.arange(12) * 0.02
    expected = [by_scipy(column, 9999) for column in columns.T]
    assert flip_p(columns, family=100).tolist() == pytest.approx(expected, abs=0.03)
    small = [p for p in zip(flip_p(columns, family=100), expected, strict=True) if p[1] < 0.01]
    assert len(small) > 4 and all(ours == pytest.approx(theirs, abs=0.002) for ours, theirs in small)


def test_nothing_differs():
    assert flip_p(np.zeros((30, 2))).tolist() == [1, 1]
    assert paired_difference(np.ones(30), np.ones(30)) == ((0, 0), 1)


@pytest.mark.parametrize("family", [1, 57, 400])
def test_a_clear_difference_is_found_in_any_number_of_comparisons(family):
    """Of 2,000 draws the smallest p is 0.0005, which Holm's correction over 400 comparisons makes 0.2."""
    rng = np.random.default_rng(family)
    columns = rng.normal(2.0, 1, (25, family))
    columns[:, 1::2] = rng.normal(0.0, 1, (25, family // 2))
    corrected = np.array(holm_corrected(flip_p(columns, family).tolist()))
    assert (corrected[::2] < 0.05).all()
    assert (corrected[1::2] > 0.05).all()


def test_p_is_as_rare_as_it_says():
    p = flip_p(np.random.default_rng(3).normal(0, 1, (40, 2000)), 500)
    for level in (0.01, 0.05, 0.3):
        assert np.mean(p < level) == pytest.approx(level, abs=4 * (level / 2000) ** 0.5)


def test_the_interval_of_a_known_difference():
    rng = np.random.default_rng(1)
    others = rng.normal(0, 1, 400)
    (low, high), p = paired_difference(others + rng.normal(0.3, 1, 400), others)
    assert low < 0.3 < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.15) and p < 0.01
    (low, high), p = paired_difference(others + rng.normal(0, 1, 400), others)
    assert low < 0 < high and p > 0.05


@pytest.mark.parametrize("records", [2, 5, 30, 200])
def test_scores_resampled_together_come_out_as_one_by_one(records):
    rng = np.random.default_rng(records)
    values, others = ((rng.random((records, 5, 6)) < share).mean(axis=1) for share in (0.45, 0.3))
    values[:, 3] = others[:, 3]
    low, high, p = paired_differences(values - others, resamples=300)
    for k in range(6):
        interval, alone = paired_difference(values[:, k], others[:, k], resamples=300)
        assert (low[k], high[k]) == pytest.approx(interval) and p[k] == pytest.approx(alone)


def test_groups_are_drawn_whole():
    rng = np.random.default_rng(1)
    shift = rng.normal(0.0, 1.0, 40).repeat(5)
    values, others = 0.3 + shift + rng.normal(0, 0.1, 200), rng.normal(0, 0.1, 200)
    apart = grouped_difference(values - others, np.ones(200))
    sums = [x.reshape(40, 5).sum(axis=1) for x in (values, others)]
    together, p = grouped_difference(sums[0] - sums[1], np.full(40, 5.0)), flip_p((sums[0] - sums[1])[:, None])[0]
    assert together[1] - together[0] > 1.8 * (apart[1] - apart[0])
    assert p == pytest.approx(ttest_rel(*sums).pvalue, abs=0.02)
    centre = (values - others).mean()
    assert together[0] < centre < together[1]
