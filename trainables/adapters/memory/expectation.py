"""What a number of hash functions lets SimSet show: how far an overlap follows similarity, before anything is made.

With n entries a group, an overlap is a mean of n draws: each entry of one group is among the other's with probability
`P = J + (1 - J) * c`, where J is the Jaccard similarity and `c = n / memory_dim` the chance that an entry is shared
without reason. So its standard error is `sqrt(P * (1 - P) / n)`, and over pairs of groups it correlates with J as
`sd(expected) / sqrt(var(expected) + mean(P * (1 - P)) / n)`. These follow from the definition of SimSet (granularity
`dim`). Draws of different pairs are taken as independent; pages that share phrases share draws too, so that what is
measured on one corpus tends to lie a little above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 0.3
"""Correlation below which overlaps are called too noisy to show similarity: they explain a tenth of it (ours)."""

TYPICAL = {1: (0.078, 0.028), 2: (0.013, 0.0083), 3: (0.0013, 0.0026)}
"""Shingle width -> mean and standard deviation of Jaccard over pairs of pages, for plans, which read no texts.

Measured on the first 1,000 documents (249 evidence pages, then articles; 559 tokens on average) of FEVER's pages and
Wikipedia articles, cut as by default, with a byte-level BPE of 32,000 tokens trained on the corpus: `shingle_set` and
`jaccard_matrix` over all pairs. Other texts differ; `analysis.json` has the figures of the documents at hand.
"""


def shared_chance(jaccard: Floats, entries: float, memory_dim: int) -> Floats:
    """Return P of every pair: that an entry of one group is among the other's.

    Args:
        jaccard: similarities, of any shape.
        entries: mean number of entries of a group.
        memory_dim: entries of the memory.
    """
    chance: Floats = jaccard + (1.0 - jaccard) * min(1.0, entries / memory_dim)
    return chance


def overlap_expectation(jaccard: Floats, entries: float, memory_dim: int) -> dict[str, float | None]:
    """Return what overlaps of SimSet's sets are expected to be, over pairs of groups of these similarities.

    Args:
        jaccard: exact similarity of each pair, `[pairs]`.
        entries: mean number of entries of a group, n but for collisions.
        memory_dim: entries of the memory.

    Returns:
        `standard_error` of one overlap (root mean square over pairs), `expected_correlation` of overlap with Jaccard,
        `expected_unshared` (share of pairs without a common entry); None where there is no pair, or no spread.
    """
    if not jaccard.size:
        return {"standard_error": None, "expected_correlation": None, "expected_unshared": None}
    chance = shared_chance(jaccard, entries, memory_dim)
    noise = float(np.mean(chance * (1.0 - chance))) / entries
    return {
        "standard_error": math.sqrt(noise),
        "expected_correlation": _correlation(float(np.var(chance)), noise),
        "expected_unshared": float(np.mean((1.0 - chance) ** entries)),
    }


def typical_expectation(shingle_width: int, entries: int, memory_dim: int) -> tuple[float, float]:
    """Return standard error and expected correlation for groups as similar as FEVER's pages (`TYPICAL`)."""
    mean, deviation = TYPICAL[shingle_width]
    share = min(1.0, entries / memory_dim)
    chance, variance = mean + (1 - mean) * share, (deviation * (1 - share)) ** 2
    noise = max(0.0, chance * (1 - chance) - variance) / entries
    return math.sqrt(noise), _correlation(variance, noise) or 0.0


def entries_for(shingle_width: int, memory_dim: int) -> int | None:
    """Return the fewest hash functions with which overlaps of pages like FEVER's show similarity; None for none."""
    counts = (2**k for k in range(memory_dim.bit_length()))
    return next((n for n in counts if typical_expectation(shingle_width, n, memory_dim)[1] >= ENOUGH), None)


def from_analysis(report: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the expectation for an allocation's analysis as `allocation_report` makes it, of any version."""
    entries = report.get("entries") or ()
    jaccard = np.array([pair["jaccard"] for pair in report.get("pairs") or ()], dtype=np.float64)
    is_simset = str(report.get("allocation", "")).startswith("simset") and report.get("granularity") == "dim"
    if not (is_simset and entries):
        jaccard = jaccard[:0]
    return overlap_expectation(jaccard, float(np.mean(entries)) if entries else 1.0, int(report["memory_dim"]))


def _correlation(variance: float, noise: float) -> float | None:
    return math.sqrt(variance / (variance + noise)) if variance > 0 else None
