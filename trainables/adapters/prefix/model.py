"""A whole model with keys and values before every text in every block, as peft runs it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from peft import PrefixTuningConfig
from torch import Tensor

from trainables.adapters.prompt.model import PromptedModel
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.cut import skeleton
from trainables.lm.download import folder_here
from trainables.lm.reference import WholeModel


class PrefixedModel(PromptedModel):
    """A whole model, frozen and shared, behind a prefix of its own; trees are taken apart into their texts.

    Attributes:
        vectors: `[virtual_tokens, blocks * 2 * key-value heads * head_dim]`, float32.

    Raises:
        ConfigError: a model whose blocks do not take such keys and values.
    """

    def __init__(self, whole: WholeModel, card: ModelCard, virtual_tokens: int, seed: int) -> None:
        """Start from what the model itself makes of tokens drawn from the vocabulary (ours; peft draws at random).

        Args:
            whole: the model; it stays as it is.
            card: its shape.
            virtual_tokens: keys and values in each block.
            seed: of the draw; the global random state is left alone.
        """
        self._usual, self._card = whole.usual, card
        super().__init__(whole, card, virtual_tokens, seed)

    def _configured(self, card: ModelCard, virtual_tokens: int) -> PrefixTuningConfig:
        heads, head_dim = card.num_kv_heads, card.head_dim
        return PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens, num_layers=card.num_blocks,
            num_attention_heads=heads, token_dim=heads * head_dim,
        )  # fmt: skip

    def _initial(self, drawn: Tensor) -> Tensor:
        """Return the keys and values of some tokens, as peft lays them out: `[tokens, blocks, 2, heads, head_dim]`."""
        with self._usual() as model:
            found = torch.stack(kept_states(model, drawn[None], self._card))
        return found[:, 0].transpose(1, 2).transpose(0, 1).flatten(1).float()

    def _logits(self, tokens: Tensor, **told: Any) -> Tensor:
        with self._usual():
            logits: Tensor = self._peft(input_ids=tokens, use_cache=False).logits
        return logits


@torch.no_grad()
def kept_states(model: Any, tokens: Tensor, card: ModelCard) -> list[Tensor]:
    """Return the keys and values that a model keeps of tokens, block by block: `[rows, heads, tokens, head_dim]` each.

    Args:
        model: a causal language model of `transformers`; one of the device `meta` gives shapes alone.
        tokens: `[rows, tokens]`.
        card: its shape.

    Raises:
        ConfigError: some block keeps something else, so that no prefix can stand before it.
    """
    cache = getattr(model(input_ids=tokens, use_cache=True), "past_key_values", None)
    layers = getattr(cache, "layers", ())
    found: list[Any] = [getattr(layer, name, None) for layer in layers for name in ("keys", "values")]
    shape = (len(tokens), card.num_kv_heads, tokens.shape[1], card.head_dim)
    if len(found) != 2 * card.num_blocks or any(part is None or part.shape != shape for part in found):
        raise ConfigError(
            f"method=prefix: not every block of {type(model).__name__} keeps {card.num_kv_heads} keys and values of "
            f"{card.head_dim} numbers; choose method=prompt or lora"
        )
    return found


@lru_cache(maxsize=64)
def check_prefix(card: ModelCard) -> None:
    """Do the same for a model that is not loaded; a model of the hub that is not here yet is passed over.

    Raises:
        ConfigError: as `kept_states`.
    """
    if not card.is_hub or folder_here(card) is not None:
        model = skeleton(card).to(torch.bfloat16)  # products of experts have no shapes in float32
        kept_states(model, torch.zeros(1, 2, dtype=torch.long, device="meta"), card)
