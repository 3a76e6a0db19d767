"""How many trials share a forward pass when it is left to us."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweep.planning.flops import CostModel
from sweep.planning.packs import LARGEST, STATES_BYTES, auto_pack_size, has_room, make_ask_packs, make_packs
from sweep.planning.points import Point, PointMaker
from trainables.trial.making import make_spec, vary
from trainables.trial.spec import FIELDS

MAKER = PointMaker()


def size(memory_bytes: float = 80e9, on_gpu: bool = True, **values: object) -> int:
    return auto_pack_size(MAKER.point(make_spec({"layer": 3, **values})), memory_bytes, on_gpu)


def test_small_models_share_many_and_large_memories_fewer():
    assert size(segment_tokens=64, batch_size=2) == LARGEST
    big = {"model": "llama2-7b", "memory_dim": 12288}
    assert size(20e9, **big) < size(80e9, **big) <= 16
    assert size(1.0, **big) == 1


def test_on_a_cpu_a_model_that_keeps_it_busy_is_not_packed():
    assert size(on_gpu=False, model="pythia-160m") == 1
    assert size(on_gpu=False, segment_tokens=64, batch_size=2) > 8


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
    assert blocks_of(lambda layer: 1, 16, slots=3) == [[0, 1], [2, 3], [4, 5]], "all slots have something to do"
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


def test_a_trial_of_another_block_joins_where_half_of_the_places_are_free() -> None:
    def point(layer: int, lr: float = 1e-3) -> Point:
        return MAKER.point(make_spec({"layer": layer, "lr": lr}))

    two = [point(3), point(3, 2e-3)]
    assert has_room(two, point(3, 3e-3), lambda _: 3) and not has_room(two, point(3, 3e-3), lambda _: 2)
    assert has_room(two, point(4), lambda _: 4) and not has_room(two, point(4), lambda _: 3)
    assert not has_room(two, point(4), lambda each: 2 if each.spec.layer == 4 else 8), "whoever is the largest decides"
