from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.memory.leakage import leakage


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), exponent=st.integers(-12, 12), share=st.floats(0, 1))
def test_leakage_lies_between_zero_and_one_whatever_the_scale(seed: int, exponent: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    activations = torch.randn(2, 3, 4, 16, generator=generator)
    mask = torch.rand(2, 3, 1, 16, generator=generator) < share
    value = leakage(activations, mask)
    assert value.shape == (2, 3, 4)
    assert (value >= 0).all() and (value <= 1 + 1e-6).all()
    torch.testing.assert_close(leakage(activations * 10.0**exponent, mask), value, atol=1e-6, rtol=1e-5)


def test_leakage_is_the_share_of_energy_outside() -> None:
    activations = torch.tensor([[[3.0, -4.0, 0.0], [1.0, 1.0, 1.0]]])
    mask = torch.tensor([True, False, False])
    torch.testing.assert_close(leakage(activations, mask), torch.tensor([[16 / 25, 2 / 3]]))


def test_leakage_is_zero_inside_the_set_and_without_energy() -> None:
    activations = torch.randn(2, 5, 8)
    everything, nothing = torch.ones(8, dtype=torch.bool), torch.zeros(8, dtype=torch.bool)
    assert not leakage(activations, everything).any()
    assert not leakage(activations, None).any()
    silent = torch.zeros(2, 5, 8, requires_grad=True)
    value = leakage(silent, nothing)
    value.sum().backward()
    assert not value.any() and silent.grad is not None and not silent.grad.any()


def test_higher_alpha_pushes_more_activity_into_the_set() -> None:
    alphas = torch.tensor([0.0, 0.2, 1.0, 5.0])
    bank = MemoryBank(16, 24, True, [0] * 4)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(1, 64, 16, generator=generator)
    target = torch.randn(64, 16, generator=generator)
    mask = torch.arange(24) < 6
    adam = torch.optim.Adam(bank.parameters(), lr=3e-3)
    leaks = torch.zeros(4)
    before = leakage(bank(hidden)[1], mask).mean(-1)
    for _ in range(60):
        added, activations = bank(hidden)
        leaks = leakage(activations, mask).mean(-1)
        loss = (added - target).square().mean(dim=(1, 2)) + alphas * leaks
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
    assert (leaks.diff() < -0.01).all()
    assert leaks[-1] < 0.4 * before[-1]
