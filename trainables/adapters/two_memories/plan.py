"""Two memories as planning sees them: one learns documents, one templates, at one block or two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainables.adapters.memory.plan import MEMORY_FILE, MemoryPlan, memory_token_bytes
from trainables.adapters.plan import AdapterPlan, TrainingPlan
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.two_memories.adapter import TwoMemoriesAdapter

Kind = Literal["document", "template"]
KINDS: tuple[Kind, Kind] = ("document", "template")
FILES: Mapping[Kind, str] = {"document": MEMORY_FILE, "template": "template_memory.safetensors"}


@dataclass(frozen=True, kw_only=True)
class TwoMemoriesPlan(TrainingPlan):
    """A memory for documents and one for templates.

    Attributes:
        layer: block whose output the documents' memory adds to.
        template_layer: that of the templates' memory; None for the same.
        memory_dim: entries of each.
        norm_and_gate: LayerNorm and gate after the second linear map.
        content: what is trained on. A memory whose kind is not in it stays as the training to start from has left it.
    """

    name: ClassVar[str] = "two_memories"
    packs: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = tuple(FILES.values())
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "memory": ("memory_dim", "norm_and_gate"),
        "two_memories": ("layer", "template_layer", "memory_dim", "norm_and_gate"),
    }

    layer: int
    template_layer: int | None
    memory_dim: int
    norm_and_gate: bool
    content: str

    @property
    def learning(self) -> tuple[Kind, ...]:
        """The memories that are trained."""
        return tuple(kind for kind in KINDS if kind in self.content.split("+"))

    @property
    def taken(self) -> Kind:
        """The memory that a single earlier one becomes: the one that is not trained; the documents' if both are."""
        return "document" if "template" in self.learning else "template"

    def check_start(self, earlier: AdapterPlan) -> None:
        """Refuse a single memory of another block than that of the memory that it becomes."""
        super().check_start(earlier)
        layer, name = self.layers[KINDS.index(self.taken)], "layer" if self.taken == "document" else "template_layer"
        if isinstance(earlier, MemoryPlan) and earlier.layer != layer:
            raise ConfigError(f"{name}={layer}: the memory to start from is of layer={earlier.layer}; set it to that")

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

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Count as for a memory, twice."""
        return super().token_bytes(card, number_bytes) + 2 * memory_token_bytes(card.model_dim, self.memory_dim)

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
