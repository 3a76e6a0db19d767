"""A plan says what its numbers of hash functions let SimSet show, and warns."""

from __future__ import annotations

from sweep.planning.expand import build_plan
from sweep.planning.simset_notes import simset_lines, simset_notes
from sweep.space import ALL, Space, Stage

FIXED = {"model": "llama2-7b", "data": "sample", "layer": 3, "memory_dim": 4096, "num_documents": 1000, "alpha": 1.0}


def plan_of(**axes):
    stage = Stage(name="all", axes=dict.fromkeys(axes, ALL))
    fixed = {name: value for name, value in FIXED.items() if name not in axes}
    return build_plan(Space(name="demo", title="demo", axes=axes, fixed=fixed, stages=(stage,)))


def test_n_is_memory_dim_over_groups_unless_it_is_given():
    notes = simset_notes(plan_of(allocation=["simset1"], num_clusters=[2, 100, None], entries_per_group=[None, 7]))
    assert {(note.groups, note.entries) for note in notes} == {
        (2, 2048), (100, 41), (1000, 4), (2, 7), (100, 7), (1000, 7),
    }  # fmt: skip


def test_too_few_are_warned_of_and_enough_are_not():
    lines = simset_lines(plan_of(allocation=["simset1", "simset2", "random"]))
    assert "n = 4 (1,000 groups, 4,096 entries): simset1 0.20 ± 0.134, simset2 0.14 ± 0.059" in lines
    assert [line for line in lines if "WARNING" in line] == [
        "WARNING: simset1: n = 4 is too small to show similarity (below 0.3); it takes about 16 (entries_per_group)",
        "WARNING: simset2: n = 4 is too small to show similarity (below 0.3); it takes about 32 (entries_per_group)",
    ]
    enough = simset_lines(plan_of(allocation=["simset1"], entries_per_group=[64]))
    assert len(enough) == 2 and not any("WARNING" in line for line in enough)


def test_sets_of_tokens_and_other_allocations_are_not_spoken_of():
    assert simset_lines(plan_of(allocation=["random", "partitioned"])) == []
    assert simset_lines(plan_of(allocation=["simset2"], granularity=["token"])) == []
