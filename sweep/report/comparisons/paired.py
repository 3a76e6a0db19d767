"""Paired differences: 95 % intervals by `scipy.stats.bootstrap`, p by flipping signs.

Under the null hypothesis a unit's difference is as likely to be its opposite. The test counts how often the sum of
differences with signs drawn at random is as far from 0 as the sum found (a permutation test of paired samples).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from sweep.report.comparisons.fever import LEVEL, RESAMPLES

PER_COMPARISON = 100
"""Draws for each comparison of a family, so that the smallest p, after Holm's correction, is 1/100 rather than above
the threshold: of 2,000 draws the smallest is 1/2,001, which corrected over 100 comparisons finds nothing."""
ENOUGH = 20
"""Draws as far out as the value found after which its p is known well enough (to a quarter of itself): it is then too
large for more draws to matter, since these go on only while p is below 20 in 2,000."""
CELLS = 4_000_000
"""Sums held at once: 16 MB of single precision."""

Floats = NDArray[np.float64]


def flip_p(differences: Floats, family: int = 1, draws: int = RESAMPLES) -> Floats:
    """Return the two-sided p of the sums of several columns, all signs of a unit drawn for all columns alike.

    All sign patterns are counted where there are no more of these than draws.

    Args:
        differences: `[units, columns]`.
        family: comparisons that Holm's correction is over; it takes 100 times as many draws to find one among them.
        draws: for each column; those with a small p take more where the family is large.

    Returns:
        `[columns]`: 1 where nothing differs.
    """
    units, columns = differences.shape
    scale = np.abs(differences).sum(axis=0)
    scaled = (differences / np.where(scale > 0, scale, 1.0)).astype(np.float32)
    found = np.abs(scaled.sum(axis=0)) - 1e-5  # single precision tells sums apart that are the same
    draws = max(draws, PER_COMPARISON * family)
    if 2**units <= draws:
        signs = np.array(list(product((-1, 1), repeat=units)), dtype=np.float32)
        return np.asarray(np.mean(_as_far(signs, scaled, found), axis=0, dtype=np.float64))
    rng = np.random.default_rng(0)
    p = np.ones(columns)
    left, count, done = np.arange(columns), np.zeros(columns), 0
    while len(left):
        batch = max(1, min(draws - done, RESAMPLES, CELLS // max(units, len(left))))
        signs = rng.choice(np.array([-1, 1], dtype=np.float32), (batch, units))
        count += _as_far(signs, scaled[:, left], found[left]).sum(axis=0)
        done += batch
        p[left] = (count + 1) / (done + 1)
        go_on = (count < ENOUGH) | (done < RESAMPLES)
        left, count = (left[go_on], count[go_on]) if done < draws else (left[:0], count[:0])
    return p


def _as_far(signs: NDArray[np.float32], scaled: NDArray[np.float32], found: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(signs @ scaled) >= found)


def paired_differences(
    differences: Floats, family: int = 1, resamples: int = RESAMPLES
) -> tuple[Floats, Floats, Floats]:
    """Return lower and upper ends of the 95 % intervals, and two-sided p values, of the means of several columns.

    Draws are shared by all columns: 500 columns of 100 records take 0.06 s of CPU instead of 3.0 s (on one busy core,
    the plain form, `paired_difference`, timed on 20 of them).

    Args:
        differences: `[units, columns]`, two units or more.
        family: comparisons that p is to be corrected over.
        resamples: bootstrap samples.

    Returns:
        `[columns]` each.
    """
    from scipy.stats import bootstrap

    count = len(differences)

    def resampled(drawn: NDArray[np.int64], axis: int = -1) -> Floats:
        drawn = np.atleast_2d(drawn)
        places = (drawn + np.arange(len(drawn))[:, None] * count).ravel()
        times = np.bincount(places, minlength=len(drawn) * count).reshape(len(drawn), count)
        means: Floats = (times @ differences).T / count
        return means

    low, high = bootstrap(
        (np.arange(count),), resampled, vectorized=True, axis=-1, n_resamples=resamples, confidence_level=LEVEL,
        method="percentile", random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return np.asarray(low), np.asarray(high), flip_p(differences, family)


def paired_difference(
    values: Floats, others: Floats, family: int = 1, resamples: int = RESAMPLES
) -> tuple[tuple[float, float], float]:
    """Return the 95 % interval and the two-sided p of the mean of `values - others`, `[units]` each, two or more."""
    differences = values - others
    interval = grouped_difference(differences, np.ones(len(values)), resamples)
    return interval, float(flip_p(differences[:, None], family)[0])


def grouped_difference(differences: Floats, sizes: Floats, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95 % interval of a difference of means over questions, groups of questions drawn whole.

    Args:
        differences: sums over each group's questions, `[groups]`, two or more.
        sizes: questions of each group.
        resamples: drawn.
    """
    from scipy.stats import bootstrap

    if not differences.any():
        return 0.0, 0.0
    low, high = bootstrap(
        (differences, sizes), lambda d, n, axis: d.sum(axis=axis) / n.sum(axis=axis), paired=True, vectorized=True,
        n_resamples=resamples, confidence_level=LEVEL, method="percentile", random_state=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    return float(low), float(high)
