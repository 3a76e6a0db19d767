"""Plans: what the points of each stage are, what is equivalent or done, and how trials are packed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.planning.expand import build_plan, sampled_point, stage_points
from sweep.planning.inputs import keep_commits
from sweep.planning.overrides import apply_overrides
from sweep.planning.packs import make_packs
from sweep.planning.plan import Plan
from sweep.planning.points import Point, PointMaker
from sweep.records.sweep_files import COMMITS, read_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.space import (
    ALL,
    EVERY_LAYER,
    LARGEST,
    OTHERS,
    Best,
    LogUniform,
    OneOf,
    Sampling,
    Space,
    Stage,
)
from trainables.errors import ConfigError
from trainables.trial.making import make_spec

ALPHAS = [0, 0.5, 1]
SETS = ["random", "partitioned", "simset1"]
BEST = Best(field="layer", stage="choose", per=("model",))
STUDY = Space(
    name="study",
    title="",
    axes={
        "model": ["sample-llama", "sample-neox"],
        "depth": [0.25, 0.5, 0.75],
        "alpha": ALPHAS,
        "allocation": SETS,
        "num_documents": [2, 8],
    },
    stages=(
        Stage(
            name="choose",
            axes={"model": ALL, "depth": [0.25, 0.5, 0.75, 1.0], "num_documents": LARGEST},
            fixed={"alpha": 0},
        ),
        Stage(name="most", axes={"model": ALL, "alpha": ALL, "allocation": ALL, "num_documents": LARGEST}, take=BEST),
        Stage(name="rest", axes={"model": ALL, "alpha": ALL, "allocation": ALL, "num_documents": OTHERS}, take=BEST),
    ),
)
TUNED = Space(
    name="tuned",
    title="",
    axes={"model": ["sample-llama"], "depth": [0.5, 1.0]},
    fixed={"allocation": "simset1", "num_documents": 8},
    stages=(
        STUDY.stages[0],
        Stage(
            name="tune",
            axes={"model": ALL},
            take=BEST,
            sampling=Sampling(fields={"alpha": LogUniform(0.1, 10), "memory_dim": OneOf((32, 64))}, num_samples=5),
        ),
    ),
)


def plan_of(space: Space, *settings: str, **kwargs: Any) -> Plan:
    return build_plan(apply_overrides(space, settings), **kwargs)


def counts(plan: Plan) -> list[tuple[int, int, int, int, int]]:
    return [(s.combinations, s.num_points, s.equivalent, s.done, s.num_to_run) for s in plan.stages]


def choose(plan: Plan, *layers: int) -> dict[str, dict[str, Any]]:
    return {question.key: {"value": layer} for question, layer in zip(plan.questions, layers, strict=False)}


def test_equivalent_points_are_counted_once_within_and_across_stages() -> None:
    plan = plan_of(STUDY)
    assert (plan.grid_points, len(plan.grid), plan.arithmetic) == (108, 84, "2 x 3 x 3 x 3 x 2 = 108")
    assert counts(plan) == [(8, 8, 0, 0, 8), (18, 14, 2, 0, 12), (18, 14, 0, 0, 14)]
    assert [stage.waits_for for stage in plan.stages] == [None, "choose", "choose"]
    assert plan.num_to_run == 34


@pytest.mark.parametrize("layers", [(1, 1), (7, 3), (5, 7)])
def test_the_numbers_do_not_depend_on_which_layer_wins(layers: tuple[int, int]) -> None:
    plan = plan_of(STUDY)
    decided = plan_of(STUDY, choices=choose(plan, *layers))
    assert counts(decided) == counts(plan)
    assert [stage.waits_for for stage in decided.stages] == [None, None, None]
    assert {(p.card.name, p.spec.layer) for p in decided.stages[1].points} == {
        ("sample-llama", layers[0]),
        ("sample-neox", layers[1]),
    }


def test_without_alpha_0_the_choice_still_is_made_at_alpha_0() -> None:
    plan = plan_of(STUDY, "alpha=0.5")
    assert {point.spec.alpha for point in plan.stages[0].points} == {0.0}
    assert counts(plan)[1] == (6, 6, 0, 0, 6)


def test_one_document_count_leaves_nothing_for_the_other_counts() -> None:
    plan = plan_of(STUDY, "num_documents=4")
    assert counts(plan)[2] == (0, 0, 0, 0, 0) and plan.stages[2].waits_for is None


def test_two_depths_at_one_block_are_one_point() -> None:
    plan = plan_of(STUDY, "depth=0.5,0.52")
    assert counts(plan)[0] == (4, 2, 0, 0, 2)


def test_what_is_recorded_is_not_run_again_unless_its_layer_is_only_guessed() -> None:
    plan = plan_of(STUDY)
    everything = {point.id for stage in plan.stages for point in stage.points}
    again = plan_of(STUDY, done=everything)
    assert counts(again) == [(8, 8, 0, 8, 0), (18, 14, 2, 0, 12), (18, 14, 0, 0, 14)]
    settled = plan_of(STUDY, done=everything, choices=choose(plan, plan.stages[1].points[0].spec.layer or 0, 1))
    assert settled.stages[1].done == 6


def test_until_a_stage_leaves_out_those_after_it() -> None:
    plan = plan_of(STUDY, until_stage="most")
    assert [stage.name for stage in plan.stages] == ["choose", "most"]
    with pytest.raises(ConfigError, match="study has choose, most, rest"):
        plan_of(STUDY, until_stage="chose")


def test_a_stage_opens_group_by_group() -> None:
    plan = plan_of(STUDY)
    assert len(plan.questions) == 2
    assert stage_points(plan, "most") == []
    assert len(stage_points(plan, "choose")) == 8
    first = stage_points(plan, "most", choose(plan, 3))
    assert len(first) == 7 and {point.card.name for point in first} == {"sample-llama"}
    both = stage_points(plan, "most", choose(plan, 3, 5))
    assert [point.id for point in both[:7]] == [point.id for point in first] and len(both) == 14
    assert len({p.id for p in both} & {p.id for p in plan.stages[0].points}) == 2


def test_a_choice_outside_the_candidates_opens_nothing() -> None:
    plan = plan_of(STUDY)
    assert stage_points(plan, "most", choose(plan, 2)) == []


def test_a_new_axis_gets_a_choice_of_its_own() -> None:
    plan = plan_of(STUDY, "epochs=20,25")
    assert len(plan.questions) == 4
    assert counts(plan)[1] == (36, 28, 4, 0, 24)


def test_every_layer_is_that_of_each_model() -> None:
    layered = Space(
        name="layers", title="", axes={"model": ["pythia-70m", "pythia-1b"], "layer": [EVERY_LAYER], "seed": [0, 1]},
        stages=(Stage(name="layers", axes={"model": ALL, "layer": ALL, "seed": ALL}),),
    )  # fmt: skip
    plan = plan_of(layered)
    assert plan.arithmetic == "(6 + 16) x 2 = 44"
    assert (plan.grid_points, len(plan.grid), counts(plan)[0]) == (44, 44, (44, 44, 0, 0, 44))


def test_a_sampled_stage_is_counted_by_its_samples() -> None:
    plan = plan_of(TUNED)
    assert counts(plan)[1] == (5, 5, 0, 0, 5) and stage_points(plan, "tune", choose(plan, 3)) == []
    drawn = sampled_point(plan, "tune", {"alpha": 0.7, "memory_dim": "64"}, choose(plan, 3))
    assert drawn is not None
    assert (drawn.spec.layer, drawn.spec.alpha, drawn.spec.memory_dim, drawn.spec.stage) == (3, 0.7, 64, "tune")
    assert counts(plan_of(TUNED, done={drawn.id}, sampled={"tune": [drawn.id, "unfinished"]}))[1] == (5, 5, 0, 1, 4)
    assert sampled_point(plan, "tune", {"alpha": 0.7, "memory_dim": 64}) is None  # its layer is not chosen yet


def test_a_layer_beyond_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer=8: sample-llama has 8 blocks"):
        plan_of(STUDY, "layer=3,8")


def test_values_at_odds_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_clusters=5: must not exceed num_documents=2"):
        plan_of(STUDY, "num_clusters=5")


def packed(points: Sequence[Point], size: int, slots: int = 1) -> list[int]:
    return [len(pack.points) for pack in make_packs(points, size, slots)]


def test_packs_are_balanced_and_keep_all_slots_busy() -> None:
    points = stage_points(plan_of(STUDY, "model=sample-llama"), "most", choose(plan_of(STUDY, "model=sample-llama"), 3))
    assert packed(points, 100) == [7]
    assert packed(points, 5) == [4, 3]
    assert packed(points, 100, slots=4) == [2, 2, 1, 2]
    assert packed(points, 1) == [1] * 7
    assert packed([], 8) == []


@given(st.integers(1, 12), st.integers(1, 6))
def test_packs_share_what_they_must_and_hold_every_trial_once(size: int, slots: int) -> None:
    points = [point for stage in PLAN.stages for point in stage.to_run]
    packs = make_packs(points, size, slots)
    assert sorted(p.id for pack in packs for p in pack.points) == sorted(p.id for p in points)
    assert len({pack.id for pack in packs}) == len(packs)
    for pack in packs:
        assert len(pack.points) <= size
        assert len({(p.card.key, p.spec.num_documents, p.spec.epochs) for p in pack.points}) == 1
        layers = [point.spec.layer for point in pack.points]
        assert len({*layers}) == 1 or all(2 * layers.count(layer) <= size for layer in layers)
    places = [(pack.points[0].card.key, min(point.spec.layer for point in pack.points)) for pack in packs]
    assert places == sorted(places)


PLAN = plan_of(STUDY)


def test_trials_without_a_memory_are_never_packed() -> None:
    whole = Space(
        name="whole", title="", axes={"weight_decay": [0.05, 0.01]}, fixed={"method": "full_update"},
        stages=(Stage(name="whole", axes={"weight_decay": ALL}),),
    )  # fmt: skip
    assert packed(plan_of(whole).stages[0].points, 8) == [1, 1]


def test_planning_takes_no_longer_for_each_of_many_points() -> None:
    """A hundred thousand take 4 s of an idle core; here it counts that they take no more each than a few thousand."""

    def seconds_each(seeds: int) -> float:
        start = time.process_time()
        plan = plan_of(STUDY, "seed=" + ",".join(map(str, range(seeds))))
        assert plan.grid_points == 108 * seeds and len(plan.grid) == 84 * seeds
        return (time.process_time() - start) / seeds

    few = seconds_each(30)
    assert seconds_each(300) < 2 * few


def test_a_point_names_the_hubs_commit_so_that_all_workers_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainables.data import hub

    file = hub.RepoFile("train/0000.parquet", 1, "a1")
    listed = hub.HubFiles("fever/fever", "c" * 40, (file,), (file,), (file,))
    monkeypatch.setattr(hub, "hub_files", lambda name: listed)
    point = PointMaker().point(make_spec({"model": "pythia-70m", "data": "hub", "layer": 1}))
    assert point.spec.data == f"hub:fever/fever@{'c' * 40}" and point.data_key == listed.key


def test_hub_data_that_moved_since_a_sweep_began_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from trainables.data import hub

    space = Space(
        name="on_hub", title="t", axes={"layer": [1]}, fixed={"model": "pythia-70m", "data": "hub"},
        stages=(Stage(name="all", axes={"layer": ALL}),),
    )  # fmt: skip
    storage = SweepStorage(str(tmp_path))
    said = []
    for commit in ("c" * 40, "c" * 40, "d" * 40):
        file = hub.RepoFile("train/0000.parquet", 1, commit)
        listed = hub.HubFiles("fever/fever", commit, (file,), (file,), (file,))
        monkeypatch.setattr(hub, "hub_files", lambda name, listed=listed: listed)
        plan = build_plan(space, commits={"EleutherAI/pythia-70m@main": "e" * 40})
        said.append(keep_commits(plan, storage, "on_hub"))
    assert said[:2] == [[], []] and f"to stay: --data hub:fever/fever@{'c' * 40}" in said[2][0]
    kept = read_sweep_file(storage, "on_hub", COMMITS)
    assert kept == {
        "models": {"EleutherAI/pythia-70m@main": "e" * 40}, "data": {"hub:fever/fever": f"hub:fever/fever@{'d' * 40}"}
    }  # fmt: skip


def test_the_pretrained_model_of_a_plan_is_at_the_branch_of_the_trials(tmp_path: Path) -> None:
    """It is made from a canonical trial, which names the commit: a sweep would forget at which one it stays."""
    space = Space(
        name="on_hub", title="t", axes={"layer": [1]}, fixed={"model": "pythia-70m"}, baseline=True,
        stages=(Stage(name="all", axes={"layer": ALL}),),
    )  # fmt: skip
    plan, storage = build_plan(space, commits={"EleutherAI/pythia-70m@main": "e" * 40}), SweepStorage(str(tmp_path))
    points = [point for stage in plan.stages for point in stage.points]
    assert {point.spec.method for point in points} == {"memory", "pretrained"}
    assert {(point.card.revision, point.card.commit) for point in points} == {("main", "e" * 40)}
    keep_commits(plan, storage, "on_hub")
    assert read_sweep_file(storage, "on_hub", COMMITS)["models"] == {"EleutherAI/pythia-70m@main": "e" * 40}
