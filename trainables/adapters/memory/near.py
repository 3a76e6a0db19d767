"""Which groups are near each other, found by locality-sensitive hashing: no pair is looked at that shares no bucket.

Each group gets a sketch: its shingles' hashes fall into `BINS` bins, and the least of each bin is kept (one-permutation
MinHash; an empty bin takes the value of the next that is not: Shrivastava and Li 2014). Two groups agree in a bin with
the probability of their Jaccard similarity J, at one hash for each shingle instead of one for each bin. `ROWS` bins
side by side are a band; groups that agree in a whole band share a bucket, so that a pair is found with probability
`1 - (1 - J**ROWS)**BANDS`: 0.06 at J = 0.5, 0.61 at 0.7, 0.95 at 0.8.

By our own arrays rather than datasketch, whose buckets hold a Python object for each group and band: sixteen million
for a million groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.grouped_tokens import Block, GroupedTokens
from trainables.adapters.memory.shingles import U64, distinct, mix64, seeded_keys

BANDS, ROWS = 16, 8
BINS = BANDS * ROWS
NEIGHBOURS = 16
"""Groups that each is paired with in a bucket, those next in order: a bucket of many would else be quadratic (ours)."""
_EMPTY = np.uint32(2**32 - 1)
_BIN_BITS, _VALUE_BITS = np.uint64(57), np.uint64(25)  # the upper 7 bits name the bin, the next 32 are the value


def found_with(jaccard: float) -> float:
    """Return the probability that a pair of this similarity shares a bucket."""
    return float(1 - (1 - jaccard**ROWS) ** BANDS)


def sketches_of(grouped: GroupedTokens, width: int) -> NDArray[np.uint32]:
    """Return the sketch of every group, `[groups, BINS]`; of one without tokens all values are the largest number.

    Args:
        grouped: documents in groups.
        width: tokens per shingle.
    """
    key = seeded_keys(0, 5, 1)

    def least(block: Block) -> NDArray[np.uint32]:
        shingles, row = block.shingles(width)
        hashes = mix64(shingles ^ key)
        found = np.full(block.num_groups * BINS, _EMPTY)
        place = row * BINS + (hashes >> _BIN_BITS).astype(np.int64)
        np.minimum.at(found, place, (hashes >> _VALUE_BITS).astype(np.uint32))
        return found.reshape(-1, BINS)

    sketches = np.empty((grouped.num_groups, BINS), dtype=np.uint32)
    for first, rows in grouped.rows(least, np.minimum):
        sketches[first : first + len(rows)] = filled(rows)
    return sketches


def filled(sketches: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return sketches whose empty bins have the value of the next that is not empty, counted round."""
    twice = np.concatenate([sketches, sketches], axis=1)
    place = np.where(twice != _EMPTY, np.arange(2 * BINS), 2 * BINS - 1)
    following = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1][:, :BINS]
    return np.take_along_axis(twice, following, axis=1)


def near_pairs(
    sketches: NDArray[np.uint32], has_tokens: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs that share a bucket: `left < right`, ascending.

    Args:
        sketches: of every group.
        has_tokens: `[groups]`; one without is near none.
    """
    count = len(sketches)
    found = []
    for band in range(BANDS):
        buckets = _buckets(sketches[:, band * ROWS : (band + 1) * ROWS])
        found.append(_within(buckets, has_tokens))
    codes = distinct(np.concatenate(found))
    return codes // count, codes % count


def _buckets(part: NDArray[np.uint32]) -> U64:
    """Return one number for the values of a band, `[groups]`."""
    found = np.zeros(len(part), dtype=np.uint64)
    for column in part.T:
        found = mix64(found + column + np.uint64(1))
    return found


def _within(buckets: U64, has_tokens: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the pairs within buckets as `left * groups + right`."""
    order = np.argsort(buckets, kind="stable")
    order = order[has_tokens[order]]
    found = [np.zeros(0, dtype=np.int64)]
    for step in range(1, NEIGHBOURS + 1):
        left, right = order[:-step], order[step:]
        together = buckets[left] == buckets[right]
        if not together.any():
            break
        found.append(left[together] * len(buckets) + right[together])
    return np.concatenate(found)
