"""Plain memories are told the entry sets of their space, whatever part of it runs first."""

from __future__ import annotations

from sweep.planning.expand import build_plan, stage_points
from sweep.space import ALL, LARGEST, OTHERS, Best, OneOf, Sampling, Space, Stage

FIXED = {"model": "sample-llama", "data": "sample", "memory_dim": 64}


def space(**more) -> Space:
    values = {
        "name": "demo",
        "title": "demo",
        "axes": {
            "layer": [1, 2], "alpha": [0, 1.0], "allocation": ["partitioned", "simset2"], "num_clusters": [2, 4],
            "num_documents": [4, 8],
        },
        "fixed": FIXED,
        "stages": (
            Stage(name="first", axes={"layer": ALL, "num_documents": LARGEST}, fixed={"alpha": 0}),
            Stage(
                name="second",
                axes={"alpha": ALL, "allocation": ALL, "num_clusters": ALL, "num_documents": LARGEST},
                take=Best(field="layer", stage="first", per=("num_documents",)),
            ),
            Stage(
                name="third",
                axes={"alpha": ALL, "allocation": ALL, "num_clusters": ALL, "num_documents": OTHERS},
                fixed={"layer": 1},
            ),
        ),
    }  # fmt: skip
    return Space(**{**values, **more})


def test_plain_memories_are_told_all_sets_at_their_number_of_documents():
    plan = build_plan(space())
    (first, *_) = stage_points(plan, "first")
    groups_of_8 = ("partitioned_g2", "partitioned_g4", "simset2_g2", "simset2_g4")
    assert plan.spec_to_run(first).leakage_sets == groups_of_8
    third = {p.spec.alpha: plan.spec_to_run(p).leakage_sets for p in stage_points(plan, "third")}
    assert third == {0: ("partitioned_g2", "simset2_g2"), 1.0: ()}, "four groups of four documents are the default"


def test_a_stage_run_alone_knows_the_sets_of_those_to_come():
    plan = build_plan(space(), until_stage="first")
    assert plan.spec_to_run(stage_points(plan, "first")[0]).leakage_sets == plan.leakage_sets[8] != ()


def test_sampled_and_taken_fields_count_with_all_their_values():
    sampled = Stage(
        name="draws",
        axes={"num_documents": LARGEST},
        fixed={"layer": 1, "allocation": "simset1", "num_clusters": 8, "alpha": 1.0},
        sampling=Sampling(
            fields={"granularity": OneOf(("dim", "token")), "mem_seed": OneOf((0, 7))},
            num_samples=2,
            metric="memory/nll",
        ),
    )
    plan = build_plan(space(stages=(sampled,)))
    assert plan.leakage_sets == {8: ("simset1-token", "simset1-token_s7", "simset1_s7")}


def test_other_methods_and_memories_with_a_set_are_left_alone():
    plan = build_plan(space(stages=(Stage(name="p", axes={"num_documents": ALL}, fixed={"method": "pretrained"}),)))
    assert all(plan.spec_to_run(p) is p.spec for p in stage_points(plan, "p")) and plan.leakage_sets == {}
