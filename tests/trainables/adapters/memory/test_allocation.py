from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.adapters.memory import shingles
from trainables.adapters.memory.allocation import build_allocation, partition_sizes, stack_masks
from trainables.errors import ConfigError
from trainables.lm.token_tree import TokenTree

Pages = Callable[..., list[list[list[int]]]]
NAMES = ["random", "partitioned", "simset1", "simset2", "simset3"]
LENGTHS = st.lists(st.integers(1, 3000), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(lengths=LENGTHS, spare=st.integers(0, 5000))
def test_partition_sizes_are_proportional_and_use_every_entry(lengths: list[int], spare: int) -> None:
    memory_dim = len(lengths) + spare
    sizes = partition_sizes(lengths, memory_dim)
    assert sum(sizes) == memory_dim and min(sizes) >= 1
    # Where every share is at least one, no group is a whole entry away from its share.
    shares = [memory_dim * length / sum(lengths) for length in lengths]
    if min(shares) >= 1:
        assert all(abs(size - share) < 1 for size, share in zip(sizes, shares, strict=True))
    by_length = sorted(zip(lengths, sizes, strict=True))
    assert all(one[1] <= other[1] for one, other in zip(by_length, by_length[1:], strict=False) if one[0] < other[0])


def test_partition_gives_the_largest_remainders_the_last_entries() -> None:
    assert partition_sizes([5, 3, 2], 10) == [5, 3, 2]
    assert partition_sizes([10, 10, 10], 4) == [2, 1, 1]
    assert partition_sizes([26, 39, 35], 10) == [3, 4, 3]
    assert partition_sizes([1000, 1, 1], 10) == [8, 1, 1]


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, spare=st.integers(0, 300))
def test_partitioned_sets_are_disjoint_contiguous_and_cover_the_memory(lengths: list[int], spare: int) -> None:
    groups = [[[0] * length] for length in lengths]
    memory_dim = len(lengths) + spare
    allocation = build_allocation("partitioned", "dim", groups, memory_dim)
    together = np.concatenate([allocation.entries(g) for g in range(len(groups))])
    assert together.tolist() == list(range(memory_dim))


def test_random_gives_as_many_entries_as_partitioned_but_overlapping(pages: Pages) -> None:
    groups = pages(12)
    partitioned = build_allocation("partitioned", "dim", groups, 200)
    tables = [build_allocation("random", "dim", groups, 200, seed).table for seed in (0, 0, 1)]
    assert np.array_equal(tables[0].sum(axis=1), partitioned.table.sum(axis=1))
    assert np.array_equal(tables[0], tables[1]) and not np.array_equal(tables[0], tables[2])
    assert tables[0].sum(axis=0).max() > 1


def test_random_entries_are_evenly_spread() -> None:
    groups = [[[0] * 10]] * 400
    load = np.sum([build_allocation("random", "dim", groups, 400, s).table.sum(0) for s in range(10)], 0)
    # 4,000 draws of one entry each over 400 entries: chi-square of mean 399, standard deviation 28.
    assert abs(((load - 10) ** 2 / 10).sum() - 399) < 5 * 28


@pytest.mark.parametrize("name", ["random", "partitioned"])
def test_fewer_entries_than_groups_is_refused_with_both_numbers(name: str, pages: Pages) -> None:
    with pytest.raises(ConfigError, match="memory_dim is 9 and there are 10 groups"):
        build_allocation(name, "dim", pages(10), 9)
    assert build_allocation("simset1", "dim", pages(10), 9).entries_per_group == 1


def test_unknown_names_and_empty_groups_are_refused(pages: Pages) -> None:
    with pytest.raises(ConfigError, match="did you mean 'simset2'"):
        build_allocation("simset_2", "dim", pages(2), 16)
    with pytest.raises(ConfigError, match="group 1 has no tokens"):
        build_allocation("simset1", "dim", [[[1, 2]], [[]]], 16)


def test_none_has_no_mask_and_every_entry(pages: Pages) -> None:
    allocation = build_allocation("none", "dim", pages(3), 16)
    assert allocation.mask([0], [TokenTree.chain([1, 2])]) is None
    assert allocation.entries(2).tolist() == list(range(16))


@pytest.mark.parametrize("name", NAMES)
def test_dim_mask_is_the_set_of_each_texts_group(name: str, pages: Pages) -> None:
    groups = pages(5)
    allocation = build_allocation(name, "dim", groups, 40, mem_seed=3)
    trees = [TokenTree.chain(groups[g][0]) for g in (4, 0, 4)]
    mask = allocation.mask([4, 0, 4], trees)
    lengths = [len(tree) for tree in trees]
    assert mask is not None and mask.dtype == torch.bool and mask.shape == (sum(lengths), 40)
    for tokens, group in zip(mask.split(lengths), (4, 0, 4), strict=True):
        for token in tokens:
            assert token.nonzero().flatten().tolist() == allocation.entries(group).tolist()


def test_entries_per_group_defaults_to_the_mean_of_partitioned(pages: Pages) -> None:
    groups = pages(10)
    assert build_allocation("simset1", "dim", groups, 64).entries_per_group == 6
    chosen = build_allocation("simset1", "dim", groups, 64, entries_per_group=3)
    assert chosen.entries_per_group == 3 and chosen.table.sum(axis=1).max() <= 3


@pytest.mark.parametrize("functions", [4, 100])
def test_equal_shingles_address_equal_entries_whatever_the_document(functions: int) -> None:
    groups = [[[5, 6, 7, 8]], [[9, 6, 7, 1]]]
    allocation = build_allocation("simset2", "token", groups, 4096, entries_per_group=functions)
    trees = [TokenTree.chain(groups[0][0]), TokenTree.chain(groups[1][0])]
    both = allocation.mask([0, 1], trees)
    assert both is not None and both.shape == (8, 4096)
    mask = both.view(2, 4, 4096)
    assert torch.equal(mask[0, 2], mask[1, 2])  # (6, 7) in both
    for position in (0, 1, 3):
        assert not torch.equal(mask[0, position], mask[1, position])
    unseen = allocation.mask([0], [TokenTree.chain([1, 1, 6, 7])])
    assert unseen is not None and torch.equal(unseen[3], mask[0, 2])
    again = allocation.mask([1, 0], trees[::-1])  # from the kept rows, in another order
    assert again is not None and torch.equal(again.view(2, 4, 4096).flip(0), mask)


def test_first_tokens_use_the_shorter_shingle_and_trees_their_own_path() -> None:
    allocation = build_allocation("simset3", "token", [[[5, 6, 7, 8]]], 4096, entries_per_group=8)
    chain = allocation.mask([0], [TokenTree.chain([5, 6, 7, 8])])
    tree = allocation.mask([0], [TokenTree((5, 6, 9, 7, 8), (-1, 0, 1, 1, 3))])
    assert chain is not None and tree is not None
    assert torch.equal(tree[[0, 1, 3, 4]], chain)
    alone = allocation.mask([0], [TokenTree.chain([5])])
    assert alone is not None and torch.equal(alone[0], chain[0])


def test_token_entries_of_a_group_are_those_of_its_tokens(pages: Pages) -> None:
    groups = pages(3)
    allocation = build_allocation("simset2", "token", groups, 512)
    for group, segments in enumerate(groups):
        used = np.zeros(512, dtype=bool)
        for tokens in segments:
            mask = allocation.mask([group], [TokenTree.chain(tokens)])
            assert mask is not None and 1 <= mask.sum(-1).min() <= mask.sum(-1).max() <= 171
            used |= mask.any(0).numpy()
        assert used.nonzero()[0].tolist() == allocation.entries(group).tolist()


def test_granularity_matters_for_simset_only(pages: Pages) -> None:
    groups = pages(4)
    for name in ("none", "random", "partitioned"):
        one, other = (build_allocation(name, granularity, groups, 32) for granularity in ("dim", "token"))
        assert np.array_equal(one.table, other.table) and other.granularity == "dim"


def test_masks_of_members_are_stacked_with_all_entries_for_those_without() -> None:
    one, other = torch.rand(2, 5, 6) < 0.5
    stacked = stack_masks([one, None, other], one.shape[1])
    assert stacked is not None and stacked.shape == (3, 5, 6)
    assert torch.equal(stacked[0], one) and stacked[1].all()
    assert torch.equal(stacked[2], other)
    same = stack_masks([one, one], one.shape[1])
    assert same is not None and same.shape == (1, 5, 6) and same.data_ptr() == one.data_ptr()
    assert stack_masks([None, None], 4) is None


FEW_TEXTS = [[[1, 2, 3, 4, 5], [6, 7]], [[1, 2, 3, 9]], [[20, 21, 22, 23, 24, 25]]]


def test_simset_entries_stay_as_they_are() -> None:
    # A change of these numbers makes trials incomparable with those already recorded.
    allocation = build_allocation("simset2", "dim", FEW_TEXTS, 64, mem_seed=11, entries_per_group=6)
    assert allocation.signatures is not None
    assert allocation.signatures.tolist() == [
        [63, 21, 43, 12, 49, 13],
        [37, 44, 43, 12, 49, 43],
        [56, 45, 0, 35, 38, 13],
    ]
    assert build_allocation("random", "dim", FEW_TEXTS, 8, mem_seed=11).entries(0).tolist() == [1, 5, 6]


def test_allocations_are_the_same_in_another_process() -> None:
    script = f"""
from trainables.adapters.memory import shingles
from trainables.adapters.memory.allocation import build_allocation
for name in {NAMES}:
    for granularity in ("dim", "token"):
        print(build_allocation(name, granularity, {FEW_TEXTS}, 64, mem_seed=11).entries(1).tolist())
"""
    source = Path(sys.modules[build_allocation.__module__].__file__ or "").parents[3]
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    expected = [
        str(build_allocation(name, granularity, FEW_TEXTS, 64, mem_seed=11).entries(1).tolist())
        for name in NAMES
        for granularity in ("dim", "token")
    ]
    assert output.split("\n")[:-1] == expected


def test_a_shingle_is_hashed_once_a_function_and_a_token_once_for_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    mix64 = shingles.mix64
    monkeypatch.setattr(shingles, "mix64", lambda values: hashed.append(values.size) or mix64(values))
    rng = np.random.default_rng(0)
    groups = [[rng.zipf(1.3, 256).clip(max=30_000).tolist() for _ in range(4)] for _ in range(50)]
    tokens, functions, width = 50 * 4 * 256, 4, 3
    build_allocation("simset3", "dim", groups, 50 * functions)
    assert sum(hashed) <= tokens * (1 + width + functions) + 50 * functions + 1000  # ids, functions, slots, keys
    token = build_allocation("simset2", "token", groups[:2], 4096)
    trees = [TokenTree.chain(segment) for segment in groups[0]]
    first = token.mask([0] * 4, trees)
    hashed.clear()
    assert torch.equal(token.mask([0] * 4, trees), first) and hashed == []
