"""From final hidden states to logits, with what a family does behind its head's matrix.

Some scale their logits (Cohere, Granite), some cap them (Gemma 2: `cap * tanh(logits / cap)`). These are known here, so
that the loss can be computed over parts of the vocabulary; for any other the model's own `forward` is asked.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import MoeModelOutputWithPast


class _Final(nn.Module):
    """Stands for all blocks: what comes in is what comes out."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=inputs_embeds)


class OutputHead:
    """The head of a model.

    Attributes:
        scale: factor of the matrix' products.
        cap: largest size of a logit, or None.
        by_parts: the head is its matrix, `scale` and `cap`, nothing else.
    """

    def __init__(self, model: Any) -> None:
        """Take the head of a causal language model of `transformers`."""
        config = model.config
        self.scale = float(getattr(config, "logit_scale", None) or 1.0)
        self.scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        cap = getattr(config, "final_logit_softcapping", None)
        self.cap = float(cap) if cap else None
        self.by_parts = isinstance(model.get_output_embeddings(), nn.Linear)
        self._model = model

    def __call__(self, final: Tensor) -> Tensor:
        """Return logits `[..., vocab]` of final hidden states `[..., model_dim]`."""
        if not self.by_parts:
            return self._by_the_model(final)
        logits: Tensor = self._model.get_output_embeddings()(final)
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap

    def settle(self, final: Tensor, logits: Tensor, alike: Callable[[Tensor, Tensor], bool]) -> bool:
        """Find out which way gives these logits of these final states; say whether one does."""
        if self.by_parts and not alike(self(final), logits):
            self.by_parts = False
        return alike(self(final), logits)

    def general(self) -> None:
        """Ask the model itself from now on, whatever its head is."""
        self.by_parts = False

    def _by_the_model(self, final: Tensor) -> Tensor:
        model = copy.copy(self._model)
        model._modules = dict(self._model._modules)
        setattr(model, model.base_model_prefix, _Final())
        rows = final.reshape(1, -1, final.shape[-1])
        logits: Tensor = model(inputs_embeds=rows, use_cache=False).logits
        return logits.reshape(*final.shape[:-1], -1)
