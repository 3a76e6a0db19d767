"""Intervals of means over documents and over pairs of them, for figures: documents are drawn anew, with replacement.

Of pairs it is the documents that are drawn, too, a pair as often as the product of its two (the vertex bootstrap of
Snijders and Borgatti 1999): pairs that have a document in common are not independent. How often a document is drawn is
a Poisson number (Hanley and MacGibbon 2006), so that all draws are one matrix.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
_SEED = 0

Interval = tuple[float, float]


def how_often(count: int) -> NDArray[np.float64]:
    """Return how often each of `count` documents is drawn, `[DRAWS, count]`; always the same."""
    drawn: NDArray[np.float64] = np.random.default_rng(_SEED).poisson(1.0, (DRAWS, count)).astype(np.float64)
    return drawn


def mean_interval(values: NDArray[np.float64]) -> Interval | None:
    """Return the 95 % interval of a mean over documents, `[documents]`; None with fewer than two."""
    if len(values) < 2:
        return None
    often = how_often(len(values))
    return _between(often @ values, often.sum(axis=1))


def pair_mean_intervals(
    values: NDArray[np.float64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    groups: list[NDArray[np.bool_]],
) -> list[Interval | None]:
    """Return the 95 % interval of the mean over each of some groups of pairs.

    Args:
        values: `[pairs]`.
        left: `[pairs]`, one document of each.
        right: `[pairs]`, the other.
        groups: `[pairs]` each, which pairs belong to it; None is returned for one with fewer than two.
    """
    documents, places = np.unique(np.concatenate([left, right]), return_inverse=True)
    often = how_often(len(documents))
    weights = often[:, places[: len(left)]] * often[:, places[len(left) :]]
    return [
        _between(weights[:, own] @ values[own], weights[:, own].sum(axis=1)) if own.sum() > 1 else None
        for own in groups
    ]


def alikeness(rows: NDArray[np.float64]) -> tuple[float, Interval | None] | None:
    """Return the mean cosine between two different rows with its 95 % interval over rows; None with fewer than two.

    Args:
        rows: `[documents, entries]`, none negative.
    """
    if len(rows) < 2:
        return None
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    often = np.vstack([np.ones(len(rows)), how_often(len(rows))])
    squares = (often**2) @ (units**2).sum(axis=1)
    pairs = ((often @ units) ** 2).sum(axis=1) - squares  # of different rows: those of a row with itself left out
    counts = often.sum(axis=1) ** 2 - (often**2).sum(axis=1)
    return float(pairs[0] / counts[0]), _between(pairs[1:], counts[1:])


def _between(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Interval | None:
    """Return the percentile interval of some draws' means; draws of nothing are left out."""
    found = sums[counts > 0] / counts[counts > 0]
    if len(found) < DRAWS / 2:
        return None
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
