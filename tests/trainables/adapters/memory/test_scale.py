"""What is done in blocks and for a few pairs gives what the plain way gives: every group, every pair."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from tests.trainables.adapters.memory.reference import plain_jaccard, plain_table
from trainables.adapters.memory import analysis, entry_lists, grouped_tokens, grouping
from trainables.adapters.memory.allocation import build_allocation
from trainables.adapters.memory.analysis import allocation_report, pairs_at
from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.grouping import group_documents, group_near_documents, jaccard_of_pairs
from trainables.adapters.memory.linkage import complete_linkage, renumbered
from trainables.adapters.memory.near import BINS, filled, found_with, near_pairs, sketches_of
from trainables.errors import ConfigError
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec

Documents = list[list[list[int]]]


def zipf_documents(count: int, tokens: int = 60, seed: int = 0) -> Documents:
    """Documents of uneven length in segments of 16 tokens at most."""
    rng = np.random.default_rng(seed)
    made = [rng.zipf(1.4, rng.integers(1, 2 * tokens)).clip(max=30_000).tolist() for _ in range(count)]
    return [[one[at : at + 16] for at in range(0, len(one), 16)] for one in made]


def families(count: int, members: int = 3, tokens: int = 200, changed: int = 4) -> tuple[Documents, np.ndarray]:
    """Families of documents that differ in a few tokens, shuffled; and the family of each."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        base = rng.zipf(1.4, tokens).clip(max=30_000)
        for _ in range(members):
            one = base.copy()
            one[rng.integers(0, tokens, changed)] = rng.integers(0, 30_000, changed)
            made.append([one.tolist()])
    order = rng.permutation(len(made))
    return [made[place] for place in order], order // members


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of so few tokens that every group of several documents lies in several of them."""
    monkeypatch.setattr(grouped_tokens, "BLOCK_TOKENS", 50)


@pytest.mark.parametrize("granularity", ["dim", "token"])
@pytest.mark.parametrize("name", ["random", "partitioned", "simset1", "simset2", "simset3"])
@pytest.mark.parametrize("kept_cells", [0, 1 << 24])
def test_entries_by_blocks_are_those_of_the_definition(small_blocks, name, granularity, kept_cells, monkeypatch):
    monkeypatch.setattr(entry_lists, "KEPT_CELLS", kept_cells)
    documents, groups = zipf_documents(40), np.random.default_rng(2).integers(0, 7, 40)
    groups = renumbered(groups)
    sequences = [[s for d, g in zip(documents, groups, strict=True) if g == group for s in d] for group in range(7)]
    for entries in (3, 100):
        allocation = build_allocation(
            name, granularity, GroupedTokens(CorpusTokens.of_documents(documents), groups), 64, 9, entries
        )
        plain = plain_table(name, granularity, sequences, 64, 9, entries)
        assert np.array_equal(allocation.table, plain)
        assert allocation.lists.sizes.tolist() == plain.sum(axis=1).tolist()
        assert allocation.lists.load(np.arange(7)).tolist() == plain.sum(axis=0).tolist()
        assert allocation.lists.load(np.array([1, 4])).tolist() == plain[[1, 4]].sum(axis=0).tolist()


@pytest.mark.parametrize("name", ["random", "simset2"])
def test_a_report_is_that_of_all_pairs_looked_up_in_a_table(small_blocks, name):
    documents = zipf_documents(80)
    allocation = build_allocation(name, "dim", documents, 256, 1, 16)
    report, table = allocation_report(allocation, documents), allocation.table
    everyone = list(combinations(range(80), 2))
    chosen = np.sort(np.random.default_rng(0).choice(len(everyone), analysis.MAX_PAIRS, replace=False))
    assert [(pair["left"], pair["right"]) for pair in report["pairs"]] == [everyone[place] for place in chosen]
    for pair in report["pairs"][::50]:
        one, other = pair["left"], pair["right"]
        assert pair["jaccard"] == plain_jaccard(documents[one], documents[other], allocation.shingle_width)
        assert pair["shared"] == (table[one] & table[other]).sum()
    assert report["load"] == table.sum(axis=0).tolist()


@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_pairs_are_found_by_their_place_without_making_all(count):
    left, right = np.triu_indices(count, k=1)
    one, other = pairs_at(count, np.arange(len(left)))
    assert np.array_equal(one, left) and np.array_equal(other, right)


def test_of_a_million_groups_the_last_pair_is_the_last():
    count = 10**6
    one, other = pairs_at(count, np.array([0, count - 2, count - 1, count * (count - 1) // 2 - 1]))
    assert one.tolist() == [0, 0, 1, count - 2] and other.tolist() == [1, count - 1, 2, count - 1]


def test_a_sample_says_how_far_it_may_be_off():
    """The interval holds the figure of all pairs, and is as narrow as 2,000 pairs make it."""
    documents, _ = families(30)
    allocation = build_allocation("simset1", "dim", documents, 1024, entries_per_group=16)
    report = allocation_report(allocation, documents)
    sampled, everyone = report["sampled"], list(combinations(range(90), 2))
    assert sampled["pairs"] == len(everyone)
    table = allocation.table
    shared = np.array([(table[a] & table[b]).sum() for a, b in everyone])
    overlap = [2 * s / (table[a].sum() + table[b].sum()) for s, (a, b) in zip(shared, everyone, strict=True)]
    jaccard = [plain_jaccard(documents[a], documents[b], 1) for a, b in everyone]
    low, high = sampled["correlation_interval"]
    assert low < np.corrcoef(jaccard, overlap)[0, 1] < high and high - low < 0.1
    low, high = sampled["unshared_interval"]
    assert low <= (shared == 0).mean() <= high and high - low < 0.05
    few = documents[:20]
    assert "sampled" not in allocation_report(build_allocation("simset1", "dim", few, 64), few)


def test_a_report_of_many_groups_tells_of_near_ones_and_simset_keeps_its_promise_there(monkeypatch):
    monkeypatch.setattr(analysis, "ALL_PAIRS", 100)
    documents, family = families(100)
    allocation = build_allocation("simset2", "dim", documents, 4096, 7, entries_per_group=64)
    report = allocation_report(allocation, documents)
    near = report["near"]
    together = [(one, other) for one, other in combinations(range(300), 2) if family[one] == family[other]]
    found = [(pair["left"], pair["right"]) for pair in near["pairs"]]
    assert near["found"] == len(found) and set(found) <= set(together) and len(found) > 0.9 * len(together)
    assert min(pair["jaccard"] for pair in near["pairs"]) > 0.6
    held = 0
    for seed in range(5):
        other = build_allocation("simset2", "dim", documents, 4096, seed, entries_per_group=64)
        low, high = allocation_report(other, documents)["near"]["beyond_expected_interval"]
        held += low < 0 < high and high - low < 0.1
    assert held >= 4  # 95 %
    broken = build_allocation("simset2", "dim", documents[::-1], 4096, 7, entries_per_group=64)
    low, high = allocation_report(broken, documents)["near"]["beyond_expected_interval"]
    assert high < -0.3  # sets of other documents: nothing is shared


def test_thinned_shingles_give_the_similarity_within_their_error(monkeypatch):
    documents, _ = families(10, tokens=2000, changed=300)
    allocation = build_allocation("partitioned", "dim", documents, 64)
    exact = allocation_report(allocation, documents)
    assert "jaccard_share" not in exact
    monkeypatch.setattr(analysis, "MAX_SHINGLES", 30 * 2000 // 3)
    thinned = allocation_report(allocation, documents)
    assert thinned["jaccard_share"] == 0.25
    for one, other in zip(exact["pairs"], thinned["pairs"], strict=True):
        # a quarter of some 500 to 1,500 shingles
        assert abs(one["jaccard"] - other["jaccard"]) < 4 * np.sqrt(0.25 / 125)


def test_load_is_counted_over_some_groups_where_drawing_all_would_be_quadratic(monkeypatch):
    documents = zipf_documents(60)
    whole = allocation_report(build_allocation("random", "dim", documents, 128), documents)
    monkeypatch.setattr(entry_lists, "KEPT_CELLS", 0)
    monkeypatch.setattr(analysis, "MAX_LOAD_GROUPS", 20)
    report = allocation_report(build_allocation("random", "dim", documents, 128), documents)
    assert report["load_groups"] == 20 and "load_groups" not in whole
    assert sum(whole["load"]) == 128 and 0 < sum(report["load"]) < 128
    assert report["pairs"] == whole["pairs"]


# Near documents.


def test_sketches_agree_as_often_as_sets_are_similar(small_blocks):
    documents, _ = families(25, tokens=400, changed=12)
    tokens = CorpusTokens.of_documents(documents)
    sketches = sketches_of(GroupedTokens(tokens), width=2)
    found, exact = [], []
    for one, other in combinations(range(75), 2):
        found.append((sketches[one] == sketches[other]).mean())
        exact.append(plain_jaccard(documents[one], documents[other], 2))
    beyond = np.array(found) - exact
    assert max(exact) > 0.5 and abs(beyond.mean()) < 0.01
    assert np.abs(beyond).max() < 5 * np.sqrt(0.25 / BINS)


def test_an_empty_bin_takes_the_value_of_the_next_counted_round():
    nothing = 2**32 - 1
    row = np.full((2, BINS), nothing, dtype=np.uint32)
    row[0, [2, 5]] = [7, 9]
    full = filled(row)
    assert full[0, :3].tolist() == [7, 7, 7] and full[0, 3:6].tolist() == [9, 9, 9]
    assert set(full[0, 6:].tolist()) == {7} and set(full[1].tolist()) == {nothing}


def test_pairs_are_found_as_often_as_is_said():
    documents, family = families(800, members=2, tokens=400, changed=9)
    tokens = CorpusTokens.of_documents(documents)
    left, right = near_pairs(sketches_of(GroupedTokens(tokens), 1), np.ones(len(tokens), dtype=bool))
    assert (left < right).all() and len({*zip(left.tolist(), right.tolist(), strict=True)}) == len(left)
    place = np.argsort(family, kind="stable").reshape(-1, 2)
    jaccard = jaccard_of_pairs(tokens, place[:, 0], place[:, 1])
    assert jaccard[:20].tolist() == [plain_jaccard(documents[a], documents[b], 1) for a, b in place[:20]]
    expected, found = sum(map(found_with, jaccard)), int((family[left] == family[right]).sum())
    assert 0.3 < expected / 800 < 0.99
    assert abs(found - expected) < 5 * np.sqrt(800 * 0.25)


def test_a_bucket_of_many_stays_linear_and_a_document_without_tokens_is_near_none():
    same: Documents = [[[1, 2, 3]]] * 500
    sketches = sketches_of(GroupedTokens(CorpusTokens.of_documents([*same, [], []])), 1)
    left, right = near_pairs(sketches, np.array([True] * 500 + [False] * 2))
    assert len(left) < 500 * 16 and right.max() == 499


@pytest.mark.parametrize("seed", range(20))
def test_linkage_over_all_pairs_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    left, right = np.triu_indices(count, k=1)
    similarity = rng.random(len(left))
    tree = linkage(1 - similarity, "complete")
    for clusters in range(1, count + 1):
        expected = renumbered(cut_tree(tree, n_clusters=clusters)[:, 0])
        assert np.array_equal(complete_linkage(count, left, right, similarity, clusters), expected)


def test_linkage_joins_no_clusters_of_which_a_pair_is_missing():
    left, right, similarity = np.array([0, 1, 3]), np.array([1, 2, 4]), np.array([0.9, 0.8, 0.1])
    assert complete_linkage(5, left, right, similarity, 1).tolist() == [0, 0, 1, 2, 2]
    square = squareform(1 - np.array([0.9, 0, 0, 0, 0.8, 0, 0, 0, 0, 0.1]))
    assert cut_tree(linkage(squareform(square), "complete"), n_clusters=3)[:, 0].tolist() == [0, 0, 1, 2, 2]


def test_near_groups_of_few_documents_are_those_of_all_pairs():
    documents = [[token for segment in one for token in segment] for one in zipf_documents(60)]
    tokens = CorpusTokens.of_documents([[one] for one in documents])
    for clusters in (1, 20, 59, 60):
        assert group_near_documents(tokens, clusters).groups.tolist() == group_documents(documents, clusters)


@pytest.mark.parametrize("members", [1, 3])
def test_near_groups_of_families_are_those_of_all_pairs(members, monkeypatch):
    monkeypatch.setattr(grouping, "ALL_PAIRS", 10)
    documents, family = families(100, members)
    tokens = CorpusTokens.of_documents(documents)
    exact = group_documents([one[0] for one in documents], 100)
    found = group_near_documents(tokens, 100)
    assert found.groups.tolist() == exact == renumbered(family).tolist() and found.by_similarity == 100


def test_near_groups_are_as_many_as_asked_for_whatever_is_left(monkeypatch):
    monkeypatch.setattr(grouping, "ALL_PAIRS", 10)
    documents, family = families(50)
    tokens = CorpusTokens.of_documents(documents)
    fewer = group_near_documents(tokens, 7)
    assert fewer.by_similarity > 7 and sorted(set(fewer.groups.tolist())) == list(range(7))
    assert len({(f, g) for f, g in zip(family, fewer.groups.tolist(), strict=True)}) == 50  # no family is torn apart
    assert np.bincount(fewer.groups).max() < 2 * 150 / 7
    more = group_near_documents(tokens, 120)
    assert sorted(set(more.groups.tolist())) == list(range(120))
    equal = CorpusTokens.of_documents([documents[0]] * 30 + documents[1:21])
    groups = group_near_documents(equal, 21).groups
    assert len(set(groups[:30].tolist())) == 1 and len(set(groups.tolist())) == 21
    assert len(set(group_near_documents(equal, 40).groups.tolist())) == 40


def test_documents_that_stand_together_have_more_in_common_than_by_chance(monkeypatch):
    """Where no two are near, neighbours in the order of sketches are joined: they share tokens."""
    monkeypatch.setattr(grouping, "ALL_PAIRS", 10)
    documents = zipf_documents(400, 100)
    groups = group_near_documents(CorpusTokens.of_documents(documents), 100).groups
    by_group: dict[int, list[int]] = {}
    for document, group in enumerate(groups.tolist()):
        by_group.setdefault(group, []).append(document)

    def mean(chosen: Sequence[Any]) -> float:
        return float(np.mean([plain_jaccard(documents[a], documents[b], 1) for a, b in chosen]))

    within = mean([pair for group in by_group.values() for pair in combinations(group, 2)])
    assert within > 1.15 * mean(list(combinations(range(60), 2)))


# The field.


def test_many_documents_in_groups_by_all_pairs_are_refused_with_the_remedy(tiny_models, sample_data):
    values = {
        "model": str(tiny_models["llama"]), "data": str(sample_data), "method": "allocate", "allocation": "simset1",
        "num_documents": 100_000, "num_clusters": 500,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="100,000 documents takes 224 GiB; set grouping=lsh"):
        make_spec(values)
    assert make_spec({**values, "num_clusters": 100_000}).grouping == "complete"
    assert canonical(make_spec({**values, "grouping": "lsh"})).grouping == "lsh"


def test_grouping_counts_only_where_it_gives_other_groups(tiny_models, sample_data):
    values = {
        "model": str(tiny_models["llama"]), "data": str(sample_data), "method": "allocate", "allocation": "simset1",
        "grouping": "lsh",
    }  # fmt: skip
    few, own = {"num_documents": 50, "num_clusters": 10}, {"num_documents": 50, "num_clusters": 50}
    assert canonical(make_spec({**values, **few})).grouping == "lsh"
    assert canonical(make_spec({**values, **own})).grouping == "complete"
    assert canonical(make_spec({**values, **few, "method": "pretrained"})).grouping == "complete"
