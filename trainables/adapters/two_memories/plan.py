"""Two memories as planning sees them: one learns documents, one templates, at one block or two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.adapters.plan import TrainingPlan
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.two_memories.adapter import TwoMemoriesAdapter


@dataclass(frozen=True, kw_only=True)
class TwoMemoriesPlan(TrainingPlan):
    """A memory for documents and one for templates.

    Attributes:
        layer: block whose output the documents' memory adds to.
        template_layer: that of the templates' memory; None for the same.
        memory_dim: entries of each.
        norm_and_gate: LayerNorm and gate after the second linear map.
    """

    name: ClassVar[str] = "two_memories"
    packs: ClassVar[bool] = True

    layer: int
    template_layer: int | None
    memory_dim: int
    norm_and_gate: bool

    @property
    def layers(self) -> tuple[int, int]:
        """The blocks of the documents' and of the templates' memory."""
        return self.layer, self.layer if self.template_layer is None else self.template_layer

    def trunk_layer(self, card: ModelCard) -> int:
        """Return the lower block.

        Raises:
            ConfigError: the templates' block is none of the model's.
        """
        if max(self.layers) >= card.num_blocks:
            raise ConfigError(
                f"template_layer={self.template_layer}: {card.name} has {card.num_blocks} blocks, 0 to "
                f"{card.num_blocks - 1}; choose one of them"
            )
        return min(self.layers)

    def check(self, card: ModelCard) -> None:
        """Look for the templates' block."""
        self.trunk_layer(card)

    def added_params(self, card: ModelCard) -> int:
        """Return the weights of the memories' linear maps."""
        return 4 * card.model_dim * self.memory_dim

    def train_token_flops(self, card: ModelCard) -> float:
        """Count as for a memory of twice the entries, above the lower block."""
        blocks = card.active_block_params * self.trial_blocks(card)
        return 4 * (blocks + card.head_params) + 6 * self.added_params(card)

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return the method and both blocks: `two_memories L11 L23`."""
        second = identity["layer"] if identity["template_layer"] is None else identity["template_layer"]
        return [cls.name, f"L{identity['layer']}", f"L{second}"]

    @classmethod
    def load(cls) -> type[TwoMemoriesAdapter]:
        """Import the adapter."""
        from trainables.adapters.two_memories.adapter import TwoMemoriesAdapter

        return TwoMemoriesAdapter
