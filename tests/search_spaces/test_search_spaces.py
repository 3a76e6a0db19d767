"""Every experiment of the study: its numbers, and a small form that needs no download."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

from sweep.planning.expand import build_plan
from sweep.planning.load import load_space
from sweep.planning.overrides import apply_overrides, small_form
from sweep.planning.packs import make_packs
from sweep.planning.plan import Plan
from sweep.planning.points import PointMaker
from sweep.planning.show import count_packs
from sweep.space import Space
from trainables.adapters.registry import ADAPTERS, adapter_plan
from trainables.lm.card import ALIASES
from trainables.trial.making import make_spec

FOLDER = Path(__file__).parents[2] / "search_spaces"
MODULES = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__")

# grid points, different points, (stage, points, of which in an earlier stage)
NUMBERS = {
    "inductive": (2400, 2160, [("layer_selection", 20, 0), ("inductive", 72, 2), ("document_count", 288, 0)]),
    "sample": (640, 576, [("layer_selection", 8, 0), ("inductive", 72, 2), ("document_count", 72, 0)]),
    "few_shot": (72, 72, [("few_shot", 72, 0)]),
    "memory_content": (72, 72, [("baseline", 12, 0), ("memory", 72, 0)]),
    "full_update": (4, 4, [("baseline", 2, 0), ("full_update", 4, 0)]),
    "adapters": (
        15,
        15,
        [
            ("baseline", 3, 0),
            ("memory", 3, 0),
            ("lora", 3, 0),
            ("prompt", 3, 0),
            ("prefix", 3, 0),
            ("full_update", 3, 0),
            ("prompt_flops", 3, 0),
            ("full_update_flops", 3, 0),
        ],
    ),
    "docguidance": (
        432,
        432,
        [("baseline", 2, 0), ("activations", 6, 0), ("negatives", 8, 2), ("guidance", 12, 2), ("key_dim", 6, 2)],
    ),
    "two_memories": (3, 3, [("baseline", 3, 0), ("alone", 6, 0), ("shared", 6, 0), ("separate", 9, 0)]),
    "use_memory": (
        3,
        3,
        [
            ("baseline", 3, 0),
            ("document", 3, 0),
            ("template", 6, 0),
            ("together", 6, 0),
            ("on_top", 6, 0),
            ("trained_on", 3, 0),
            ("longer", 3, 0),
        ],
    ),
    "structure": (32, 24, [("baseline", 2, 0), ("structure", 24, 0)]),
    "layers": (64, 64, [("baseline", 2, 0), ("layers", 64, 0)]),
    "clustering": (120, 82, [("clustering", 82, 0)]),
    "memory_size": (64, 40, [("memory_size", 40, 0)]),
    "formation": (200, 128, [("formation", 128, 0)]),
    "entries": (48, 26, [("entries", 26, 0)]),
    "scale": (48, 32, [("sets", 24, 0), ("memory", 32, 0)]),
    "counterfact": (12, 8, [("baseline", 2, 0), ("counterfact", 8, 0)]),
    "facts": (18, 18, [("baseline", 6, 0), ("trained", 18, 0)]),
    "own_data": (4, 4, [("baseline", 2, 0), ("memory", 4, 0)]),
    "tune_alpha": (20, 20, [("layer_selection", 20, 0), ("tune", 64, 0)]),
}


# A hash of the ids of all points, stage by stage: what has been run of a space is found again.
IDS = {
    "clustering": "b9f17e078d04279e",
    "counterfact": "2b902621c9c73267",
    "few_shot": "980e98cae69e4ada",
    "full_update": "92aa7a2b24ad1267",
    "inductive": "1b567927a73e333c",
    "layers": "86174de185698bc7",
    "memory_content": "7eef8b8b96924767",
    "memory_size": "8e388c925efa2510",
    "sample": "1ecb635ccd5858f4",
    "structure": "2adea027776f9f1c",
    "tune_alpha": "c1b14b99c9610e0a",
}


def space_of(name: str) -> Space:
    return load_space(FOLDER / f"{name}.py")


def points(plan: Plan, stage: str) -> set[str]:
    return {point.id for point in plan.stage(stage).points}


@pytest.mark.parametrize("name", MODULES)
def test_a_space_counts_what_the_study_asks_for(name: str) -> None:
    plan = build_plan(space_of(name))
    stages = [(stage.name, stage.num_points, stage.equivalent) for stage in plan.stages]
    assert (plan.grid_points, len(plan.grid), stages) == NUMBERS[name]
    assert plan.space.name == name


@pytest.mark.parametrize("name", IDS)
def test_ids_of_the_points_stay_what_they_are(name: str) -> None:
    ids = [point.id for stage in build_plan(space_of(name)).stages for point in stage.points]
    assert hashlib.blake2b("".join(ids).encode(), digest_size=8).hexdigest() == IDS[name]


@pytest.mark.parametrize("name", MODULES)
def test_the_small_form_runs_on_the_sample_world_in_seconds(name: str) -> None:
    plan = build_plan(small_form(space_of(name)))
    specs = [point.spec for stage in plan.stages for point in stage.points]
    assert all(spec.model.startswith("sample-") and spec.data == "sample" for spec in specs)
    assert plan.num_to_run <= 30 and all(stage.num_points for stage in plan.stages)
    assert all(not ADAPTERS[spec.method].trains or spec.epochs <= 8 for spec in specs)
    assert [stage.name for stage in plan.stages] == [stage.name for stage in space_of(name).stages]


def test_memories_of_all_sizes_share_packs() -> None:
    plan = build_plan(space_of("memory_size"))
    (stage,) = plan.stages
    assert plan.num_to_run == 40 and len(make_packs(stage.to_run, 16)) == 4, "two of a model"
    assert count_packs(plan) == 40, "but a step of one trial of 7 billion parameters computes all the time"
    assert count_packs(build_plan(small_form(space_of("memory_size")))) == 1


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_data_and_says_how_to_run_it(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"sweep.space"} and not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert f"python -m sweep.run search_spaces/{name}.py" in (ast.get_docstring(tree) or "")


def test_adapters_are_compared_at_equal_parameters_and_at_equal_flops() -> None:
    plan = build_plan(space_of("adapters"))
    points = {stage.name: stage.points[0] for stage in plan.stages}
    plans = {name: (adapter_plan(vars(point.spec)), point) for name, point in points.items()}
    params = {name: plan.stored_params(point.card) for name, (plan, point) in plans.items()}
    for name in ("lora", "prompt", "prefix"):
        assert 0.95 < params[name] / params["memory"] < 1.05
    flops = {
        name: plan.train_flops(point.card, 256.0, 1.0) * point.spec.epochs
        for name, (plan, point) in plans.items()
        if plan.trains
    }
    for name in ("lora", "prompt_flops", "full_update_flops"):
        assert 0.93 < flops[name] / flops["memory"] < 1.07, name


def test_what_is_stored_is_used_by_trials_of_the_same_seed_beside_their_counterparts_alone() -> None:
    plan = build_plan(space_of("use_memory"))
    documents = {point.training: point.spec.seed for point in plan.stage("document").points}
    for name in ("on_top", "trained_on", "longer"):
        for point in plan.stage(name).points:
            assert documents[str(point.spec.start_from)] == point.spec.seed and point.start
    alone = {(point.spec.layer, point.spec.seed) for point in plan.stage("template").points}
    on_top = {(p.spec.template_layer or p.spec.layer, p.spec.seed) for p in plan.stage("on_top").points}
    assert alone == on_top and {p.spec.layer for p in plan.stage("on_top").points} == {22}


def test_the_first_table_has_all_twelve_models() -> None:
    models = set(space_of("few_shot").axes["model"])
    assert models == set(ALIASES) == set(space_of("memory_content").axes["model"])


def test_baselines_are_the_same_trials_everywhere() -> None:
    few_shot = build_plan(space_of("few_shot"))
    assert points(build_plan(space_of("memory_content")), "baseline") <= points(few_shot, "few_shot")
    assert points(build_plan(space_of("structure")), "baseline") == points(build_plan(space_of("layers")), "baseline")


def test_tuning_starts_from_the_layer_that_the_inductive_study_chooses() -> None:
    tuned, inductive = build_plan(space_of("tune_alpha")), build_plan(space_of("inductive"))
    assert points(tuned, "layer_selection") == points(inductive, "layer_selection")
    assert [q.key for q in tuned.questions] == [q.key for q in inductive.questions]


def test_the_layers_of_the_notes_lie_where_they_should() -> None:
    plan = build_plan(space_of("inductive"))
    selection = [point.spec.layer for point in plan.stage("layer_selection").points if point.card.name == "llama2-7b"]
    assert selection == [2, 5, 9, 12, 15, 18, 21, 25, 28, 31]
    assert {point.spec.layer for point in plan.grid} == {4, 9, 13, 18, 23, 28}
    assert {point.spec.layer for point in build_plan(space_of("structure")).stage("structure").points} == {24}


def test_the_sample_study_is_as_wide_as_it_says() -> None:
    axes = space_of("sample").axes
    assert len(axes["alpha"]) == 8 and len(axes["allocation"]) == 5 and len(axes["num_documents"]) == 2
    families = {point.card.family: point.spec.layer for point in build_plan(space_of("sample")).grid}
    assert set(families) == {"llama", "gpt_neox"}
    assert len({point.spec.layer for point in build_plan(space_of("sample")).grid}) == 4


def test_real_input_can_be_named_on_the_command_line(tiny_models: dict[str, Path], sample_data: Path) -> None:
    settings = [
        f"model={tiny_models['gpt_neox']}", "num_documents=4,8", "alpha=0,0.2,1.0", "allocation=partitioned,simset2"
    ]  # fmt: skip
    plan = build_plan(apply_overrides(space_of("inductive"), settings, data=str(sample_data)))
    assert plan.arithmetic == "1 x 6 x 3 x 2 x 2 = 72"
    assert [stage.num_points for stage in plan.stages] == [4, 5, 5]
    made = PointMaker().point(make_spec({"model": str(tiny_models["gpt_neox"]), "data": str(sample_data), "layer": 1}))
    assert made.card.num_blocks == 4
