"""A step's texts are cut into forward passes with as little padding as pays."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.batches import length_groups, similar_lengths


def _cost(lengths: list[int], groups: list[list[int]], pass_tokens: float) -> float:
    return sum(len(group) * max(lengths[i] for i in group) + pass_tokens for group in groups)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.floats(0, 200))
def test_no_other_cut_of_the_sorted_texts_costs_less(lengths, pass_tokens):
    groups = length_groups(lengths, pass_tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    inner = range(1, len(order))
    every = [
        [order[a:b] for a, b in zip((0, *cuts), (*cuts, len(order)), strict=True)]
        for count in range(len(order)) for cuts in combinations(inner, count)
    ]
    best = min(_cost(lengths, cut, pass_tokens) for cut in every)
    assert _cost(lengths, groups, pass_tokens) == pytest.approx(best)


def test_free_passes_leave_no_padding_and_dear_ones_make_one_batch():
    assert length_groups([5, 9, 5, 7], 0) == [[0, 2], [3], [1]]
    assert length_groups([5, 9, 5, 7], 100) == [[0, 2, 3, 1]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200), st.floats(0, 60))
def test_batches_of_many_texts_keep_to_their_budget_and_to_the_padding_that_pays(lengths, max_tokens, pass_tokens):
    groups = similar_lengths(lengths, max_tokens, pass_tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        widest = max(lengths[i] for i in group)
        assert len(group) == 1 or len(group) * widest <= max_tokens
        assert len(group) * widest - sum(lengths[i] for i in group) <= pass_tokens
