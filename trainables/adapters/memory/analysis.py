"""Analysis of an allocation: what SimSet promises, beside what it made (note 002)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.allocation import Allocation, GroupSequences
from trainables.adapters.memory.expectation import overlap_expectation
from trainables.adapters.memory.shingles import jaccard_matrix, shingle_set

MAX_PAIRS = 2000
"""Pairs of groups in a report; above, as many are sampled."""


def allocation_report(allocation: Allocation, group_sequences: GroupSequences) -> dict[str, Any]:
    """Describe an allocation in plain numbers, fit for JSON.

    Args:
        allocation: The allocation.
        group_sequences: The texts it was built from.

    Returns:
        `allocation`, `granularity`, `memory_dim`, `groups`, `entries_per_group` (n), `shingle_width`;
        `entries`: number of entries of each group; `load`: number of groups on each entry;
        `pairs`: for each pair of groups (at most `MAX_PAIRS`, sampled) `left`, `right`, `jaccard` (exact,
        over shingles), `shared` (entries in both), `overlap` (shared over the mean size of the two sets:
        what SimSet makes equal to `jaccard`), and for SimSet with granularity `dim` `agreement` (share of
        hash functions that give both the same entry) and `expected` (its expectation,
        J + (1 - J) / memory_dim: equal minima, or a collision of slots);
        `correlation` of `jaccard` with `overlap` over these pairs, None where either is constant; `unshared`, the share
        of pairs without a common entry; and for SimSet with granularity `dim` what n lets one expect
        (`overlap_expectation`): `standard_error`, `expected_correlation`, `expected_unshared`.
    """
    similarity = jaccard_matrix([shingle_set(segments, allocation.shingle_width) for segments in group_sequences])
    left, right = _pairs(len(group_sequences))
    jaccard = similarity[left, right]
    sizes = allocation.table.sum(axis=1)
    table = allocation.table
    shared = np.array([np.count_nonzero(table[a] & table[b]) for a, b in zip(left, right, strict=True)], dtype=np.int64)
    overlap = 2 * shared / (sizes[left] + sizes[right])
    columns = {"left": left, "right": right, "jaccard": jaccard, "shared": shared, "overlap": overlap}
    if allocation.signatures is not None:
        agreeing = allocation.signatures[left] == allocation.signatures[right]
        columns["agreement"] = agreeing.mean(axis=1)
        columns["expected"] = jaccard + (1.0 - jaccard) / allocation.memory_dim
    expected = overlap_expectation(jaccard, float(sizes.mean()), allocation.memory_dim)
    return {
        "allocation": allocation.name,
        "granularity": allocation.granularity,
        "memory_dim": allocation.memory_dim,
        "groups": len(group_sequences),
        "entries_per_group": allocation.entries_per_group,
        "shingle_width": allocation.shingle_width,
        "entries": sizes.tolist(),
        "load": allocation.table.sum(axis=0).tolist(),
        "pairs": [
            dict(zip(columns, values, strict=True))
            for values in zip(*(column.tolist() for column in columns.values()), strict=True)
        ],
        "correlation": _correlation(jaccard, overlap),
        "unshared": float((shared == 0).mean()) if len(shared) else None,
        **(expected if allocation.signatures is not None else {}),
    }


def _pairs(num_groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs to report, all or an evenly drawn sample, always the same."""
    left, right = np.triu_indices(num_groups, k=1)
    if len(left) > MAX_PAIRS:
        chosen = np.sort(np.random.default_rng(0).choice(len(left), MAX_PAIRS, replace=False))
        left, right = left[chosen], right[chosen]
    return left, right


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])
