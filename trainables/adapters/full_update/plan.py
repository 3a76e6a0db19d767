"""A full update as planning sees it: every weight is trained, nothing can be shared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.adapters.plan import TRAINED_PARAMETER_BYTES, TrainingPlan
from trainables.lm.card import ModelCard

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

    def device_bytes(self, card: ModelCard, number_bytes: int, pack_size: int) -> float:
        """Return the bytes of all weights in training."""
        return card.params * TRAINED_PARAMETER_BYTES

    @classmethod
    def load(cls) -> type[FullUpdateAdapter]:
        """Import the adapter."""
        from trainables.adapters.full_update.adapter import FullUpdateAdapter

        return FullUpdateAdapter
