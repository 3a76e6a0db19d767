"""Token trees hold every text, share beginnings, and mask attention to ancestors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.lm.token_tree import TokenTree, build_trees, collate

texts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=9), min_size=1, max_size=12)


def random_tree(choices: list[int]) -> TokenTree:
    parents = tuple(choice % (node + 1) - 1 for node, choice in enumerate(choices))
    return TokenTree(tuple(range(len(choices))), parents)


trees = st.lists(st.integers(0, 100), min_size=1, max_size=15).map(random_tree)


@given(texts, st.integers(1, 30))
def test_every_text_is_the_path_to_its_end(sequences: list[list[int]], max_tokens: int) -> None:
    made, ends = build_trees(sequences, max_tokens)
    for sequence, (tree, node) in zip(sequences, ends, strict=True):
        assert [made[tree].tokens[i] for i in made[tree].path(node)] == sequence
        assert made[tree].positions[node] == len(sequence) - 1


@given(texts, st.integers(1, 30))
def test_a_tree_keeps_its_limit_unless_one_text_exceeds_it(sequences: list[list[int]], limit: int) -> None:
    made, ends = build_trees(sequences, limit)
    for index, tree in enumerate(made):
        lengths = [len(s) for s, (where, _) in zip(sequences, ends, strict=True) if where == index]
        assert len(tree) <= max(limit, max(lengths))
        assert len(set(zip(tree.tokens, tree.parents, strict=True))) == len(tree), "a node is there twice"


@given(st.lists(trees, min_size=1, max_size=4))
def test_a_token_sees_itself_and_its_ancestors_only(batch_trees: list[TokenTree]) -> None:
    batch = collate(batch_trees)
    size = batch.tokens.shape[1]
    if batch.attention_mask is None:
        assert all(tree.is_chain for tree in batch_trees)
        return
    for tree, mask in zip(batch_trees, batch.attention_mask[:, 0], strict=True):
        for node in range(size):
            seen = tree.path(node) if node < len(tree) else [node]
            assert torch.nonzero(mask[node]).flatten().tolist() == seen


def test_plain_texts_need_no_mask() -> None:
    batch = collate([TokenTree.chain([5, 6, 7]), TokenTree.chain([8])])
    assert batch.attention_mask is None
    assert batch.tokens.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert batch.lengths.tolist() == [3, 1]


@given(trees)
def test_positions_are_depths(tree: TokenTree) -> None:
    assert tree.positions.tolist() == [len(tree.path(node)) - 1 for node in range(len(tree))]
    assert tree.is_chain == (tree.positions.tolist() == list(range(len(tree))))


def test_the_digest_names_the_content() -> None:
    assert TokenTree.chain([1, 2, 3]).digest() == TokenTree((1, 2, 3), (-1, 0, 1)).digest()
    different = [TokenTree.chain([1, 2, 3]), TokenTree((1, 2, 3), (-1, 0, 0)), TokenTree.chain([1, 2, 4])]
    assert len({tree.digest() for tree in different}) == 3


@pytest.mark.parametrize(("tokens", "parents"), [((), ()), ((1, 2), (-1,)), ((1,), (0,)), ((1, 2), (-1, -2))])
def test_a_child_before_its_parent_is_refused(tokens: tuple[int, ...], parents: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="parent"):
        TokenTree(tokens, parents)


def test_empty_input_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        build_trees([[1], []], 8)
    with pytest.raises(ValueError, match="no trees"):
        collate([])


def test_intervals_of_a_chain_are_those_of_the_walk() -> None:
    chain = TokenTree.chain([1, 2, 3])
    assert np.array_equal(chain.intervals, [[0, 1, 2], [3, 3, 3]])
