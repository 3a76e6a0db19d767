"""A full update as planning sees it: every weight is trained, nothing can be shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.adapters.plan import TrainingPlan
from trainables.lm.card import ModelCard
from trainables.lm.pass_sizes import whole_logits_bytes

if TYPE_CHECKING:
    from trainables.adapters.full_update.adapter import FullUpdateAdapter


@dataclass(frozen=True, kw_only=True)
class FullUpdatePlan(TrainingPlan):
    """All weights of the model. They are not stored with the record: they are as large as the model."""

    name: ClassVar[str] = "full_update"
    packs: ClassVar[bool] = False

    def trunk_layer(self, card: ModelCard) -> None:
        """Return None: no block stays as it is."""
        return None

    def train_token_flops(self, card: ModelCard) -> float:
        """Count all weights forward, and backward for activations and for parameters."""
        return 6 * (card.active_block_params * card.num_blocks + card.head_params)

    def weight_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes of all weights."""
        return float(number_bytes * card.params)

    def member_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes of gradients and moments, in the model's own type; the values are its weights."""
        return float(3 * number_bytes * card.params)

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Count the inputs of linear maps too: they are kept for the gradients of weights."""
        inputs = 2 * card.model_dim + (card.experts_used_dim or card.intermediate_dim)
        return super().token_bytes(card, number_bytes) + number_bytes * card.num_blocks * inputs

    def head_pass_bytes(self, card: ModelCard, number_bytes: int, tokens: float, on_gpu: bool) -> float:
        """Return the bytes of all logits: their gradient goes to the head's weights."""
        return whole_logits_bytes(card, number_bytes, tokens)

    @classmethod
    def load(cls) -> type[FullUpdateAdapter]:
        """Import the adapter."""
        from trainables.adapters.full_update.adapter import FullUpdateAdapter

        return FullUpdateAdapter
