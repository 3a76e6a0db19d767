from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from trainables.adapters.memory.bank import Memory, MemoryBank
from trainables.adapters.optimiser import PackOptimiser
from trainables.adapters.schedule import cosine_with_warmup

D, M, STEPS, WARMUP = 8, 6, 20, 4
SEEDS = [0, 1, 1, 2]
LRS = [1e-3, 1e-2, 3e-3, 1e-3]
DECAYS = [0.05, 0.01, 0.0, 0.5]
CLIPS = [10.0, 0.05, 1.0, 0.01]
ALL = [True] * len(SEEDS)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(16, D, generator=generator), torch.randn(16, D, generator=generator)


def make(members: list[int]) -> tuple[MemoryBank, PackOptimiser]:
    bank = MemoryBank(D, M, True, [SEEDS[k] for k in members])
    chosen = ([values[k] for k in members] for values in (LRS, DECAYS, CLIPS))
    lrs, decays, clips = chosen
    return bank, PackOptimiser(bank, lrs, decays, WARMUP, STEPS, clips)


def train(
    bank: MemoryBank,
    optimiser: PackOptimiser,
    steps: range,
    active: list[bool] | None = None,
    poison: int | None = None,
    finite: Tensor | None = None,
) -> Tensor:
    norms = torch.empty(0)
    for step in steps:
        inputs, targets = batch(step)
        added, _ = bank(inputs.unsqueeze(0))
        losses = (added - targets).square().mean(dim=(1, 2))
        if poison is not None:
            losses = losses * torch.tensor([math.nan if k == poison else 1.0 for k in range(len(losses))])
        optimiser.zero_grad()
        losses.sum().backward()
        norms = optimiser.step(active or [True] * bank.num_members, finite)
    return norms


def plain(member: int) -> Memory:
    """Train one member with nothing but torch's and transformers' own parts."""
    from transformers import get_cosine_schedule_with_warmup

    memory = Memory(D, M, True, SEEDS[member])
    adamw = torch.optim.AdamW(memory.parameters(), lr=LRS[member], weight_decay=DECAYS[member])
    schedule = get_cosine_schedule_with_warmup(adamw, WARMUP, STEPS)
    for step in range(STEPS):
        inputs, targets = batch(step)
        adamw.zero_grad()
        (memory(inputs) - targets).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(memory.parameters(), CLIPS[member])
        adamw.step()
        schedule.step()
    return memory


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=atol, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_schedule_equals_that_of_transformers() -> None:
    from transformers import get_cosine_schedule_with_warmup

    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(adamw, WARMUP, STEPS)
    for step in range(STEPS + 3):
        assert cosine_with_warmup(step, WARMUP, STEPS) == schedule.get_last_lr()[0]
        adamw.step()
        schedule.step()


def test_every_member_of_a_pack_evolves_as_alone_and_as_with_plain_torch() -> None:
    bank, optimiser = make([0, 1, 2, 3])
    train(bank, optimiser, range(STEPS))
    for member in range(4):
        alone, alone_optimiser = make([member])
        train(alone, alone_optimiser, range(STEPS))
        trained = bank.member_state(member)
        assert_same(trained, alone.member_state(0), atol=1e-6)
        assert_same(trained, dict(plain(member).state_dict()), atol=1e-6)
        start = Memory(D, M, True, SEEDS[member]).state_dict()
        assert (trained["up.weight"] - start["up.weight"]).abs().max() > 1e-3


def test_step_returns_gradient_norms_before_clipping() -> None:
    bank, optimiser = make([0, 1, 2, 3])
    norms = train(bank, optimiser, range(1), active=[True, True, True, False])
    memory = Memory(D, M, True, SEEDS[1])
    inputs, targets = batch(0)
    (memory(inputs) - targets).square().mean().backward()
    expected = torch.nn.utils.get_total_norm([p.grad for p in memory.parameters() if p.grad is not None])
    torch.testing.assert_close(norms[1], expected)
    assert norms[1] > CLIPS[1]


@pytest.mark.parametrize("told", ["host", "device"])
def test_an_inactive_member_is_frozen_and_disturbs_nobody(told: str) -> None:
    bank, optimiser = make([0, 1, 2, 3])
    reference, reference_optimiser = make([0, 1, 2, 3])
    train(bank, optimiser, range(5))
    train(reference, reference_optimiser, range(5))
    frozen, moments = bank.member_state(2), optimiser.member_state(2)
    flags = [True, True, False, True]
    who = {"active": flags} if told == "host" else {"finite": torch.tensor(flags)}
    train(bank, optimiser, range(5, 10), poison=2, **who)
    train(reference, reference_optimiser, range(5, 10))
    assert_same(bank.member_state(2), frozen, atol=0)
    assert_same(optimiser.member_state(2), moments, atol=0)
    assert optimiser.steps == [10, 10, 5, 10]
    for member in (0, 1, 3):
        assert_same(bank.member_state(member), reference.member_state(member), atol=0)
    train(bank, optimiser, range(5, 7), active=[False, False, True, False])
    alone, alone_optimiser = make([2])
    train(alone, alone_optimiser, range(7))
    assert_same(bank.member_state(2), alone.member_state(0), atol=1e-6)  # it goes on where it stood in the schedule


def test_a_slot_that_is_reset_is_a_new_member() -> None:
    bank, optimiser = make([0, 1, 2, 3])
    train(bank, optimiser, range(6))
    bank.load_member_state(1, Memory(D, M, True, SEEDS[1]).state_dict())
    optimiser.load_member_state(1, {"step": torch.tensor(0)})
    assert optimiser.steps == [6, 0, 6, 6] and optimiser.member_state(1).keys() == {"step"}
    train(bank, optimiser, range(6))
    alone, alone_optimiser = make([1])
    train(alone, alone_optimiser, range(6))
    assert_same(bank.member_state(1), alone.member_state(0), atol=1e-6)


def test_nan_in_one_member_reaches_no_other() -> None:
    bank, optimiser = make([0, 1, 2, 3])
    reference, reference_optimiser = make([0, 1, 2, 3])
    train(bank, optimiser, range(6), poison=1)
    train(reference, reference_optimiser, range(6))
    assert bank.up_weight[1].isnan().all()
    for member in (0, 2, 3):
        assert_same(bank.member_state(member), reference.member_state(member), atol=0)


@pytest.mark.parametrize("at", [0, 7])
def test_saved_and_loaded_state_continues_bit_identically(at: int) -> None:
    bank, optimiser = make([0, 1, 2, 3])
    train(bank, optimiser, range(at))
    saved = [(bank.member_state(k), optimiser.member_state(k)) for k in range(4)]
    train(bank, optimiser, range(at, 12))
    again, again_optimiser = make([0, 1, 2, 3])
    train(again, again_optimiser, range(3))  # a used pack, as after actor reuse
    for member, (parameters, moments) in enumerate(saved):
        again.load_member_state(member, parameters)
        again_optimiser.load_member_state(member, moments)
    train(again, again_optimiser, range(at, 12))
    for member in range(4):
        assert_same(again.member_state(member), bank.member_state(member), atol=0)
        assert_same(again_optimiser.member_state(member), optimiser.member_state(member), atol=0)


def test_a_member_goes_on_in_a_smaller_pack() -> None:
    bank, optimiser = make([0, 1, 2, 3])
    train(bank, optimiser, range(7))
    small, small_optimiser = make([2, 3])
    for position, member in enumerate([2, 3]):
        small.load_member_state(position, bank.member_state(member))
        small_optimiser.load_member_state(position, optimiser.member_state(member))
    train(bank, optimiser, range(7, STEPS))
    train(small, small_optimiser, range(7, STEPS))
    for position, member in enumerate([2, 3]):
        assert_same(small.member_state(position), bank.member_state(member), atol=1e-6)
