"""The hook adds the memory to what a block returns, a tensor or a tuple."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from trainables.adapters.memory.bank import Memory
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.reference import WholeModel, attach_memory


class Block(nn.Module):
    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, hidden: Tensor) -> Tensor | tuple[Tensor, str]:
        return (hidden * 2, "cache") if self.as_tuple else hidden * 2


@pytest.mark.parametrize("as_tuple", [False, True])
def test_every_row_of_the_batch_gets_the_memory(as_tuple: bool) -> None:
    block = Block(as_tuple)
    model = SimpleNamespace(base_model=SimpleNamespace(layers=[block]))
    hidden = torch.randn(3, 4, 8, dtype=torch.bfloat16)
    handle = attach_memory(model, lambda h: torch.ones_like(h, dtype=torch.float32), 0)
    output = block(hidden)
    added = output[0] if as_tuple else output
    assert torch.equal(added, hidden * 2 + 1) and added.dtype == torch.bfloat16
    assert not as_tuple or output[1] == "cache"
    handle.remove()
    again = block(hidden)
    assert torch.equal(again[0] if as_tuple else again, hidden * 2)


@pytest.mark.parametrize(
    ("width", "layer", "told"),
    [
        (24, 1, "the memory is for hidden states of 24 numbers, those of LlamaForCausalLM have 32"),
        (32, 9, r"layer=9: LlamaForCausalLM has blocks 0 to 3"),
        (32, -1, r"layer=-1: LlamaForCausalLM has blocks 0 to 3"),
    ],
)
def test_a_model_that_the_memory_does_not_fit_is_told_in_one_line(
    make_model: Callable[..., ModelCard], width: int, layer: int, told: str
) -> None:
    model = WholeModel(make_model(), torch.float32, "cpu").model
    with pytest.raises(ConfigError, match=told):
        attach_memory(model, Memory(width, 8), layer)
    attach_memory(model, Memory(32, 8), 1).remove()
