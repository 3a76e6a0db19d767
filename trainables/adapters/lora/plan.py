"""A LoRA as planning sees it: low-rank updates of the blocks above one, so that what lies below runs once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.adapters.lora.targets import is_target, usual_maps
from trainables.adapters.plan import TrainingPlan
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.lora.adapter import LoraAdapter


@dataclass(frozen=True, kw_only=True)
class LoraPlan(TrainingPlan):
    """Low-rank updates `W + lora_alpha / rank * B A` (arXiv 2106.09685).

    Attributes:
        layer: the blocks above this one are updated.
        rank: rows of A, columns of B.
        lora_alpha: the update's weight, times the rank.
        lora_targets: which linear maps of a block (`targets.is_target`).
    """

    name: ClassVar[str] = "lora"
    packs: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("adapter_model.safetensors", "adapter_config.json")
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {"lora": ("layer", "rank", "lora_alpha", "lora_targets")}

    layer: int
    rank: int
    lora_alpha: float
    lora_targets: tuple[str, ...]

    def trunk_layer(self, card: ModelCard) -> int:
        """Return the block below those that are updated.

        Raises:
            ConfigError: it is the last one.
        """
        if self.layer >= card.num_blocks - 1:
            raise ConfigError(
                f"layer={self.layer}: a lora is on the blocks above it, and {card.name} has {card.num_blocks} blocks; "
                f"choose 0 to {card.num_blocks - 2}"
            )
        return self.layer

    def check(self, card: ModelCard) -> None:
        """Look for the maps in a model of this shape, where its configuration is here."""
        from trainables.adapters.lora.stacks import check_targets

        self.trunk_layer(card)
        check_targets(card, self.layer, self.lora_targets)

    def added_params(self, card: ModelCard) -> int:
        """Return the weights of A and B; an estimate for families whose blocks' maps have unusual names."""
        return self.rank * sum(self._in_and_out(card)) * self.trial_blocks(card)

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Count what goes into A too, in float32 (of which a model in float32 keeps but one for several maps)."""
        inputs = 4 * (self._in_and_out(card)[0] + self.rank)
        return super().token_bytes(card, number_bytes) + self.trial_blocks(card) * inputs

    def _in_and_out(self, card: ModelCard) -> tuple[int, int]:
        """Return the numbers that go into the updated maps of a block, and that come out."""
        maps = [found for found in usual_maps(card) if is_target(found.path, self.lora_targets)]
        inputs, outputs = sum(found.inputs for found in maps), sum(found.outputs for found in maps)
        return (inputs, outputs) if maps else (card.model_dim, card.model_dim)

    def train_token_flops(self, card: ModelCard) -> float:
        """Count blocks and head forward and, for activations only, backward; A and B also for their parameters."""
        blocks = card.active_block_params * self.trial_blocks(card)
        return 4 * (blocks + card.head_params) + 6 * self.added_params(card)

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return the method, the block below, and the rank: `lora L23 r8`."""
        return [cls.name, f"L{identity['layer']}", f"r{identity['rank']}"]

    @classmethod
    def load(cls) -> type[LoraAdapter]:
        """Import the adapter."""
        from trainables.adapters.lora.adapter import LoraAdapter

        return LoraAdapter
