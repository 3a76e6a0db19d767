"""Which linear maps of a block get a low-rank update, by their names. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from trainables.lm.card import ModelCard
from trainables.lm.config_shape import TWO_MATRICES

ALL, ATTENTION, MLP = "all", "attention", "mlp"
GROUPS = (ALL, ATTENTION, MLP)
"""Words for many maps: every linear map of a block, those of its attention, all the others."""


class LinearMap(NamedTuple):
    """A linear map of a block: its path there, and the sizes of what it takes and gives."""

    path: str
    inputs: int
    outputs: int


def is_target(path: str, targets: Collection[str]) -> bool:
    """Tell whether a linear map is meant.

    Args:
        path: its name within its block, such as `self_attn.q_proj`.
        targets: words of `GROUPS`, or names as peft's `target_modules` takes them: the whole path or its end. Maps of
            single experts are never meant: a token goes through few of them.
    """
    steps = path.split(".")
    if "experts" in steps:
        return False
    group = ATTENTION if any("attn" in step or "attention" in step for step in steps) else MLP
    return any(name in (ALL, group) or path == name or path.endswith(f".{name}") for name in targets)


def without_repetition(targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return the shortest spelling of the same targets."""
    if ALL in targets or {ATTENTION, MLP} <= set(targets):
        return (ALL,)
    return targets


def usual_maps(card: ModelCard) -> list[LinearMap]:
    """Return the linear maps of one block as its family names them, for estimates; Llama's where it is not known.

    A record has the exact number of trained parameters.
    """
    d, inner = card.model_dim, card.intermediate_dim
    query, key_value = card.num_heads * card.head_dim, card.num_kv_heads * card.head_dim
    fused = query + 2 * key_value
    if card.family == "gpt_neox":
        names = ("attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
    elif card.family == "gpt2":
        names = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    else:
        attention = [
            LinearMap("self_attn.q_proj", d, query),
            LinearMap("self_attn.k_proj", d, key_value),
            LinearMap("self_attn.v_proj", d, key_value),
            LinearMap("self_attn.o_proj", query, d),
        ]
        if card.experts_dim:
            return attention
        gate = [] if card.family in TWO_MATRICES else [LinearMap("mlp.gate_proj", d, inner)]
        return [*attention, *gate, LinearMap("mlp.up_proj", d, inner), LinearMap("mlp.down_proj", inner, d)]
    sizes = ((d, fused), (query, d), (d, inner), (inner, d))
    return [LinearMap(name, *size) for name, size in zip(names, sizes, strict=True)]
