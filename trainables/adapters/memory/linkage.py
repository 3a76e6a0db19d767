"""Complete linkage over a few similar pairs: pairs that are not given have nothing in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def complete_linkage(count: int, left: Ints, right: Ints, similarity: Floats, num_clusters: int) -> Ints:
    """Return the cluster of every item, numbered from 0 in order of first appearance.

    Clusters merge in order of their similarity, which is that of their least similar pair (complete linkage), until
    `num_clusters` are left, or no two in which every pair is given. Pairs of clusters that are nearest to each other
    merge together, round by round: for complete linkage that gives the same tree as one by one (Murtagh 1983).

    Args:
        count: items.
        left: `[pairs]` one item of each pair, every pair once.
        right: `[pairs]` the other.
        similarity: `[pairs]` above 0.
        num_clusters: how many are wanted.
    """
    cluster = np.arange(count)
    merges: list[tuple[Floats, Ints, Ints]] = []
    while len(left):
        one, other, height = _nearest_to_each_other(count, left, right, similarity)
        merges.append((height, one, other))
        cluster[other] = one
        left, right, similarity = _merged(cluster, one, left, right, similarity)
    return _cut(count, merges, num_clusters)


def _nearest_to_each_other(count: int, left: Ints, right: Ints, similarity: Floats) -> tuple[Ints, Ints, Floats]:
    """Return the pairs each of which is the most similar to the other; ties to the earlier pair, by its items."""
    order = np.lexsort((right, left, -similarity))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    best = np.full(count, len(order))
    np.minimum.at(best, left, rank)
    np.minimum.at(best, right, rank)
    chosen = (best[left] == rank) & (best[right] == rank)
    return left[chosen], right[chosen], similarity[chosen]


def _merged(cluster: Ints, merged: Ints, left: Ints, right: Ints, similarity: Floats) -> tuple[Ints, Ints, Floats]:
    """Return the pairs of clusters of which every pair of parts was given, with the least similarity of these."""
    parts = np.ones(len(cluster), dtype=np.int64)
    parts[merged] = 2
    a, b = cluster[left], cluster[right]
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((high, low))
    low, high, similarity = low[order], high[order], similarity[order]
    is_first = np.ones(len(low), dtype=np.bool_)
    is_first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    starts = np.flatnonzero(is_first)
    number = np.diff(starts, append=len(low))
    low, high = low[starts], high[starts]
    complete = (low != high) & (number == parts[low] * parts[high])
    return low[complete], high[complete], np.minimum.reduceat(similarity, starts)[complete]


def _cut(count: int, merges: list[tuple[Floats, Ints, Ints]], num_clusters: int) -> Ints:
    """Do the merges of the highest similarity and number what comes of them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if merges:
        height, one, other = (np.concatenate(part) for part in zip(*merges, strict=True))
        kept = np.argsort(-height, kind="stable")[: max(0, count - num_clusters)]
        links = coo_array((np.ones(len(kept)), (one[kept], other[kept])), shape=(count, count))
        return renumbered(connected_components(links, directed=False)[1])
    return np.arange(count)


def renumbered(labels: NDArray[np.integer[Any]]) -> Ints:
    """Return labels numbered from 0 in order of first appearance."""
    _, first, place = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: Ints = rank[place]
    return numbered
