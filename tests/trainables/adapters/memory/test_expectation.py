"""What n lets SimSet show, against sets really made, over many seeds."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.adapters.memory.allocation import build_allocation
from trainables.adapters.memory.analysis import allocation_report
from trainables.adapters.memory.expectation import (
    ENOUGH,
    entries_for,
    from_analysis,
    overlap_expectation,
    typical_expectation,
)

PAIRS, SIZE = 150, 40


def pairs_of_texts() -> tuple[list[list[list[int]]], np.ndarray]:
    """Texts of 40 different tokens in pairs, the k-th each with a similarity of its own."""
    texts, jaccard = [], []
    for k in range(PAIRS):
        common = int(np.random.default_rng(k).integers(0, SIZE // 2))
        first = 2 * SIZE * k
        texts += [[list(range(first, first + SIZE))]]
        texts += [[list(range(first, first + common)) + list(range(first + SIZE, first + 2 * SIZE - common))]]
        jaccard.append(common / (2 * SIZE - common))
    return texts, np.array(jaccard)


@pytest.mark.parametrize(("entries", "memory_dim"), [(4, 512), (16, 512), (64, 512), (64, 4096)])
def test_correlation_error_and_pairs_without_a_common_entry_are_as_expected(entries, memory_dim):
    texts, jaccard = pairs_of_texts()
    overlaps, sizes, correlations = [], [], []
    for seed in range(12):
        table = build_allocation("simset1", "dim", texts, memory_dim, seed, entries).table
        size = table.sum(axis=1)
        overlaps.append((table[::2] & table[1::2]).sum(axis=1) * 2 / (size[::2] + size[1::2]))
        sizes.append(size.mean())
        correlations.append(np.corrcoef(jaccard, overlaps[-1])[0, 1])
    expected = overlap_expectation(jaccard, float(np.mean(sizes)), memory_dim)
    assert np.mean(correlations) == pytest.approx(expected["expected_correlation"], abs=0.03)
    assert np.sqrt(np.var(overlaps, axis=0, ddof=1).mean()) == pytest.approx(expected["standard_error"], rel=0.1)
    assert np.mean(np.array(overlaps) == 0) == pytest.approx(expected["expected_unshared"], abs=0.02)


def test_an_analysis_says_what_to_expect_and_so_does_one_of_an_earlier_version(pages):
    groups = pages(12)
    report = allocation_report(build_allocation("simset1", "dim", groups, 64), groups)
    names = ("standard_error", "expected_correlation", "expected_unshared")
    found = {name: report[name] for name in names}
    assert found["expected_correlation"] < 0.9 and report["unshared"] < 1
    old = {name: value for name, value in report.items() if name not in (*names, "unshared")}
    assert from_analysis(old) == pytest.approx(found)


def test_the_default_of_the_study_shows_little_and_more_functions_show_more():
    found = [typical_expectation(2, n, 4096) for n in (4, 16, 64, 256)]
    assert [round(correlation, 2) for _, correlation in found] == [0.14, 0.25, 0.37, 0.43]
    assert found[0][0] == pytest.approx(np.sqrt(0.0141 * 0.986 / 4), rel=0.03)
    for width in (1, 2, 3):
        needed = entries_for(width, 4096)
        assert needed is None or typical_expectation(width, needed, 4096)[1] >= ENOUGH
    assert entries_for(1, 4096) == 16 and entries_for(3, 64) is None


def test_without_pairs_or_spread_nothing_is_claimed(pages):
    assert set(overlap_expectation(np.array([]), 4, 64).values()) == {None}
    assert overlap_expectation(np.full(3, 0.2), 4, 64)["expected_correlation"] is None
    groups = pages(5)
    for name, granularity in (("partitioned", "dim"), ("random", "dim"), ("simset2", "token")):
        report = allocation_report(build_allocation(name, granularity, groups, 64), groups)
        assert "expected_correlation" not in report and set(from_analysis(report).values()) == {None}
