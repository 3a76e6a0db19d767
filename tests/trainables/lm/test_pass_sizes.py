"""Planned bytes of a pass against what autograd keeps, in models that run."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from benchmarks.launches import as_on_a_gpu
from benchmarks.random_model import RandomModel
from trainables.adapters.memory.plan import MemoryPlan
from trainables.lm.aliases import Alias
from trainables.lm.card import ModelCard
from trainables.lm.head_loss import token_nll
from trainables.lm.pass_sizes import CPU_WORDS, block_numbers, head_bytes
from trainables.lm.rotary import in_fewer_kernels

DTYPES = [torch.float32, torch.bfloat16]
TOKENS = 48


def kept_bytes(run: Callable[[], object], weights: list[torch.Tensor]) -> int:
    """Return the bytes that autograd keeps for the backward pass of a call, weights left out."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    found: dict[int, torch.Tensor] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in known:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        held = run()
    assert held is not None
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def card(family: str, model_dim: int, inner: int) -> ModelCard:
    return ModelCard("tiny", "tiny", "", "main", family, 4, model_dim, inner, 4, 4, model_dim // 4, 300, False)


def of_blocks(family: str, blocks: int, model_dim: int, inner: int, dtype: torch.dtype) -> int:
    """Return what so many frozen blocks keep for `TOKENS` tokens."""
    sizes = {
        "hidden_size": model_dim, "intermediate_size": inner, "num_hidden_layers": blocks, "num_attention_heads": 4,
        "vocab_size": 300,
    }  # fmt: skip
    kinds = {"gpt_neox": (GPTNeoXConfig, GPTNeoXForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    config, kind = kinds[family]
    model = kind(config(**sizes)).to(dtype).eval().requires_grad_(False)
    states = torch.randn(1, TOKENS, model_dim, dtype=dtype, requires_grad=True)

    def run() -> object:
        with in_fewer_kernels(model):
            return model.base_model(inputs_embeds=states, use_cache=False)

    return kept_bytes(run, [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("family", "model_dim", "inner"),
    [("gpt_neox", 64, 256), ("gpt_neox", 64, 1024), ("llama", 64, 172), ("llama", 128, 256)],
)
def test_a_block_keeps_what_is_planned_and_not_much_less(
    family: str, model_dim: int, inner: int, dtype: torch.dtype
) -> None:
    kept = (of_blocks(family, 5, model_dim, inner, dtype) - of_blocks(family, 1, model_dim, inner, dtype)) / 4
    planned = TOKENS * dtype.itemsize * block_numbers(card(family, model_dim, inner))
    assert 0.75 * planned <= kept <= 1.05 * planned


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("members", "memory_dim"), [(1, 16), (4, 16), (4, 512)])
def test_a_pack_keeps_no_more_than_is_planned(members: int, memory_dim: int, dtype: torch.dtype) -> None:
    shape = Alias("tiny", "", "gpt_neox", 8, 64, 256, 4, 4, 300, False, 64, 16)
    model = RandomModel(shape, 5, dtype, torch.device("cpu"))
    model.draw_texts((12, 20, 15, 17))
    with as_on_a_gpu(), model.attending("text_by_text"):
        pack = model.pack(members, memory_dim, allocation="partitioned", alpha=0.5)
        batch = pack.states[pack.layer].train.batch(range(4))
        weights = [*pack.upper.parameters(), *pack.stacks.parameters(), *pack.upper.buffers(), batch.hidden]
        kept = kept_bytes(lambda: pack.losses(batch, slice(0, members), batch), weights)
    plan = MemoryPlan.from_fields(vars(model.spec(memory_dim)))
    planned = 64 * members * plan.token_bytes(model.card, dtype.itemsize)
    assert 0.35 * planned < kept <= planned


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_heads_parts_take_no_more_than_is_planned(dtype: torch.dtype, on_gpu: bool) -> None:
    """By torch's own count of what is allocated while the loss is computed."""
    model_dim, words, tokens = 32, 4 * CPU_WORDS, 96
    shape = ModelCard("t", "t", "", "main", "gpt_neox", 2, model_dim, 64, 2, 2, 16, words, False)
    final = torch.randn(tokens, model_dim, dtype=dtype, requires_grad=True)
    weight, labels = torch.randn(words, model_dim, dtype=dtype), torch.randint(0, words, (tokens,))
    taken = most = 0

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as found:
        token_nll(final, weight, None, labels, words if on_gpu else CPU_WORDS)
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            taken += event.nbytes()
            most = max(most, taken)
    planned = head_bytes(shape, dtype.itemsize, tokens, on_gpu)
    assert 0.25 * planned < most <= planned
