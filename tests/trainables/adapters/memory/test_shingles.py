from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.adapters.memory.shingles import (
    HashFamily,
    jaccard_matrix,
    mix64,
    scale_to,
    seeded_keys,
    shingle_ids,
    shingle_set,
    text_shingle_ids,
)

TOKENS = st.lists(st.integers(0, 5), min_size=1, max_size=30)


def chain(tokens: list[int]) -> list[int]:
    return list(range(-1, len(tokens) - 1))


def test_mix64_is_the_published_finaliser_of_splitmix64() -> None:
    # First outputs of the published generator for seed 1234567, whose state grows by the golden gamma.
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    states = np.array([(1234567 + i * golden) & mask for i in (1, 2, 3)], dtype=np.uint64)
    assert mix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=100, deadline=None)
@given(tokens=TOKENS, width=st.integers(1, 4))
def test_ids_are_equal_exactly_where_the_shingles_are(tokens: list[int], width: int) -> None:
    ids = shingle_ids(tokens, chain(tokens), width).tolist()
    shingles = [tuple(tokens[max(0, end - width + 1) : end + 1]) for end in range(len(tokens))]
    for i, one in enumerate(shingles):
        for j, other in enumerate(shingles):
            assert (ids[i] == ids[j]) == (one == other)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(TOKENS, max_size=5), width=st.integers(1, 6))
def test_ids_in_texts_one_after_the_other_are_those_of_each_text(texts: list[list[int]], width: int) -> None:
    tokens = [token for text in texts for token in text]
    position = np.array([place for text in texts for place in range(len(text))], dtype=np.int64)
    expected = [int(found) for text in texts for found in shingle_ids(text, chain(text), width)]
    assert text_shingle_ids(tokens, position, width).tolist() == expected


def test_a_shingle_in_a_tree_follows_the_path_to_the_root() -> None:
    #        0: a -> 1: b -> 2: c          and a second branch  1: b -> 3: d -> 4: c
    tokens, parents = [10, 11, 12, 13, 12], [-1, 0, 1, 1, 3]
    ids = shingle_ids(tokens, parents, 3)
    assert ids[[0, 1, 2]].tolist() == shingle_ids([10, 11, 12], [-1, 0, 1], 3).tolist()
    branch = shingle_ids([10, 11, 13, 12], [-1, 0, 1, 2], 3)
    assert ids[[0, 1, 3, 4]].tolist() == branch.tolist()


@settings(max_examples=100, deadline=None)
@given(segments=st.lists(TOKENS, min_size=1, max_size=4), width=st.integers(1, 3))
def test_a_set_holds_whole_shingles_and_none_spans_segments(segments: list[list[int]], width: int) -> None:
    expected: set[tuple[int, ...]] = set()
    for tokens in segments:
        starts = range(max(1, len(tokens) - width + 1))
        expected |= {tuple(tokens[start : start + width]) for start in starts}
    found = shingle_set(segments, width)
    ids = {int(shingle_ids(list(s), chain(list(s)), width)[-1]) for s in expected}
    assert set(found.tolist()) == ids and len(found) == len(ids)


def test_signature_and_addresses_follow_their_definition() -> None:
    family = HashFamily.seeded(3, 70, 50)
    shingles = mix64(np.arange(2000, dtype=np.uint64))
    hashes = mix64(shingles[:, None] ^ family.keys)
    slots = scale_to(mix64(hashes ^ family.slot_keys), 50)
    assert np.array_equal(family.addresses(shingles), slots)
    least = hashes.argmin(axis=0)
    assert np.array_equal(family.signature(shingles), slots[least, np.arange(70)])
    assert slots.min() == 0 and slots.max() == 49


def test_different_seeds_and_purposes_give_unrelated_keys() -> None:
    streams = [seeded_keys(seed, purpose, 100) for seed in (0, 1, 2) for purpose in (1, 2)]
    assert len(np.unique(np.concatenate(streams))) == 600


@settings(max_examples=50, deadline=None)
@given(sets=st.lists(st.sets(st.integers(0, 12)), min_size=2, max_size=6))
def test_jaccard_is_exact(sets: list[set[int]]) -> None:
    found = jaccard_matrix([np.array(sorted(s), dtype=np.uint64) for s in sets])
    for i, one in enumerate(sets):
        for j, other in enumerate(sets):
            union = one | other
            assert found[i, j] == (len(one & other) / len(union) if union else 1.0)
