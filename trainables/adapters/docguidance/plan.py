"""A memory under document guidance as planning sees it: every text runs under two keys, its own and a wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.adapters.memory.plan import memory_token_bytes
from trainables.adapters.plan import TrainingPlan
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.docguidance.adapter import DocGuidanceAdapter

ACTIVATIONS = ("tanh", "relu", "gelu")
NEGATIVES = ("other", "zero", "random", "perturbed")


@dataclass(frozen=True, kw_only=True)
class DocGuidancePlan(TrainingPlan):
    """A memory with document vectors (arXiv 2406.15996).

    Attributes:
        layer: block whose output it adds to.
        memory_dim: its entries.
        key_dim: numbers of a document's vector.
        activation: of entries, gates and output, of `ACTIVATIONS`.
        negatives: the key under which a text is not to be known, of `NEGATIVES`.
        guidance_target: the NLL that a text is to have under that key.
        guidance_alpha: weight of the guidance loss.
        num_documents: documents asked for.
    """

    name: ClassVar[str] = "docguidance"
    packs: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("docguidance.safetensors",)
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "docguidance": ("layer", "memory_dim", "key_dim", "activation", "seed")
    }

    layer: int
    memory_dim: int
    key_dim: int
    activation: str
    negatives: str
    guidance_target: float
    guidance_alpha: float
    num_documents: int

    def trunk_layer(self, card: ModelCard) -> int:
        """Return the memory's block."""
        return self.layer

    def check(self, card: ModelCard) -> None:
        """Refuse the vector of another document where there is none."""
        self.check_documents(self.num_documents)

    def check_documents(self, count: int) -> None:
        """Refuse the vector of another document among so many.

        Raises:
            ConfigError: there is one only.
        """
        if self.negatives == "other" and count < 2:
            raise ConfigError(
                "negatives=other: there is no other document than the one; raise num_documents, or set negatives=zero"
            )

    def added_params(self, card: ModelCard) -> int:
        """Return the weights of the memory's three linear maps."""
        return 2 * card.model_dim * self.memory_dim + card.model_dim**2

    def train_token_flops(self, card: ModelCard) -> float:
        """Count as for a memory, under both keys."""
        blocks = card.active_block_params * self.trial_blocks(card)
        return 2 * (4 * (blocks + card.head_params) + 6 * self.added_params(card))

    def own_token_flops(self, card: ModelCard) -> float:
        """Count the memory under both keys."""
        return 2 * super().own_token_flops(card)

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Count blocks and memory under both keys."""
        return 2 * (super().token_bytes(card, number_bytes) + memory_token_bytes(card.model_dim, self.memory_dim))

    def head_pass_bytes(self, card: ModelCard, number_bytes: int, tokens: float, on_gpu: bool) -> float:
        """Count the loss under both keys."""
        return super().head_pass_bytes(card, number_bytes, 2 * tokens, on_gpu)

    def metrics(self) -> tuple[str, ...]:
        """Return the error under wrong keys too, in training and over all documents."""
        return (*super().metrics(), "train/nll_negative", "memory/nll_negative")

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return the method, the block, and what guides it: `docguidance L23 tanh other t4.5`."""
        guided = f"t{identity['guidance_target']:g}"
        return [cls.name, f"L{identity['layer']}", identity["activation"], identity["negatives"], guided]

    @classmethod
    def load(cls) -> type[DocGuidanceAdapter]:
        """Import the adapter."""
        from trainables.adapters.docguidance.adapter import DocGuidanceAdapter

        return DocGuidanceAdapter
