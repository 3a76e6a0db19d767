"""A whole model with vectors before every text, as peft runs it."""

from __future__ import annotations

from typing import Any

import torch
from peft import PromptLearningConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn

from trainables.lm.card import ModelCard
from trainables.lm.reference import WholeModel


class PromptedModel(WholeModel):
    """A whole model, frozen and shared, behind vectors of its own; trees are taken apart into their texts.

    Attributes:
        vectors: `[virtual_tokens, model_dim]`, float32, before every text.
        config: peft's description.
    """

    def __init__(self, whole: WholeModel, card: ModelCard, virtual_tokens: int, seed: int) -> None:
        """Start from embeddings of tokens drawn from the vocabulary, each at most once, as peft's `SAMPLE_VOCAB`.

        Args:
            whole: the model; it stays as it is.
            card: its shape.
            virtual_tokens: vectors.
            seed: of the draw; the global random state is left alone.
        """
        nn.Module.__init__(self)
        self.model, self._direct = whole.model, False
        self.config = self._configured(card, virtual_tokens)
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):  # drawn values are not used
            self._peft: Any = get_peft_model(self.model, self.config)
        rows = len(self.model.get_input_embeddings().weight)
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
        drawn = order.repeat(-(-virtual_tokens // rows))[:virtual_tokens].to(self.device)
        self.vectors: nn.Parameter = self._peft.prompt_encoder["default"].embedding.weight
        self.vectors.data = self._initial(drawn)
        self.vectors.requires_grad_(True)

    def _configured(self, card: ModelCard, virtual_tokens: int) -> PromptLearningConfig:
        """Return peft's description."""
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)

    def _initial(self, drawn: Tensor) -> Tensor:
        """Return the vectors to start from, given tokens."""
        rows: Tensor = self.model.get_input_embeddings().weight
        return rows.data[drawn].float()

    def _logits(self, tokens: Tensor, **told: Any) -> Tensor:
        logits: Tensor = self._peft(input_ids=tokens, use_cache=False).logits
        return logits[:, len(self.vectors) :]
