"""The floor counts what the mathematics needs, and every operation of a training step belongs to a kind."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.floor import compare, forward_flops, kind_of, lines, training_flops
from trainables.adapters.memory.bank import MemoryBank
from trainables.lm.card import model_card
from trainables.lm.head_loss import token_nll
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.upper import load_upper


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_training_flops_are_those_that_torch_counts(family, tiny_models):
    card, tokens, layer, memory_dim = model_card(str(tiny_models[family])), 12, 1, 16
    upper = load_upper(card, layer, torch.float32, "cpu")
    bank = MemoryBank(card.model_dim, memory_dim, True, [0])
    hidden, labels = torch.randn(1, tokens, card.model_dim), torch.arange(tokens)
    with FlopCounterMode(display=False) as counter:
        added, _ = bank(hidden[None])
        final = upper((hidden[None] + added)[0])
        token_nll(final[0], upper.head_weight, upper.head_bias, labels).sum().backward()
    text = TrainingText(TokenTree.chain(range(tokens + 1)), 0)
    found = training_flops(card, layer, memory_dim, [text])
    counted = found.total - found.attention  # torch does not count attention on a CPU
    angles = 2 * tokens * (card.head_dim // 2)  # of the rotary positions: a product with some transformers, counted
    assert 0 <= counter.get_total_flops() - counted <= angles


def test_attention_is_counted_along_the_branches_of_a_tree(tiny_models):
    card = model_card(str(tiny_models["llama"]))
    fork = TokenTree((1, 2, 3), (-1, 0, 0))  # 1 + 2 + 2 pairs
    found = forward_flops(card, 2, 16, [fork], read=2)
    assert found.attention == 4 * card.num_heads * card.head_dim * 5
    assert found.head == 2 * 2 * card.vocab_size * card.model_dim


def test_operations_are_told_apart():
    assert kind_of("aten::mm", True) == "matmul, head"
    assert kind_of("aten::addmm", False) == "matmul, blocks and memory"
    assert kind_of("aten::_scaled_dot_product_flash_attention_for_cpu_backward", False) == "attention"
    assert kind_of("aten::_log_softmax", True) == "softmax of the head's loss"
    assert kind_of("aten::_fused_adamw_", False) == "optimiser and clipping"
    assert kind_of("aten::linear", True) == kind_of("autograd::engine::evaluate_function: MmBackward0", False)


def test_a_trial_is_compared_with_its_floor(tiny_models, sample_data):
    table = compare(
        {
            "model": str(tiny_models["llama"]),
            "data": str(sample_data),
            "layer": 1,
            "num_documents": 3,
            "epochs": 2,
            "memory_dim": 16,
            "segment_tokens": 48,
        },
        repeats=1,
    )
    assert 0 < table["fraction"]["all_s"]["median"] < 1
    assert table["tokens_per_needed"]["training"] >= 1
    kinds = table["epoch"]["by_kind_s"]
    assert kinds["matmul, head"] > 0 and kinds["softmax of the head's loss"] > 0
    assert sum(kinds.values()) == pytest.approx(table["epoch"]["profiled_wall_s"], rel=0.05)
    assert "fraction of the floor" in "\n".join(lines(table))
