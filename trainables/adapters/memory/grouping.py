"""Grouping of documents: similar documents may share one allocation (notes 001, 002: `num_clusters`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.linkage import complete_linkage, renumbered
from trainables.adapters.memory.near import near_pairs, sketches_of
from trainables.adapters.memory.setting import ALL_PAIRS
from trainables.adapters.memory.shingles import distinct, jaccard_matrix, mix64
from trainables.errors import ConfigError
from trainables.lm.corpus_tokens import CorpusTokens, Ints
from trainables.node.map_batches import MapBatches, map_here

_PAIR_TOKENS = 1 << 22
_ORDERING_BINS = 8


def group_documents(documents_tokens: Sequence[Sequence[int] | Ints], num_clusters: int) -> list[int]:
    """Return the group of each document, 0 … num_clusters - 1, numbered in order of first appearance.

    As many groups as documents: each its own. Fewer: agglomerative clustering with complete linkage over the
    exact Jaccard distance of the documents' sets of tokens (ours; the notes name the number only).

    Args:
        documents_tokens: Token ids of each document.
        num_clusters: Number of groups, 1 … number of documents.

    Raises:
        ConfigError: `num_clusters` is out of range.
    """
    num_documents = len(documents_tokens)
    _check_number(num_clusters, num_documents)
    if num_clusters == num_documents:
        return list(range(num_documents))
    from sklearn.cluster import AgglomerativeClustering

    distance = 1.0 - jaccard_matrix([np.unique(np.asarray(tokens)) for tokens in documents_tokens])
    clustering = AgglomerativeClustering(n_clusters=num_clusters, metric="precomputed", linkage="complete")
    labels: list[int] = clustering.fit_predict(distance).tolist()
    numbered: list[int] = renumbered(np.asarray(labels)).tolist()
    return numbered


@dataclass(frozen=True)
class NearGroups:
    """Groups made of near documents.

    Attributes:
        groups: `[documents]` the group of each, numbered in order of first appearance.
        near_pairs: pairs of documents that were compared.
        by_similarity: groups there were when no two were near any more; joined further by the order of their sketches
            where that is more than were asked for.
    """

    groups: NDArray[np.int64]
    near_pairs: int
    by_similarity: int


def group_near_documents(corpus: CorpusTokens, num_clusters: int, map_batches: MapBatches = map_here) -> NearGroups:
    """Group documents in time linear in their number (ours): complete linkage as `group_documents`, over near pairs.

    Pairs that share no bucket of locality-sensitive hashing (`near`) count as having nothing in common. Where more
    groups than asked for are left, and in no two of them all documents are near each other, they are put in order of
    their sketches, so that groups stand together that have a token in common, and neighbours are joined. Up to
    `ALL_PAIRS` documents it is `group_documents` itself.

    Args:
        corpus: The documents' tokens.
        num_clusters: Number of groups, 1 … number of documents.
        map_batches: Where the sketches are made.

    Raises:
        ConfigError: `num_clusters` is out of range.
    """
    count = len(corpus)
    _check_number(num_clusters, count)
    if num_clusters == count:
        return NearGroups(np.arange(count), 0, count)
    if count <= ALL_PAIRS:
        exact = group_documents([corpus.document(d) for d in range(count)], num_clusters)
        return NearGroups(np.asarray(exact), count * (count - 1) // 2, num_clusters)
    sketches = sketches_of(GroupedTokens(corpus, None, map_batches), width=1)
    same = _equal_documents(corpus, sketches)
    chosen = np.unique(same, return_index=True)[1]
    order, has_tokens = sketches[:, :_ORDERING_BINS].copy(), corpus.lengths() > 0
    if len(chosen) < count:
        sketches = sketches[chosen]
    left, right = near_pairs(sketches, has_tokens[chosen])
    del sketches
    compared = len(left)
    similarity = jaccard_of_pairs(corpus, chosen[left], chosen[right])
    alike = similarity > 0
    wanted = min(num_clusters, len(chosen))
    groups = complete_linkage(len(chosen), left[alike], right[alike], similarity[alike], wanted)[same]
    by_similarity = int(groups.max()) + 1
    if by_similarity > num_clusters:
        groups = _joined_in_order(order, groups, num_clusters)
    elif by_similarity < num_clusters:
        groups = _split_equal(groups, num_clusters)
    return NearGroups(renumbered(groups), compared, by_similarity)


def jaccard_of_pairs(corpus: CorpusTokens, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the exact Jaccard similarity of the token sets of some pairs of documents, `[pairs]`."""
    lengths = corpus.lengths()
    ends = np.cumsum(lengths[left] + lengths[right])
    found = np.zeros(len(left))
    start, before = 0, 0
    while start < len(left):
        end = max(start + 1, int(np.searchsorted(ends, before + _PAIR_TOKENS, side="right")))
        one, other = (_keyed(corpus, side[start:end]) for side in (left, right))
        number = end - start
        sizes = [
            np.bincount(keys >> 32, minlength=number) for keys in (one, other, distinct(np.concatenate([one, other])))
        ]
        found[start:end] = (sizes[0] + sizes[1] - sizes[2]) / np.maximum(sizes[2], 1)
        start, before = end, int(ends[end - 1])
    return found


def _keyed(corpus: CorpusTokens, documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the different tokens of each document, with its place before them: `place * 2**32 + token`, ascending."""
    part = corpus.take(documents)
    places = np.repeat(np.arange(len(documents)), part.lengths())
    return distinct((places << 32) + part.tokens[:])


def _equal_documents(corpus: CorpusTokens, sketches: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return a number for every document, the same for those that have the same set of tokens."""
    code = np.zeros(len(sketches), dtype=np.uint64)
    for column in sketches.T:
        code = mix64(code + column)
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    like = first[place]
    others = np.flatnonzero((like != np.arange(len(like))) & (corpus.lengths() > 0))
    differ = others[jaccard_of_pairs(corpus, like[others], others) < 1.0]
    like[differ] = differ
    return renumbered(like)


def _joined_in_order(sketches: NDArray[np.uint32], groups: Ints, num_clusters: int) -> NDArray[np.int64]:
    """Join groups that stand next to each other in the order of their sketches, as many to each."""
    by_group = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[by_group], prepend=-1))
    unions = np.minimum.reduceat(sketches[by_group], starts, axis=0)
    order: NDArray[np.int64] = np.lexsort(unions.T[::-1])
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    found: NDArray[np.int64] = (rank * num_clusters // len(order))[groups]
    return found


def _split_equal(groups: Ints, num_clusters: int) -> NDArray[np.int64]:
    """Divide groups of equal documents until there are enough: those that come last get a group of their own."""
    split = groups.astype(np.int64)
    first = np.unique(groups, return_index=True)[1]
    repeated = np.setdiff1d(np.arange(len(groups)), first)
    missing = num_clusters - len(first)
    split[repeated[len(repeated) - missing :]] = len(first) + np.arange(missing)
    return split


def _check_number(num_clusters: int, num_documents: int) -> None:
    if not 1 <= num_clusters <= num_documents:
        raise ConfigError(
            f"num_clusters is {num_clusters} but there are {num_documents} documents: choose 1 to {num_documents}"
        )
