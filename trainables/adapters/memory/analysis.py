"""Analysis of an allocation: what SimSet promises, beside what it made (note 002)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.allocation import Allocation, GroupSequences, as_grouped
from trainables.adapters.memory.expectation import overlap_expectation
from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.near import found_with, near_pairs, sketches_of
from trainables.adapters.memory.setting import ALL_PAIRS
from trainables.adapters.memory.shingles import U64, distinct, mix64

MAX_PAIRS = 2000
"""Pairs of groups in a report; above, as many are sampled."""
MAX_SHINGLES = 1 << 25
"""Shingles held at a time, 256 MB: sets of groups that have more are thinned alike before they are compared (ours)."""
MAX_LOAD_GROUPS = 4096
"""Groups whose sets are drawn to count the load of entries, where drawing those of all would be quadratic (ours)."""
RESAMPLES = 1000
_SEED = 0

Columns = dict[str, NDArray[Any]]


def allocation_report(allocation: Allocation, group_sequences: GroupSequences | GroupedTokens) -> dict[str, Any]:
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

        Where pairs are sampled, `sampled` says of how many and what that leaves open (`_sampling`). Where there are
        more than `ALL_PAIRS` groups, `near` says the same of pairs that are alike (`_near`), which a sample of so many
        pairs hardly ever meets. `load_groups` is there where `load` counts those groups only, `jaccard_share` where
        similarities are those of an even share of the shingles.
    """
    grouped = as_grouped(group_sequences)
    left, right = _pairs(grouped.num_groups)
    columns, share = _compared(allocation, grouped, left, right)
    jaccard, shared, overlap = columns["jaccard"], columns["shared"], columns["overlap"]
    sizes = allocation.lists.sizes
    load_groups = np.arange(grouped.num_groups)
    if not allocation.lists.is_cheap and grouped.num_groups > MAX_LOAD_GROUPS:
        load_groups = np.sort(np.random.default_rng(_SEED).choice(load_groups, MAX_LOAD_GROUPS, replace=False))
    expected = overlap_expectation(jaccard, float(sizes.mean()), allocation.memory_dim)
    count = grouped.num_groups * (grouped.num_groups - 1) // 2
    return {
        "allocation": allocation.name,
        "granularity": allocation.granularity,
        "memory_dim": allocation.memory_dim,
        "groups": grouped.num_groups,
        "entries_per_group": allocation.entries_per_group,
        "shingle_width": allocation.shingle_width,
        "entries": sizes.tolist(),
        "load": allocation.lists.load(load_groups).tolist(),
        "pairs": _rows(columns),
        "correlation": _correlation(jaccard, overlap),
        "unshared": float((shared == 0).mean()) if len(shared) else None,
        **(expected if allocation.signatures is not None else {}),
        **({"sampled": _sampling(columns, count)} if count > MAX_PAIRS else {}),
        **({"near": _near(allocation, grouped)} if grouped.num_groups > ALL_PAIRS else {}),
        **({"load_groups": len(load_groups)} if len(load_groups) < grouped.num_groups else {}),
        **({"jaccard_share": share} if share < 1 else {}),
    }


def _pairs(num_groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs to report, all or an evenly drawn sample, always the same."""
    count = num_groups * (num_groups - 1) // 2
    if count <= MAX_PAIRS:
        left, right = np.triu_indices(num_groups, k=1)
        return left, right
    chosen = np.sort(np.random.default_rng(_SEED).choice(count, MAX_PAIRS, replace=False))
    return pairs_at(num_groups, chosen)


def pairs_at(num_groups: int, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs at some places of `numpy.triu_indices(num_groups, 1)`, without making all of them."""
    first = np.arange(num_groups, dtype=np.int64)
    starts = first * (2 * num_groups - first - 1) // 2  # where the pairs of each group with later ones begin
    left = np.searchsorted(starts, places, side="right") - 1
    left = np.minimum(left, num_groups - 2)
    return left, places - starts[left] + left + 1


def _compared(
    allocation: Allocation, grouped: GroupedTokens, left: NDArray[np.int64], right: NDArray[np.int64]
) -> tuple[Columns, float]:
    """Return the columns of some pairs, and the share of the shingles that their similarity was taken from."""
    groups = np.unique(np.concatenate([left, right]))
    thin = 1
    while int(grouped.lengths[groups].sum()) > thin * MAX_SHINGLES:
        thin *= 2
    sets = {int(group): _shingles(grouped, int(group), allocation.shingle_width, thin) for group in groups}
    entries = {int(group): allocation.lists.of(int(group)) for group in groups}
    sizes = allocation.lists.sizes
    pairs = list(zip(left.tolist(), right.tolist(), strict=True))
    jaccard = np.array([_jaccard(sets[a], sets[b]) for a, b in pairs], dtype=np.float64)
    shared = np.array([_common(entries[a], entries[b]) for a, b in pairs], dtype=np.int64)
    overlap = 2 * shared / (sizes[left] + sizes[right])
    columns: Columns = {"left": left, "right": right, "jaccard": jaccard, "shared": shared, "overlap": overlap}
    if allocation.signatures is not None:
        columns["agreement"] = (allocation.signatures[left] == allocation.signatures[right]).mean(axis=1)
        columns["expected"] = jaccard + (1.0 - jaccard) / allocation.memory_dim
    return columns, 1 / thin


def _shingles(grouped: GroupedTokens, group: int, width: int, thin: int) -> U64:
    """Return a group's different shingles, or of each `thin` one, the same in every group."""
    found = distinct(grouped.block(group).shingles(width)[0])
    return found if thin == 1 else found[mix64(found) % np.uint64(thin) == 0]


def _common(one: NDArray[Any], other: NDArray[Any]) -> int:
    return len(np.intersect1d(one, other, assume_unique=True))


def _jaccard(one: U64, other: U64) -> float:
    shared = _common(one, other)
    union = len(one) + len(other) - shared
    return shared / union if union else 1.0


def _sampling(columns: Columns, count: int) -> dict[str, Any]:
    """Say what a sample of pairs leaves open of the figures of all pairs.

    Returns:
        `pairs`: how many there are; and the 95 % intervals `correlation_interval` (bootstrap over the pairs drawn) and
        `unshared_interval` (Wilson's); None where there is no such figure.
    """
    from statsmodels.stats.proportion import proportion_confint

    number, without = len(columns["shared"]), int((columns["shared"] == 0).sum())
    low, high = proportion_confint(without, number, alpha=0.05, method="wilson")
    return {
        "pairs": count,
        "correlation_interval": _correlation_interval(columns["jaccard"], columns["overlap"]),
        "unshared_interval": [round(float(low), 12), round(float(high), 12)],  # its rounding is not 0 where 0 is meant
    }


def _near(allocation: Allocation, grouped: GroupedTokens) -> dict[str, Any]:
    """Describe pairs of groups that are near each other by locality-sensitive hashing of their shingles.

    Returns:
        `found`: how many there are; `found_with`: with what probability a pair of some similarities is among them;
        `pairs`: as in the report, at most `MAX_PAIRS`, drawn evenly; `correlation` with `correlation_interval`, over
        these; and, for SimSet with granularity `dim`, `beyond_expected` with `beyond_expected_interval`: 0 is in it
        where SimSet keeps its promise (`_beyond_interval`).
    """
    left, right = near_pairs(sketches_of(grouped, allocation.shingle_width), grouped.lengths > 0)
    number = len(left)
    if number > MAX_PAIRS:
        chosen = np.sort(np.random.default_rng(_SEED).choice(number, MAX_PAIRS, replace=False))
        left, right = left[chosen], right[chosen]
    columns, _ = _compared(allocation, grouped, left, right)
    jaccard, overlap = columns["jaccard"], columns["overlap"]
    found = {
        "found": number,
        "found_with": {f"{similarity:g}": found_with(similarity) for similarity in (0.5, 0.6, 0.7, 0.8, 0.9)},
        "pairs": _rows(columns),
        "correlation": _correlation(jaccard, overlap),
        "correlation_interval": _correlation_interval(jaccard, overlap),
    }
    if allocation.signatures is not None and len(left):
        found |= _beyond_interval(allocation.signatures[left] == allocation.signatures[right], columns["expected"])
    return found


def _rows(columns: Columns) -> list[dict[str, Any]]:
    return [
        dict(zip(columns, values, strict=True))
        for values in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _correlation_interval(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[float] | None:
    """Return the 95 % percentile bootstrap of a correlation: a few pairs are far more alike than all others."""
    if _correlation(x, y) is None:
        return None
    draws = np.random.default_rng(_SEED).integers(len(x), size=(RESAMPLES, len(x)))
    one, other = ((values - values.mean())[draws] for values in (x, y))
    one -= one.mean(axis=1, keepdims=True)
    other -= other.mean(axis=1, keepdims=True)
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    found = (one * other).sum(axis=1)[spread > 0] / spread[spread > 0]
    return [float(bound) for bound in np.quantile(found, (0.025, 0.975))] if len(found) else None


def _beyond_interval(agreeing: NDArray[np.bool_], expected: NDArray[np.float64]) -> dict[str, Any]:
    """Say by how much hash functions agree beyond expectation, with a 95 % interval over the functions.

    The functions are what was drawn: two pairs that have a token in common agree by the same draw, so that pairs are
    not independent.

    Args:
        agreeing: `[pairs, n]` whether a function gives both groups the same entry.
        expected: `[pairs]` its expectation.
    """
    from scipy.stats import t

    number = agreeing.shape[1]
    beyond = agreeing.mean(axis=0) - float(expected.mean())
    mean = float(beyond.mean())
    if number < 2:
        return {"beyond_expected": mean, "beyond_expected_interval": None}
    reach = float(t.ppf(0.975, number - 1) * beyond.std(ddof=1) / number**0.5)
    return {"beyond_expected": mean, "beyond_expected_interval": [mean - reach, mean + reach]}
