"""Bytes that a forward and a backward pass take beside the weights, from a model's shape alone. Imports no torch.

Formulas are ours, counted by what autograd keeps of GPT-NeoX and Llama
(`tests/trainables/lm/test_pass_sizes.py`): whoever plans asks here how much a pass may take.
"""

from __future__ import annotations

from trainables.lm.card import ModelCard
from trainables.lm.config_shape import TWO_MATRICES

CPU_WORDS = 1024
"""Words of the vocabulary at one time on a CPU: few enough for a core's cache (ours; `python -m benchmarks parts`)."""
DEVICE_BYTES = 2**29
"""Bytes that the logits of one part may take elsewhere, in float32: as few parts as that allows, each being some 20
kernels (ours: 4,096 tokens of a vocabulary of 50,304 take two)."""
TRUNK_TOKENS = 8192
"""Tokens of a batch of the trunk, padding included (ours)."""
_FLOAT = 4


def block_numbers(card: ModelCard) -> int:
    """Return the numbers that one frozen block keeps for the backward pass, for each token.

    Inputs of the norms, queries, keys, values and what attention gives; and in the feed-forward part what the
    activation takes or, where a gate multiplies it, what both factors are. The weights are frozen, so the inputs of
    linear maps are not kept. (Counted: 6 times the width with GPT-NeoX, 6 to 8 with Llama, whose norms keep float32.)
    """
    inner = card.experts_used_dim or card.intermediate_dim
    return 8 * card.model_dim + (1 if card.family in TWO_MATRICES else 3) * inner


def head_bytes(card: ModelCard, number_bytes: int, tokens: float, on_gpu: bool) -> float:
    """Return what the head's loss takes at once, one part of the vocabulary after the other.

    Args:
        card: the model.
        number_bytes: of one of its numbers.
        tokens: whose loss is computed.
        on_gpu: there parts are as large as `DEVICE_BYTES` allows; on a CPU they have `CPU_WORDS` words.
    """
    part = min(DEVICE_BYTES, _FLOAT * tokens * card.vocab_size) if on_gpu else _FLOAT * tokens * CPU_WORDS
    # As the product gives them and in float32, while the part before is still there; two marks of a byte where a label
    # is; and the gradient so far, twice.
    return part * (2 + number_bytes / _FLOAT + 0.5) + tokens * card.model_dim * (2 * _FLOAT + number_bytes)


def whole_logits_bytes(card: ModelCard, number_bytes: int, tokens: float) -> float:
    """Return what a loss takes that keeps all logits: as they come, in float32, their softmax and its gradient."""
    return tokens * card.vocab_size * (number_bytes + 3 * _FLOAT)


def trunk_bytes(card: ModelCard, number_bytes: int) -> float:
    """Return what a batch of the trunk takes while one block after the other runs, nothing being kept."""
    inner = card.experts_used_dim or card.intermediate_dim
    return TRUNK_TOKENS * number_bytes * (6 * card.model_dim + 2 * inner)
