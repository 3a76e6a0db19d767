"""Products of a memory in bfloat16: near float32, the same alone and in a pack, and stated wherever it is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from sweep.planning.packs import make_packs
from sweep.planning.points import PointMaker
from trainables.adapters.adapter import Adapter
from trainables.adapters.memory.bank import Memory, MemoryBank
from trainables.adapters.memory.io import load_memory, save_memory
from trainables.errors import ConfigError, DataError
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec

D, M = 24, 40
NEAR = 2e-2
"""Of bfloat16, whose numbers are 0.4 % apart, over two products."""


def outputs(precision: str, members: int = 3, **values: Any) -> tuple[torch.Tensor, ...]:
    bank = MemoryBank(D, M, True, range(members), precision=precision)
    hidden = torch.randn(1, 11, D, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(M) < values.get("used", M)
    with torch.no_grad():
        return bank(hidden, mask)


def test_weights_start_alike_and_outputs_are_near_but_not_equal() -> None:
    banks = [MemoryBank(D, M, True, [4, 5], precision=precision) for precision in ("float32", "bfloat16")]
    for one, other in zip(*(bank.parameters() for bank in banks), strict=True):
        assert torch.equal(one, other) and other.dtype == torch.float32
    for exact, found in zip(outputs("float32", used=17), outputs("bfloat16", used=17), strict=True):
        assert found.dtype == torch.float32
        assert 1e-5 < float((found - exact).norm() / exact.norm()) < NEAR


def test_gradients_are_float32_and_near() -> None:
    found = []
    for precision in ("float32", "bfloat16"):
        bank = MemoryBank(D, M, True, [4, 5], precision=precision)
        hidden = torch.randn(2, 11, D, generator=torch.Generator().manual_seed(1), requires_grad=True)
        added, activations = bank(hidden)
        (added.square().sum() + activations.square().sum()).backward()
        found.append([hidden.grad, *(parameter.grad for parameter in bank.parameters())])
    for exact, near in zip(*found, strict=True):
        assert exact is not None and near is not None and near.dtype == torch.float32
        assert float((near - exact).norm()) <= NEAR * float(exact.norm()) + 1e-6


def test_a_member_alone_and_the_plain_memory_are_what_the_bank_is() -> None:
    bank = MemoryBank(D, M, [True, False], [4, 5], precision="bfloat16")
    hidden = torch.randn(1, 11, D, generator=torch.Generator().manual_seed(1))
    bank.requires_grad_(False)
    together, _ = bank(hidden)
    for k in range(2):
        assert bank.single(k).precision == "bfloat16"
        for alone in (bank(hidden, members=slice(k, k + 1))[0][0], bank.single(k)(hidden[0])):
            assert float((alone.detach() - together[k]).norm()) <= 2e-3 * float(together[k].norm())


def test_a_file_says_it_where_it_is_not_float32(tmp_path: Path) -> None:
    paths = {precision: tmp_path / f"{precision}.safetensors" for precision in ("float32", "bfloat16")}
    state = Memory(D, M).state_dict()
    for precision, path in paths.items():
        save_memory(path, state, layer=1, model="m", precision=precision)
        assert load_memory(path).memory.precision == precision
    told = {precision: safe_open(path, "pt").metadata() for precision, path in paths.items()}
    assert "precision" not in told["float32"] and told["bfloat16"]["precision"] == "bfloat16"
    save_memory(paths["float32"], state, layer=1, model="m", precision="int1")
    with pytest.raises(DataError, match="precision='int1': must be one of float32, bfloat16"):
        load_memory(paths["float32"])


@pytest.mark.parametrize("method", ["memory", "two_memories"])
def test_it_is_part_of_a_trial_only_where_it_is_not_the_default(method: str) -> None:
    base = {"method": method, "layer": 1, "content": "document+template", "num_shots": 0}
    one, same, other = (
        make_spec({**base, **more}) for more in ({}, {"memory_precision": "float32"}, {"memory_precision": "bfloat16"})
    )
    ids = [trial_id(identity(spec)) for spec in (one, same, other)]
    assert ids[0] == ids[1] != ids[2]
    points = [PointMaker().point(spec) for spec in (one, other)]
    assert len(make_packs(points, 2)) == 2, "one precision a pack"
    assert points[0].ask_key != points[1].ask_key
    unused = canonical(make_spec({"method": "lora", "layer": 1, "memory_precision": "bfloat16"}))
    assert unused.memory_precision == "float32"
    with pytest.raises(ConfigError, match="memory_precision='tf32': must be one of float32, bfloat16"):
        make_spec({"memory_precision": "tf32", "layer": 1})


SETS: list[dict[str, Any]] = [
    {}, {"allocation": "partitioned", "alpha": 1.0}, {"allocation": "simset2", "mode": "hard"},
    {"method": "two_memories", "content": "document+template", "num_shots": 0},
]  # fmt: skip


@pytest.mark.parametrize("values", SETS, ids=["free", "inductive", "hard", "two"])
def test_a_trial_trains_evaluates_and_is_stored_in_it(values: dict[str, Any], build: Any, small_trial: Any) -> None:
    specs = [small_trial(layer=1, memory_precision=name, **values) for name in ("float32", "bfloat16")]
    exact, near = (build(spec, small_trial(**{**vars(spec), "lr": 5e-4})) for spec in specs)
    losses = []
    for adapter in (exact, near):
        for epoch in range(2):
            adapter.train_epoch(epoch)
        losses.append(adapter.nll(adapter.texts.segments))
    assert losses[0] == pytest.approx(losses[1], rel=NEAR) and losses[0] != losses[1]
    alone = build(specs[1])
    for epoch in range(2):
        alone.train_epoch(epoch)
    assert alone.nll(alone.texts.segments)[0] == pytest.approx(losses[1][0], rel=2e-3)
    files = near.stored(0)
    for content in files.values():
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert header["__metadata__"]["precision"] == "bfloat16"
    again: Adapter[Any] = build(specs[1])
    again.load_stored(0, files)
    assert again.nll(again.texts.segments)[0] == pytest.approx(losses[1][0], rel=2e-3)


def test_a_whole_model_with_the_memory_attached_answers_in_it(build: Any, small_trial: Any) -> None:
    adapter = build(small_trial(layer=1, memory_precision="bfloat16"))
    seen = []
    with adapter.attached(0) as whole, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Memory, "forward", lambda memory, hidden, mask=None: seen.append(memory.precision) or hidden * 0)
        whole(torch.tensor([[1, 2, 3]]))
    assert seen == ["bfloat16"]


def test_a_pack_is_planned_at_its_precisions_speed_and_bytes() -> None:
    from sweep.planning.device_memory import PackMemory
    from sweep.planning.flops import CostModel
    from sweep.planning.gpus import A100

    told = {"model": "pythia-410m", "data": "fever", "depth": 0.75, "dtype": "bfloat16", "memory_dim": 65536}
    exact, near = (
        PointMaker().point(make_spec({**told, "memory_precision": name})) for name in ("float32", "bfloat16")
    )
    works = [CostModel({}).work(point).by_precision("bfloat16") for point in (exact, near)]
    assert set(works[0]) == {"float32", "bfloat16"} and set(works[1]) == {"bfloat16"}
    assert sum(works[0].values()) == pytest.approx(sum(works[1].values()))
    assert A100.seconds(works[0]) > 5 * A100.seconds(works[1])
    held = [PackMemory(point).of_pack(4) for point in (exact, near)]
    assert held[1].trained == held[0].trained * 20 / 16 and held[1].passing > held[0].passing
