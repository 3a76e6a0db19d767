"""How many trials share a forward pass when it is left to us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from sweep.planning import packs
from sweep.planning.device_memory import USED_SHARE, PackMemory
from sweep.planning.flops import CostModel
from sweep.planning.gpus import A100, H100, Gpu
from sweep.planning.packs import (
    LARGEST,
    STATES_BYTES,
    auto_pack_size,
    auto_pack_sizes,
    has_room,
    make_ask_packs,
    make_packs,
)
from sweep.planning.points import Point, PointMaker
from trainables.trial.making import make_spec, vary
from trainables.trial.spec import FIELDS

MAKER = PointMaker()


def size(memory_bytes: float = 80e9, on_gpu: bool = True, gpu: Gpu = H100, **values: object) -> int:
    return auto_pack_size(MAKER.point(make_spec({"depth": 0.75, **values})), memory_bytes, on_gpu, gpu)


def study(model: str, **values: object) -> dict[str, object]:
    """A trial of the study: 4 texts of 256 tokens a step, 128 entries at three quarters of the depth."""
    return {"model": model, "data": "fever", "dtype": "bfloat16", **values}


def test_larger_models_share_fewer() -> None:
    models = ("pythia-70m", "pythia-160m", "pythia-410m", "pythia-1b", "pythia-2.8b", "pythia-6.9b")
    sizes = [size(**study(model)) for model in models]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16384 // 1024, "all that one forward pass takes"
    assert 4 <= sizes[2] < sizes[1] < sizes[0]
    assert 2 <= sizes[3] < sizes[2]
    assert sizes[-1] in (1, 2)


def test_a_pack_is_as_large_as_launches_take_to_hide() -> None:
    fewer = study("pythia-70m", batch_size=1, segment_tokens=64)
    assert size(**fewer) == LARGEST and size(**study("pythia-410m", segment_tokens=64)) > size(**study("pythia-410m"))
    assert size(**study("pythia-410m", segment_tokens=512)) < size(**study("pythia-410m"))
    assert size(gpu=A100, **study("pythia-410m")) < size(**study("pythia-410m")), "a slower card computes sooner"
    assert size(**study("pythia-410m", dtype="float32")) < size(**study("pythia-410m")), "so does a larger type"
    assert size(**study("pythia-70m", micro_batch_tokens=2048)) == 2, "others would take a pass of their own"
    assert size(**study("pythia-70m", micro_batch_tokens=100)) == 1


def test_packs_are_as_large_as_was_measured_to_pay() -> None:
    """On an H100 packs of 8 gave 96 % of the throughput of packs of 16, packs of 4 gave 81 % (RESULTS.md)."""
    assert 8 <= size(**study("pythia-410m", segment_tokens=128)) <= 16
    assert size(**study("pythia-6.9b", segment_tokens=128)) <= 2, "one alone reached half of the products' speed"


@pytest.mark.parametrize("model", ["pythia-70m", "pythia-410m"])
def test_larger_memories_share_fewer_on_any_card_and_more_on_a_larger_one(model: str) -> None:
    fast = replace(H100, flop_per_s={"bfloat16": 1e18, "float32": 1e18})  # only memory decides
    sizes = {
        (card, entries): size(card, gpu=fast, **study(model, memory_dim=entries))
        for card in (16e9, 80e9)
        for entries in (128, 65536)
    }
    assert sizes[16e9, 128] == sizes[80e9, 128] == 16
    assert 1 <= sizes[16e9, 65536] < sizes[80e9, 65536] <= sizes[80e9, 128]
    assert size(1.0, gpu=fast, **study(model)) == 1, "one at least, whatever is said of the card"


def test_what_lives_on_the_device_leaves_so_much_less_room() -> None:
    fast, card = replace(H100, flop_per_s={"bfloat16": 1e18, "float32": 1e18}), 24e9
    roomy = study("pythia-6.9b", memory_dim=4096)
    most = size(card, gpu=fast, **roomy)
    assert size(card, gpu=fast, **roomy, probes=("counterfact",)) < most, "the whole model is asked: 13.7 GB"
    assert size(card, gpu=fast, **{**roomy, "depth": 0.25}) < most, "more blocks above the memory"
    point = MAKER.point(make_spec({**roomy, "depth": 0.75}))
    for members in (1, most, most + 1):
        assert (PackMemory(point, True, card).of_pack(members).total <= USED_SHARE * card) == (members <= most)


def test_on_a_cpu_a_model_that_keeps_it_busy_is_not_packed():
    assert size(on_gpu=False, model="pythia-160m") == 1
    assert size(on_gpu=False, segment_tokens=64, batch_size=2) > 8
    assert size(3e8, on_gpu=False, segment_tokens=64, batch_size=2, memory_dim=65536) == 1


def test_sizes_of_a_plan_are_those_of_its_points_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        MAKER.point(make_spec({**study(model, alpha=alpha), "depth": 0.75}))
        for model in ("pythia-70m", "pythia-1b")
        for alpha in (0, 1, 2)
    ]
    wanted = [auto_pack_size(point, 80e9) for point in points]
    asked = []
    plain = packs.auto_pack_size
    monkeypatch.setattr(packs, "auto_pack_size", lambda point, *rest: asked.append(point) or plain(point, *rest))
    sizes = auto_pack_sizes(80e9)
    assert [sizes(point) for point in points] == wanted and len(asked) == 2


@pytest.mark.parametrize("name", FIELDS)
def test_points_share_a_pack_where_they_differ_in_what_members_may_differ_in(
    two_points: Callable[[str], list[Point]], name: str
) -> None:
    points = two_points(name)
    if name == "seed":
        assert len(make_packs(points, 2)) == 2, "the prompts that are trained on have other examples"
        points = [MAKER.point(vary(point.spec, {"content": "document"})) for point in points]
    declared = FIELDS["layer" if name == "depth" else name]  # a depth is a layer by the time it is a point
    assert (len(make_packs(points, 2)) == 1) == declared.may_differ


def test_what_only_some_adapters_leave_free_is_shared_by_the_members_of_others() -> None:
    for field in (name for name in FIELDS if FIELDS[name].by_adapter):
        for method in ("lora", "docguidance", "two_memories"):
            content = "document+template" if method == "two_memories" else "document"
            specs = [{"method": method, "layer": 3, "content": content, "num_shots": 0} for _ in range(2)]
            specs[1][field] = {"layer": 2, "seed": 5, "memory_dim": 64, "norm_and_gate": False}[field]
            points = [MAKER.point(make_spec(spec)) for spec in specs]
            assert len(make_packs(points, 2)) == (1 if points[0].id == points[1].id else 2), (method, field)
            asked = len({point.ask_key for point in points})
            assert asked == (1 if field == "seed" or points[0].id == points[1].id else 2), (method, field)


def test_five_seeds_are_one_pack() -> None:
    points = [MAKER.point(make_spec({"layer": 3, "seed": seed})) for seed in range(5)]
    assert len(make_packs(points, 16)) == 1


def test_members_of_one_seed_stand_together() -> None:
    values = [{"layer": 3, "seed": seed, "lr": lr} for lr in (1e-3, 1e-2, 1e-4) for seed in (1, 2)]
    packs = make_packs([MAKER.point(make_spec(each)) for each in values], 3)
    assert [[point.spec.seed for point in pack.points] for pack in packs] == [[1, 1, 1], [2, 2, 2]]


def test_a_pack_has_room_for_its_largest_member_times_their_number() -> None:
    dims = [64, 4096, 128, 4096, 64, 128]
    points = [
        MAKER.point(make_spec({"layer": 3, "memory_dim": dim, "lr": 1e-3 * (k + 1)})) for k, dim in enumerate(dims)
    ]
    packs = make_packs(points, lambda point: 8192 // point.spec.memory_dim)
    assert sorted(point.id for pack in packs for point in pack.points) == sorted(point.id for point in points)
    held = [[point.spec.memory_dim for point in pack.points] for pack in packs]
    assert held == [[64, 64], [128, 128], [4096, 4096]], "nobody takes the room of a larger one without need"
    assert len(make_packs(points, lambda point: 10**6 // point.spec.memory_dim)) == 1


def blocks_of(number: Callable[[int], int], size: int, slots: int = 1) -> list[list[int | None]]:
    """Return the blocks of each pack's trials, of so many trials at each of the model's first six blocks."""
    specs = [{"layer": layer, "lr": 1e-3 * (1 + k)} for layer in range(6) for k in range(number(layer))]
    packs = make_packs([MAKER.point(make_spec(each)) for each in specs], size, slots)
    assert sum(len(pack.points) for pack in packs) == len({point.id for pack in packs for point in pack.points})
    return [[point.spec.layer for point in pack.points] for pack in packs]


def test_blocks_share_a_pack_where_each_alone_would_leave_half_of_it_empty() -> None:
    assert blocks_of(lambda layer: 1, 16) == [[0, 1, 2, 3, 4, 5]]
    assert blocks_of(lambda layer: 2, 4) == [[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]], "neighbours stand together"
    assert blocks_of(lambda layer: 3, 4) == [[layer] * 3 for layer in range(6)]
    assert blocks_of(lambda layer: 1, 1) == [[layer] for layer in range(6)]
    assert blocks_of(lambda layer: 1, 16, slots=3) == [[0, 5], [1, 4], [2, 3]], "all slots have as much to do"
    assert blocks_of(lambda layer: 5 if layer == 3 else 1, 8) == [[0, 1, 2, 4, 5], [3] * 5]


def test_blocks_share_a_pack_as_far_as_their_hidden_states_may_stay_on_the_disk() -> None:
    points = [MAKER.point(make_spec({"layer": layer})) for layer in range(6)]
    _, each = CostModel({}).trunk(points[:1])
    at_once = {share: [len(p.points) for p in make_packs(points, 16, 1, share * each)] for share in (0.5, 1.0, 2.5, 9)}
    assert at_once == {0.5: [1] * 6, 1.0: [1] * 6, 2.5: [2] * 3, 9: [6]}
    asked = [(point, point.own) for point in points]
    assert [len(pack.points) for pack in make_ask_packs(asked, 16, 1, 3 * each)] == [3, 3]
    assert has_room(points[:2], points[2], lambda _: 16, 3 * each)
    assert not has_room(points[:2], points[2], lambda _: 16, 2 * each)
    assert has_room(points[:2], points[1], lambda _: 16, 2 * each), "its states are there"
    large = MAKER.point(make_spec({"layer": 3, "num_documents": 449, "model": "llama2-7b"}))
    assert STATES_BYTES / 3 < CostModel({}).trunk([large])[1] < STATES_BYTES / 2, "two layers of the study's largest"


def test_blocks_are_dealt_to_slots_only_where_all_packs_fit() -> None:
    points = [MAKER.point(make_spec({"layer": layer})) for layer in range(6)]

    def blocks(size: Callable[[Point], int], slots: int = 2) -> list[list[int | None]]:
        return [[point.spec.layer for point in pack.points] for pack in make_packs(points, size, slots)]

    assert blocks(lambda _: 16) == [[0, 3, 4], [1, 2, 5]]
    assert blocks(lambda point: 2 if point.spec.layer == 0 else 16) == [[0, 1], [2, 3], [4, 5]]
    points.append(MAKER.point(make_spec({"layer": 6})))
    assert blocks(lambda _: 16, slots=3) == [[0, 5, 6], [1, 4], [2, 3]]
    assert blocks(lambda point: 16 if point.spec.layer < 5 else 2, slots=3) == [[0, 1], [2, 3, 4], [5, 6]]
    sizes = [MAKER.point(make_spec({"layer": layer, "memory_dim": 64 * (1 + layer % 2)})) for layer in range(4)]
    dims = [[point.spec.memory_dim for point in pack.points] for pack in make_packs(sizes, 16, 2)]
    assert sorted(dims) == [[64, 64], [128, 128]], "nobody takes the room of a larger one without need"


def test_a_trial_of_another_block_joins_where_half_of_the_places_are_free() -> None:
    def point(layer: int, lr: float = 1e-3) -> Point:
        return MAKER.point(make_spec({"layer": layer, "lr": lr}))

    two = [point(3), point(3, 2e-3)]
    assert has_room(two, point(3, 3e-3), lambda _: 3) and not has_room(two, point(3, 3e-3), lambda _: 2)
    assert has_room(two, point(4), lambda _: 4) and not has_room(two, point(4), lambda _: 3)
    assert not has_room(two, point(4), lambda each: 2 if each.spec.layer == 4 else 8), "whoever is the largest decides"
