"""Plain references of what is computed in blocks: every pair, every group, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.allocation import partition_sizes
from trainables.adapters.memory.shingles import HashFamily, mix64, seeded_keys, shingle_ids, shingle_set

Groups = Sequence[Sequence[Sequence[int]]]


def plain_table(
    name: str, granularity: str, groups: Groups, memory_dim: int, seed: int, entries: int
) -> NDArray[np.bool_]:
    """Every group's entries by their definition, `[groups, memory_dim]`."""
    table = np.zeros((len(groups), memory_dim), dtype=np.bool_)
    if name in ("random", "partitioned"):
        sizes = partition_sizes([sum(map(len, segments)) for segments in groups], memory_dim)
        ends, entry_keys = np.cumsum(sizes), seeded_keys(seed, 3, memory_dim)
        for group, key in enumerate(seeded_keys(seed, 4, len(groups))):
            if name == "partitioned":
                table[group, ends[group] - sizes[group] : ends[group]] = True
            else:
                table[group, np.argsort(mix64(entry_keys ^ key))[: sizes[group]]] = True
        return table
    width, family = int(name[-1]), HashFamily.seeded(seed, entries, memory_dim)
    for group, segments in enumerate(groups):
        if granularity == "token":
            for tokens in segments:
                table[group, family.addresses(shingle_ids(tokens, range(-1, len(tokens) - 1), width))] = True
        else:
            shingles = shingle_set(segments, width)
            least = mix64(shingles[None, :] ^ family.keys[:, None]).min(axis=1)
            table[group, family.slots(least)] = True
    return table


def plain_jaccard(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]], width: int) -> float:
    """Jaccard similarity of the sets of shingles."""
    sets = [set(shingle_set(segments, width).tolist()) for segments in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])
