"""The pretrained model as planning sees it: nothing is trained, only asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.adapters.plan import AdapterPlan
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.pretrained.adapter import PretrainedAdapter


@dataclass(frozen=True, kw_only=True)
class PretrainedPlan(AdapterPlan):
    """The model as it comes.

    Attributes:
        micro_batch_tokens: tokens in one forward pass.
    """

    name: ClassVar[str] = "pretrained"
    packs: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    micro_batch_tokens: int

    def trunk_layer(self, card: ModelCard) -> int:
        """Return the last block: only the final norm and the head remain."""
        return card.num_blocks - 1

    def train_token_flops(self, card: ModelCard) -> float:
        """Return nothing."""
        return 0.0

    @classmethod
    def load(cls) -> type[PretrainedAdapter]:
        """Import the adapter."""
        from trainables.adapters.pretrained.adapter import PretrainedAdapter

        return PretrainedAdapter
