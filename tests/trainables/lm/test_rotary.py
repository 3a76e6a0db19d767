"""Queries and keys turned in fewer kernels: the bits of the families' own functions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.models.cohere.modeling_cohere import apply_rotary_pos_emb as in_pairs
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as of_a_part
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as of_all
from transformers.models.olmo2.modeling_olmo2 import apply_rotary_pos_emb as in_float32

from trainables.lm.rotary import NAME, can_be_replaced, in_fewer_kernels, rotated, same_as

FP32, BF16 = torch.float32, torch.bfloat16


def example(turned: int, dtype: torch.dtype, angles: torch.dtype | None = None) -> list[Tensor]:
    """Return three members' queries and keys of two texts in a row, transposed as a block has them, cos and sin."""
    generator = torch.Generator().manual_seed(turned)
    both = torch.randn(3, 7, 4, 32, generator=generator, dtype=FP32).to(dtype).transpose(1, 2)
    angle = torch.randn(1, 7, turned // 2, generator=generator)
    angle = torch.cat([angle, angle], dim=-1)
    return [both[..., :16], both[:, :2, :, 16:], *(each.to(angles or dtype) for each in (angle.cos(), angle.sin()))]


def both_ways(function: Any, given: list[Tensor]) -> list[Tensor]:
    q, k = (each.detach().clone().requires_grad_() for each in given[:2])
    found = function(q, k, *given[2:])
    weights = [torch.linspace(-1, 1, each.numel()).view(each.shape).to(each.dtype) for each in found]
    return [*found, *torch.autograd.grad(found, (q, k), weights)]


@pytest.mark.parametrize("dtype", [FP32, BF16])
@pytest.mark.parametrize(("theirs", "turned"), [(of_all, 16), (of_a_part, 16), (of_a_part, 4)])
def test_values_and_gradients_are_the_familys_to_the_last_bit(theirs: Any, turned: int, dtype: torch.dtype) -> None:
    given = example(turned, dtype)
    for ours, expected in zip(both_ways(rotated, given), both_ways(theirs, given), strict=True):
        assert ours.dtype == expected.dtype and torch.equal(ours, expected)


def test_the_gradient_holds_where_the_halves_of_the_angles_differ() -> None:
    given = example(16, FP32)
    given[3] = torch.linspace(-1, 1, given[3].numel()).view(given[3].shape)
    assert all(map(torch.equal, both_ways(rotated, given), both_ways(of_all, given)))


def test_only_functions_that_give_the_same_are_replaced() -> None:
    assert same_as(of_all, FP32) and same_as(of_all, BF16) and same_as(of_a_part, FP32)
    assert not same_as(in_pairs, FP32)

    def other(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return of_all(q, k, cos, -sin)

    def of_values_only(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        q, k = of_all(q, k, cos, sin)
        return q + (q - q.detach()), k

    assert not same_as(other, FP32) and not same_as(of_values_only, FP32)
    assert not can_be_replaced(torch.nn.Linear(1, 1), FP32), "a module without such a function"


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_the_answer_is_the_same_where_gradients_are_off(off: Any) -> None:
    same_as.cache_clear()
    with off():
        assert same_as(of_all, FP32) and same_as(of_a_part, FP32)


def test_angles_of_another_type_are_left_to_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """OLMo 2 turns numbers of 16 bits by angles of 32."""
    from transformers import Olmo2Config, Olmo2ForCausalLM
    from transformers.models.olmo2 import modeling_olmo2

    with torch.device("meta"):
        model = Olmo2ForCausalLM(Olmo2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=1))
    given = example(16, BF16, angles=FP32)
    with in_fewer_kernels(model):
        replaced = getattr(modeling_olmo2, NAME)
        assert replaced is not in_float32
        assert all(map(torch.equal, both_ways(replaced, given), both_ways(in_float32, given)))
    assert getattr(modeling_olmo2, NAME) is in_float32, "outside, it is the family's own again"
