"""SimSet's promise: groups share entries in proportion to the Jaccard similarity of their shingle sets."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from trainables.adapters.memory.allocation import build_allocation
from trainables.adapters.memory.analysis import MAX_PAIRS, allocation_report

Pages = Callable[..., list[list[list[int]]]]
FUNCTIONS = 4096


def exact_jaccard(one: list[list[int]], other: list[list[int]], width: int) -> float:
    sets = [{tuple(s[i : i + width]) for s in group for i in range(len(s) - width + 1)} for group in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("memory_dim", [64, 2**18])
def test_groups_share_an_entry_with_probability_of_their_jaccard(width: int, memory_dim: int, pages: Pages) -> None:
    groups = pages(6)
    groups.append([groups[0][0], *groups[1][1:]])  # a mixture of two pages
    allocation = build_allocation(f"simset{width}", "dim", groups, memory_dim, 5, entries_per_group=FUNCTIONS)
    signatures = allocation.signatures
    assert signatures is not None
    seen = []
    for a, b in itertools.combinations(range(len(groups)), 2):
        jaccard = exact_jaccard(groups[a], groups[b], width)
        expected = jaccard + (1 - jaccard) / memory_dim
        agreement = (signatures[a] == signatures[b]).mean()
        error = np.sqrt(expected * (1 - expected) / FUNCTIONS)
        assert abs(agreement - expected) <= 4.5 * error + 1e-12
        seen.append(jaccard)
    assert max(seen) - min(seen) > 0.3


def test_identical_groups_share_everything_and_strangers_nothing(pages: Pages) -> None:
    page = pages(1)[0]
    stranger = [[token + 10_000 for token in segment] for segment in page]
    allocation = build_allocation("simset1", "dim", [page, page[::-1], stranger], 2**18, entries_per_group=64)
    assert np.array_equal(allocation.table[0], allocation.table[1])
    assert not (allocation.table[0] & allocation.table[2]).any()


def test_the_promise_holds_over_seeds_for_one_hash_function(pages: Pages) -> None:
    groups = pages(2, seed=4)
    jaccard = exact_jaccard(*groups, 1)
    assert 0.2 < jaccard < 0.8
    agreeing = 0
    for seed in range(1000):
        signatures = build_allocation("simset1", "dim", groups, 2**16, seed, entries_per_group=1).signatures
        assert signatures is not None
        agreeing += int(signatures[0, 0] == signatures[1, 0])
    assert abs(agreeing / 1000 - jaccard) <= 4.5 * np.sqrt(jaccard * (1 - jaccard) / 1000)


def test_report_puts_shared_entries_beside_exact_jaccard(pages: Pages) -> None:
    groups = pages(8)
    allocation = build_allocation("simset2", "dim", groups, 2**16, entries_per_group=512)
    report = allocation_report(allocation, groups)
    assert len(report["entries"]) == 8 and len(report["load"]) == 2**16
    assert sum(report["entries"]) == sum(report["load"])
    assert len(report["pairs"]) == 28
    for pair in report["pairs"]:
        assert pair["jaccard"] == exact_jaccard(groups[pair["left"]], groups[pair["right"]], 2)
        assert pair["expected"] == pytest.approx(pair["jaccard"] + (1 - pair["jaccard"]) / 2**16)
        error = np.sqrt(pair["expected"] * (1 - pair["expected"]) / 512)
        assert abs(pair["agreement"] - pair["expected"]) <= 4.5 * error + 1e-12
        assert pair["overlap"] == pytest.approx(pair["jaccard"], abs=0.12)
    assert report["correlation"] > 0.95


@pytest.mark.parametrize(("name", "granularity"), [("none", "dim"), ("partitioned", "dim"), ("simset1", "token")])
def test_report_of_other_allocations_has_no_expectation(name: str, granularity: str, pages: Pages) -> None:
    groups = pages(3)
    report = allocation_report(build_allocation(name, granularity, groups, 32), groups)
    assert (report["allocation"], report["granularity"]) == (name, granularity)
    assert all("expected" not in pair for pair in report["pairs"])
    if name == "partitioned":
        assert report["load"] == [1] * 32 and report["correlation"] is None


def test_report_samples_pairs_of_many_groups(pages: Pages) -> None:
    groups = pages(80, segments=1)
    allocation = build_allocation("simset1", "dim", groups, 800)
    pairs = allocation_report(allocation, groups)["pairs"]
    assert len({(pair["left"], pair["right"]) for pair in pairs}) == len(pairs) == MAX_PAIRS
    assert pairs == allocation_report(allocation, groups)["pairs"]
