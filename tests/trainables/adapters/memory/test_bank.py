from __future__ import annotations

import pytest
import torch

from trainables.adapters.memory.bank import Memory, MemoryBank
from trainables.adapters.memory.leakage import leakage

K, D, M = 3, 8, 5


@pytest.fixture(params=[True, False], ids=["norm_and_gate", "plain"])
def norm_and_gate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_memory_is_the_formula_of_note_000() -> None:
    memory = Memory(D, M, seed=3)
    x = torch.randn(2, 4, D)
    inner = torch.nn.functional.gelu(x @ memory.up.weight.T + memory.up.bias)
    out = inner @ memory.down.weight.T + memory.down.bias
    expected = (out - out.mean(-1, keepdim=True)) / (out.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(memory(x), expected)


def test_linears_start_orthogonal_with_gain_sqrt_two_zero_bias_and_gate_one() -> None:
    memory = Memory(D, M)
    assert memory.gate is not None
    torch.testing.assert_close(memory.up.weight @ memory.up.weight.T, 2 * torch.eye(M))
    torch.testing.assert_close(memory.down.weight.T @ memory.down.weight, 2 * torch.eye(M))
    assert not memory.up.bias.any() and not memory.down.bias.any()
    assert memory.gate.tolist() == [1.0]


def test_building_a_memory_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    Memory(D, M, seed=5)
    MemoryBank(D, M, True, [1, 2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_member_equals_the_memory_of_its_seed_exactly(norm_and_gate: bool) -> None:
    bank = MemoryBank(D, M, norm_and_gate, [7, 0, 7])
    for member, seed in enumerate([7, 0, 7]):
        expected = Memory(D, M, norm_and_gate, seed).state_dict()
        state = bank.member_state(member)
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not torch.equal(bank.up_weight[0], bank.up_weight[1])


@pytest.mark.parametrize("shared", [True, False])
def test_bank_forward_is_each_member_alone(norm_and_gate: bool, shared: bool) -> None:
    bank = MemoryBank(D, M, norm_and_gate, range(K))
    hidden = torch.randn(1 if shared else K, 2, 6, D)
    mask = torch.rand(K, 2, 1, M) < 0.5
    added, activations = bank(hidden, mask)
    assert added.shape == (K, 2, 6, D) and activations.shape == (K, 2, 6, M)
    for k in range(K):
        rows = hidden[0 if shared else k]
        torch.testing.assert_close(added[k], bank.single(k)(rows, mask[k]))
        torch.testing.assert_close(activations[k], torch.nn.functional.gelu(bank.single(k).up(rows)))


def test_flat_positions_and_a_mask_for_all_members_are_accepted() -> None:
    bank = MemoryBank(D, M, True, range(K))
    hidden = torch.randn(K, 12, D)
    mask = torch.rand(1, 1, M) < 0.5
    added, activations = bank(hidden, mask)
    folded, _ = bank(hidden.view(K, 3, 4, D), mask.unsqueeze(0))
    assert activations.shape == (K, 12, M)
    assert torch.equal(added, folded.view(K, 12, D))


def test_a_part_of_the_members_gives_their_rows_and_gradients_only() -> None:
    bank = MemoryBank(D, M, True, range(K))
    hidden, mask = torch.randn(K, 4, D), torch.rand(K, 1, M) < 0.5
    part = slice(1, 3)
    added, activations = bank(hidden[part], mask[part], part)
    whole, whole_activations = bank(hidden, mask)
    torch.testing.assert_close(added, whole[part])
    torch.testing.assert_close(activations, whole_activations[part])
    added.square().sum().backward()
    assert bank.up_bias.grad is not None
    assert not bank.up_bias.grad[0].any() and bank.up_bias.grad[part].any(-1).all()


def test_low_precision_hidden_is_computed_in_float32_and_cast_back() -> None:
    bank = MemoryBank(D, M, True, range(K))
    hidden = torch.randn(1, 4, D, dtype=torch.bfloat16)
    added, activations = bank(hidden)
    exact, _ = bank(hidden.float())
    assert added.dtype == torch.bfloat16 and activations.dtype == torch.float32
    assert torch.equal(added, exact.bfloat16())


def test_hard_mode_leaves_entries_outside_the_mask_without_gradient(norm_and_gate: bool) -> None:
    bank = MemoryBank(D, M, norm_and_gate, range(K))
    mask = torch.zeros(K, 1, M, dtype=torch.bool)
    mask[0, :, :2] = mask[1, :, 2:4] = mask[2, :, 4:] = True
    added, _ = bank(torch.randn(1, 10, D), mask)
    (added * torch.randn_like(added)).sum().backward()
    assert bank.up_weight.grad is not None and bank.up_bias.grad is not None
    assert bank.down_weight.grad is not None
    outside = ~mask[:, 0]
    assert not bank.up_weight.grad[outside].any() and not bank.up_bias.grad[outside].any()
    assert not bank.down_weight.grad.mT[outside].any()
    assert bank.up_weight.grad[~outside].any(-1).all() and bank.down_weight.grad.mT[~outside].any(-1).all()


def test_activations_are_returned_before_the_mask() -> None:
    bank = MemoryBank(D, M, True, [0])
    hidden = torch.randn(1, 4, D)
    silenced, activations = bank(hidden, torch.zeros(1, 1, M, dtype=torch.bool))
    assert torch.equal(activations, bank(hidden)[1])
    assert not silenced.any()
    assert torch.equal(leakage(activations, torch.zeros(M, dtype=torch.bool)), torch.ones(1, 4))


def test_member_views_share_storage_with_the_stacks_whose_gradients_have_their_names() -> None:
    bank = MemoryBank(D, M, True, range(K))
    bank(torch.randn(1, 4, D))[0].square().sum().backward()
    view, gradients = bank.member_parameters(1)["up.weight"], bank.gradients()
    assert gradients["up.weight"] is bank.up_weight.grad is not None
    assert gradients.keys() == bank.member_parameters(1).keys()
    with torch.no_grad():
        view.fill_(2.5)
    assert (bank.up_weight[1] == 2.5).all() and not (bank.up_weight[0] == 2.5).any()
    assert bank.member_parameters(1)["up.weight"] is view
    assert {name for name, _ in bank.named_parameters()} >= {"up_weight", "gate"}
    assert len(list(bank.parameters())) == 7


def test_member_state_goes_from_one_bank_to_another(norm_and_gate: bool) -> None:
    source, target = MemoryBank(D, M, norm_and_gate, [1, 2]), MemoryBank(D, M, norm_and_gate, [3])
    target.load_member_state(0, source.member_state(1))
    hidden = torch.randn(1, 4, D)
    torch.testing.assert_close(target(hidden)[0][0], source(hidden)[0][1])
