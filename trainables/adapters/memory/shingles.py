"""Shingles of tokens as 64-bit numbers, a seeded family of hash functions over them, and exact Jaccard.

All arithmetic is on unsigned 64-bit integers, so results are the same on every machine, process and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
Numbers = Sequence[int] | NDArray[np.integer[Any]]

Number = TypeVar("Number", bound=np.generic)

_WEYL = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_HALF = np.uint64(32)
_BLOCK = 1 << 16  # hashes at a time: half a megabyte stays in the processor's cache


def mix64(values: U64) -> U64:
    """Scramble 64-bit numbers, one to one: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    mixed: U64 = values ^ (values >> _SHIFTS[0])
    mixed *= _MULTIPLIERS[0]
    mixed ^= mixed >> _SHIFTS[1]
    mixed *= _MULTIPLIERS[1]
    mixed ^= mixed >> _SHIFTS[2]
    return mixed


def seeded_keys(seed: int, purpose: int, count: int) -> U64:
    """Return `count` independent 64-bit keys, `[count]`: the SplitMix64 stream of (seed, purpose)."""
    start = mix64(mix64(np.array([seed % 2**64], dtype=np.uint64)) + np.uint64(purpose))
    return mix64(start + _WEYL * np.arange(1, count + 1, dtype=np.uint64))


def scale_to(values: U64, size: int) -> NDArray[np.int64]:
    """Map scrambled 64-bit numbers evenly onto 0 … size - 1 (size below 2**32), by their upper halves."""
    scaled: U64 = ((values >> _HALF) * np.uint64(size)) >> _HALF
    return scaled.astype(np.int64)


def shingle_ids(tokens: Numbers, parents: Numbers, width: int) -> U64:
    """Return the id of the shingle that ends at each node of a token tree.

    The shingle is the node's token and its `width - 1` ancestors; nearer the root it is shorter. Its id
    depends on these tokens only, so equal shingles have equal ids wherever they stand. (Different shingles
    share an id with probability 2**-64.)

    Args:
        tokens: `[S]` token ids.
        parents: `[S]` index of each node's parent, -1 for a root.
        width: Tokens per shingle.

    Returns:
        `[S]` uint64.
    """
    words = mix64(np.asarray(tokens, dtype=np.uint64) + _WEYL)
    up = np.asarray(parents, dtype=np.int64)
    lineage = [np.arange(len(words))]
    for _ in range(width - 1):
        lineage.append(np.where(lineage[-1] >= 0, up[lineage[-1]], -1))
    ids = np.zeros(len(words), dtype=np.uint64)
    for ancestor in reversed(lineage):
        ids = np.where(ancestor >= 0, mix64(ids * _MULTIPLIERS[0] + words[ancestor]), ids)
    return ids


def text_shingle_ids(tokens: Numbers, position: NDArray[np.int64], width: int) -> U64:
    """Return the same of texts that stand one after the other, without looking anything up.

    Args:
        tokens: `[S]` token ids.
        position: `[S]` place of each token in its text.
        width: Tokens per shingle.
    """
    words = mix64(np.asarray(tokens, dtype=np.uint64) + _WEYL)
    ids = np.zeros(len(words), dtype=np.uint64)
    for back in range(width - 1, 0, -1):
        longer = mix64(ids[back:] * _MULTIPLIERS[0] + words[:-back])
        ids[back:] = np.where(position[back:] >= back, longer, ids[back:])
    return mix64(ids * _MULTIPLIERS[0] + words)


def shingle_set(segments: Sequence[Numbers], width: int) -> U64:
    """Return the ids of all different shingles of some segments, sorted.

    Shingles do not span segments; a segment shorter than `width` counts as one shingle (ours).
    """
    lengths = np.array([len(segment) for segment in segments], dtype=np.int64)
    tokens = np.concatenate([np.asarray(segment, dtype=np.int64) for segment in segments])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.arange(len(tokens)) - starts
    ids = text_shingle_ids(tokens, position, width)
    is_last = position == np.repeat(lengths, lengths) - 1
    return distinct(ids[(position >= width - 1) | is_last])


def distinct(values: NDArray[Number]) -> NDArray[Number]:
    """Return different numbers, ascending: `numpy.unique` by sorting, in a fraction of the time of its hash table."""
    ordered = np.sort(values)
    is_new = np.ones(len(ordered), dtype=np.bool_)
    is_new[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_new]


@dataclass(frozen=True)
class HashFamily:
    """SimSet's n hash functions and, for each, a random map of hash values onto memory entries.

    Attributes:
        keys: `[n]` one key per hash function.
        slot_keys: `[n]` one key per map onto entries (`slot_i` of the definition).
        memory_dim: Number of entries that the maps reach.
    """

    keys: U64
    slot_keys: U64
    memory_dim: int

    @classmethod
    def seeded(cls, seed: int, count: int, memory_dim: int) -> HashFamily:
        """Return the family of `count` functions that belongs to a seed."""
        return cls(seeded_keys(seed, 1, count), seeded_keys(seed, 2, count), memory_dim)

    def signature(self, shingles: U64) -> NDArray[np.int64]:
        """Return `slot_i(min over shingles s of hash_i(s))` for every i, `[n]` (MinHash, Broder 1997)."""
        return self.slots(self.minima(shingles, np.zeros(1, dtype=np.int64))[0])

    def minima(self, shingles: U64, starts: NDArray[np.int64]) -> U64:
        """Return the least hash of some sets, `[sets, n]`; one that has a shingle twice has the same.

        Args:
            shingles: the sets' shingles, set after set.
            starts: where each set begins, none of them empty.
        """
        found = np.empty((len(starts), len(self.keys)), dtype=np.uint64)
        for place, key in enumerate(self.keys):
            found[:, place] = np.minimum.reduceat(mix64(shingles ^ key), starts)
        return found

    def addresses(self, shingles: U64) -> NDArray[np.int64]:
        """Return `slot_i(hash_i(s))` for every shingle s and every i, `[len(shingles), n]`."""
        found = np.empty((len(shingles), len(self.keys)), dtype=np.int64)
        rows = max(1, _BLOCK // len(self.keys))
        for start in range(0, len(shingles), rows):
            block = shingles[start : start + rows, None]
            found[start : start + rows] = self.slots(mix64(block ^ self.keys))
        return found

    def slots(self, hashes: U64) -> NDArray[np.int64]:
        """Return the entry to which each function maps a hash: `[..., n]`."""
        return scale_to(mix64(hashes ^ self.slot_keys), self.memory_dim)


def jaccard_matrix(sets: Sequence[NDArray[np.generic]]) -> NDArray[np.float64]:
    """Return the exact Jaccard similarity of every pair of sets, `[len(sets), len(sets)]`.

    Args:
        sets: Arrays of different members each. Two empty sets have similarity 1.
    """
    from scipy.sparse import csr_array

    sizes = np.array([len(members) for members in sets], dtype=np.int64)
    _, columns = np.unique(np.concatenate(sets), return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    shape = (len(sets), int(columns.max(initial=0)) + 1)
    incidence = csr_array((np.ones(len(columns), dtype=np.int64), columns, offsets), shape=shape)
    shared = (incidence @ incidence.T).toarray()
    union = sizes[:, None] + sizes[None, :] - shared
    return np.where(union > 0, shared / np.maximum(union, 1), 1.0)
