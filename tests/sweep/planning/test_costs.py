"""The cost model: against hand-made counts, and measured from records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from sweep.planning.costs import estimate, measure
from sweep.planning.device_memory import PackMemory
from sweep.planning.expand import build_plan
from sweep.planning.flops import (
    FEVER_TEXTS,
    SAMPLE_TEXTS,
    CostModel,
    disk_bytes,
    merge_alike,
    train_token_flops,
)
from sweep.planning.gpus import A100
from sweep.planning.overrides import apply_overrides
from sweep.planning.packs import auto_pack_size
from sweep.planning.plan import Plan
from sweep.planning.points import Point, PointMaker
from sweep.space import ALL, Space, Stage
from trainables.adapters.registry import adapter_plan
from trainables.probes.plan import Reading
from trainables.probes.registry import probe_plans
from trainables.trial.making import make_spec
from trainables.trial.spec import FIELDS

GRID = Space(
    name="grid",
    title="",
    axes={"layer": [15, 31], "alpha": [0, 1], "allocation": ["simset1", "simset2"], "num_documents": [10, 100]},
    fixed={"model": "llama2-7b", "data": "fever", "dtype": "bfloat16"},
    stages=(
        Stage(name="grid", axes={"layer": ALL, "alpha": ALL, "allocation": ALL, "num_documents": ALL}),
        Stage(name="again", axes={"layer": ALL, "alpha": ALL, "allocation": ALL, "num_documents": ALL}),
    ),
)


def point(**values: Any) -> Point:
    return PointMaker().point(make_spec({"model": "llama2-7b", "data": "fever", "layer": 23, **values}))


def readings(of: Point) -> list[Reading]:
    return [plan.reading(FEVER_TEXTS, of.spec.num_documents) for plan in probe_plans(vars(of.spec))]


def work_of(of: Point, dtype: str) -> Mapping[str, float]:
    return CostModel({}).work(of).by_precision(dtype)


def plan_of(*settings: str, **kwargs: Any) -> Plan:
    return build_plan(apply_overrides(GRID, settings), **kwargs)


def test_training_pays_for_the_blocks_above_the_head_and_the_memory() -> None:
    one = point(epochs=10, num_documents=20)
    card = one.card
    memory = 2 * 4096 * 128
    assert train_token_flops(one.spec, card) == 4 * 8 * card.block_params + 4 * card.head_params + 6 * memory
    assert CostModel({}).work(one).training == train_token_flops(one.spec, card) * 10 * 20 * FEVER_TEXTS.document_tokens


def test_full_update_pays_for_all_weights_and_pretrained_for_none() -> None:
    full, bare = point(method="full_update"), point(method="pretrained")
    card = full.card
    assert train_token_flops(full.spec, card) == 6 * (32 * card.block_params + card.head_params)
    assert train_token_flops(bare.spec, card) == 0 == CostModel({}).work(bare).training
    assert CostModel({}).trunk([full])[1] == 0 and CostModel({}).trunk([bare])[0]["float32"] > 0


@pytest.mark.parametrize(
    "more",
    [
        {"epochs": 50}, {"num_documents": 20}, {"layer": 3}, {"memory_dim": 4096}, {"content": "document+template"},
        {"eval_epochs": (1, 2)}, {"probes": ("fever", "counterfact")},
    ],
)  # fmt: skip
def test_more_to_do_costs_more(more: dict[str, Any]) -> None:
    model = CostModel({})
    assert model.work(point(**more)).total > model.work(point()).total


def test_the_trunk_runs_once_for_all_that_share_its_texts() -> None:
    model = CostModel({})
    one, _ = model.trunk([point(num_documents=100)])
    smaller_sets_and_layers = [point(num_documents=100), point(num_documents=10), point(layer=3), point(alpha=1)]
    flops, cached = model.trunk(smaller_sets_and_layers)
    assert flops == one
    assert cached == 2 * model.trunk([point(num_documents=100)])[1]
    assert model.trunk([point(), point(dtype="bfloat16")])[0]["bfloat16"] > 0


def test_other_seeds_ask_other_prompts_about_the_same_documents() -> None:
    model = CostModel({})
    one, two = model.trunk([point()])[1], model.trunk([point(), point(seed=1)])[1]
    assert one < two < 2 * one


@pytest.mark.parametrize(
    ("more", "twice"),
    [
        ({"page_order": "subjects"}, True), ({"detokenize": True}, True), ({"dtype": "bfloat16"}, True),
        ({"seed": 1}, False), ({"num_shots": 3}, False), ({"content": "document+template"}, False),
    ],
)  # fmt: skip
def test_the_trunk_runs_again_for_documents_that_are_others(more: dict[str, Any], twice: bool) -> None:
    model, alone = CostModel({}), {"probes": ()}
    one = sum(model.trunk([point(**alone)])[0].values())
    own = sum(model.trunk([point(**alone, **more)])[0].values())
    both = sum(model.trunk([point(**alone), point(**alone, **more)])[0].values())
    assert both == pytest.approx(one + own if twice else max(one, own))


def test_points_that_cost_the_same_are_merged() -> None:
    merged = merge_alike([(point(alpha=1, allocation="simset1"), 1), (point(), 2), (point(layer=3), 1)])
    assert [weight for _, weight in merged] == [3, 1]


def test_an_estimate_covers_what_is_left_once() -> None:
    plan = plan_of()
    whole = estimate(plan)
    assert whole.flops == pytest.approx(whole.staged_flops) == pytest.approx(whole.full_grid_flops)
    assert whole.training_flops + whole.trunk_flops < whole.flops
    assert whole.gpu is A100
    assert estimate(plan_of("num_documents=10")).flops < whole.flops
    everything = {p.id for p in plan.stages[0].points}
    nothing = estimate(plan_of(done=everything))
    assert (nothing.flops, nothing.gpu_hours, nothing.trunk_cache_bytes, nothing.disk_bytes) == (0, 0, 0, 0)
    assert nothing.staged_flops == whole.staged_flops


def test_the_memory_runs_in_float32_whatever_the_model_does_and_is_booked_so() -> None:
    one, bare = point(dtype="bfloat16", memory_dim=4096), point(dtype="bfloat16", method="pretrained")
    work, tokens = CostModel({}).work(one), 10 * FEVER_TEXTS.document_tokens
    read = 2 * tokens + sum(found.above_trunk for found in readings(one)) - tokens
    own = 2 * 4096 * 4096 * (6 * tokens * one.spec.epochs + 2 * read)
    assert work.by_precision("bfloat16") == {"bfloat16": work.total - work.own, "float32": work.own}
    assert work.own == pytest.approx(own)
    assert CostModel({}).work(bare).own == 0
    assert A100.seconds({"bfloat16": 312e12 * 0.4, "float32": 19.5e12}) == pytest.approx(1 + 1 / 0.4)
    asked = CostModel({}).asking(one, one.own)
    assert 0 < asked.own < asked.total < work.evaluation and asked.precision == "float32"


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({}, 6 * 2 * 4096 * 128), ({"method": "lora"}, 6 * 8 * 8 * 78_080),
        ({"method": "docguidance"}, 2 * 6 * (2 * 4096 * 128 + 4096**2)),
        ({"method": "two_memories", "content": "document+template"}, 6 * 4 * 4096 * 128),
        ({"method": "full_update"}, 0), ({"method": "prompt"}, 0), ({"method": "pretrained"}, 0),
    ],
)  # fmt: skip
def test_what_of_training_is_the_adapters_own(values: dict[str, Any], share: float) -> None:
    one = point(**values)
    plan = adapter_plan(vars(one.spec))
    assert plan.own_token_flops(one.card) == share and plan.own_precision == "float32"
    assert (share > 0) == any(name == "float32" for name, n in work_of(one, "bfloat16").items() if n)


def test_planned_seconds_are_those_of_each_product_at_its_own_speed() -> None:
    plan = plan_of("memory_dim=65536")
    found = estimate(plan)
    works = [CostModel({}).work(p) for p in {p.id: p for stage in plan.stages for p in stage.points}.values()]
    own = sum(work.own for work in works)
    seconds = (found.flops - own) / (312e12 * 0.4) + own / (19.5e12 * 0.4)
    assert found.gpu_hours == pytest.approx(seconds / 3600)
    assert seconds > 3 * found.flops / (312e12 * 0.4), "where all were booked as bfloat16, a third of the time"
    told = [line for line in found.assumptions if "TFLOP/s" in line]
    assert [line.split()[3] for line in told] == ["bfloat16", "float32"]
    bare = [line for line in estimate(plan_of("method=pretrained")).assumptions if "TFLOP/s" in line]
    assert len(bare) == 1


def test_float32_takes_longer_on_the_same_gpu() -> None:
    assert estimate(plan_of("dtype=float32")).gpu_hours > 10 * estimate(plan_of()).gpu_hours


def test_a_pack_must_fit_beside_the_upper_blocks() -> None:
    found = [PackMemory(point(layer=15, memory_dim=12288)).of_pack(size) for size in (39, 40)]
    assert found[1].trained - found[0].trained == 2 * 4096 * 12288 * 16
    card = point().card
    assert found[0].weights == found[1].weights == 4 * (16 * card.block_params + card.head_params)
    assert found[1].total - found[0].total == found[1].trained - found[0].trained, "one pass is full by now"


def test_the_whole_model_counts_where_a_probe_asks_it_and_for_the_first_check() -> None:
    card, bytes_of = point().card, {}
    for probes in (("fever",), ("counterfact",), ("lm_eval",), ("fever", "recall")):
        more = {"lm_eval_tasks": ("arc_easy",)} if "lm_eval" in probes else {}
        bytes_of[probes] = PackMemory(point(dtype="bfloat16", probes=probes, **more)).of_pack(4)
    all_weights = 2 * card.params
    assert bytes_of["fever",].whole == 0
    assert {found.whole for probes, found in bytes_of.items() if probes != ("fever",)} == {all_weights}
    assert {found.before for found in bytes_of.values()} == {all_weights}, "a part is held against it, once on a node"
    grown = bytes_of["counterfact",].total - bytes_of["fever",].total
    assert all_weights / 2 < grown <= all_weights
    prompt = PackMemory(point(method="prompt", probes=("counterfact",))).of_pack(1)
    assert (prompt.weights, prompt.whole) == (4 * card.params, 0), "it is held anyway"
    added = replace(point(dtype="bfloat16"), added=("counterfact",))
    assert PackMemory(added).of_pack(4).whole == all_weights


def test_the_plan_says_how_much_the_device_must_hold() -> None:
    told = estimate(plan_of()).device_memory_bytes
    assert told == max(
        PackMemory(p, True, A100.memory_bytes).of_pack(auto_pack_size(p, A100.memory_bytes)).total
        for p in plan_of().stages[0].points
    )
    assert estimate(plan_of("probes=counterfact")).device_memory_bytes > told + 5e9


def record(of: Point, train_s: float, tokens: float, **parts: Any) -> dict[str, Any]:
    flops = train_token_flops(of.spec, of.card) * of.spec.epochs * tokens * 8
    return {
        "id": of.id, "status": "done", "flops": flops, "timings": {"train_s": train_s, "load_s": 1.0, "pack_size": 4},
        "counts": {"n_trunc": 8, "claims_selected": 40}, **parts,
    }  # fmt: skip


def test_records_give_speed_and_sizes() -> None:
    plan = plan_of()
    points = {p.id: p for p in plan.stages[0].points}
    one, two, *_ = points.values()
    measured = measure(points, [record(one, 3.0, 111), record(two, 5.0, 111), record(point(seed=9), 1.0, 5)])
    assert measured is not None and measured.trials == 2
    flops = record(one, 0, 111)["flops"] + record(two, 0, 111)["flops"]
    assert measured.train_flop_per_s == pytest.approx(flops / 10.0)
    assert measured.texts[one.data_key].document_tokens == pytest.approx(111)
    assert measured.texts[one.data_key].claims == 5
    told = estimate(plan, measured)
    assert told.measured_hours == pytest.approx(told.training_flops / measured.train_flop_per_s / 3600)
    assert told.flops < estimate(plan).flops and any("measured" in line for line in told.assumptions)


def test_records_that_tell_nothing_are_passed_over() -> None:
    plan = plan_of()
    points = {p.id: p for p in plan.stages[0].points}
    one = next(iter(points.values()))
    silent = [record(one, 1.0, 5, flops=None), record(one, 1.0, 5, timings={}), record(one, 1.0, 5, flops=0.0)]
    assert measure(points, silent) is None and measure(points, []) is None


def test_the_sample_world_has_sizes_of_its_own() -> None:
    assert CostModel({}).texts(PointMaker().point(make_spec({"layer": 1}))) == SAMPLE_TEXTS


def costs(*points: Point) -> tuple[Any, ...]:
    """All that is estimated from points, one by one and together."""
    model = CostModel({})
    alone = [
        (
            model.work(p),
            disk_bytes(p.spec, p.card, model.texts(p)),
            PackMemory(p).of_pack(3),
            auto_pack_size(p, A100.memory_bytes),
            model.trunk([p]),
        )
        for p in points
    ]
    return alone, model.trunk(points)


@pytest.mark.parametrize("name", FIELDS)
def test_points_are_merged_only_if_every_cost_is_the_same(two_points: Callable[[str], list[Point]], name: str) -> None:
    one, two = two_points(name)
    merged = merge_alike([(one, 1.0), (two, 1.0)])
    same = costs(one, one) == costs(one, two) == costs(two, two)
    assert costs(*(p for p, _ in merged)) == costs(*(one, two)[: len(merged)])
    assert len(merged) == 2 or same
    assert sum(weight for _, weight in merged) == 2
    if FIELDS[name].costs:
        assert not same, "declared to cost, and costs nothing"
