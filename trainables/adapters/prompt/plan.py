"""A tuned prompt as planning sees it: vectors before every text, through all blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.adapters.plan import TRAINED_PARAMETER_BYTES, TrainingPlan
from trainables.lm.card import ModelCard
from trainables.lm.pass_sizes import whole_logits_bytes

if TYPE_CHECKING:
    from trainables.adapters.prompt.adapter import PromptAdapter


@dataclass(frozen=True, kw_only=True)
class PromptPlan(TrainingPlan):
    """Prompt tuning (arXiv 2104.08691), by peft.

    Attributes:
        virtual_tokens: vectors before every text.
    """

    name: ClassVar[str] = "prompt"
    packs: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ("adapter_model.safetensors", "adapter_config.json")
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {"prompt": ("virtual_tokens",)}

    virtual_tokens: int

    @property
    def added_tokens(self) -> int:
        """Return the vectors."""
        return self.virtual_tokens

    def trunk_layer(self, card: ModelCard) -> None:
        """Return None: the vectors change what every block sees."""
        return None

    def added_params(self, card: ModelCard) -> int:
        """Return nothing: the vectors multiply no token."""
        return 0

    def stored_params(self, card: ModelCard) -> int:
        """Return the vectors' numbers."""
        return self.virtual_tokens * card.model_dim

    def train_token_flops(self, card: ModelCard) -> float:
        """Count all weights forward and, for activations only, backward."""
        return 4 * (card.active_block_params * card.num_blocks + card.head_params)

    def train_flops(self, card: ModelCard, tokens: float, texts: float) -> float:
        """Count the vectors' way through the blocks too, once for each text."""
        vectors = 4 * card.active_block_params * card.num_blocks * self.virtual_tokens * texts
        return super().train_flops(card, tokens, texts) + vectors

    def weight_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes of the whole model."""
        return float(number_bytes * card.params)

    def member_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes of what is trained: it is what is stored."""
        return float(self.stored_params(card) * TRAINED_PARAMETER_BYTES)

    def head_pass_bytes(self, card: ModelCard, number_bytes: int, tokens: float, on_gpu: bool) -> float:
        """Return the bytes of all logits, which the plain loss keeps."""
        return whole_logits_bytes(card, number_bytes, tokens)

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return the method and the number of vectors: `prompt v20`."""
        return [cls.name, f"v{identity['virtual_tokens']}"]

    @classmethod
    def load(cls) -> type[PromptAdapter]:
        """Import the adapter."""
        from trainables.adapters.prompt.adapter import PromptAdapter

        return PromptAdapter
