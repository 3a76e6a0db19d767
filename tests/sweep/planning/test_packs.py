"""How many trials share a forward pass when it is left to us."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sweep.planning.packs import LARGEST, auto_pack_size, make_packs
from sweep.planning.points import Point, PointMaker
from trainables.trial.spec import FIELDS, make_spec

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
    assert (len(make_packs(two_points(name), 2)) == 1) == FIELDS[name].may_differ
