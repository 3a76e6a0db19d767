"""The memory as planning sees it: a small module whose output is added to the hidden states after one block."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.adapters.memory.setting import ALLOCATIONS, SetSetting
from trainables.adapters.plan import TRAINED_PARAMETER_BYTES, TrainingPlan
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.memory.adapter import MemoryAdapter

__all__ = ["ALLOCATIONS", "MEMORY_FILE", "MemoryPlan"]

MEMORY_FILE = "memory.safetensors"
PRECISIONS = ("float32", "bfloat16")
"""How a memory's matrix products may be computed."""


def memory_token_bytes(model_dim: int, memory_dim: int, precision: str = "float32") -> float:
    """Return the bytes that one memory takes for each token in a pass forward and backward, float32 (ours).

    Of its entries, what the activation takes and gives is kept, and two more are there while leakage or a gradient is
    computed; of the states, what goes in, what comes out, and what the norm keeps. In bfloat16 what goes into the
    products, and what comes out of them, is there in that type too.
    """
    return 4.0 * (4 * memory_dim + 6 * model_dim) + (precision == "bfloat16") * 4.0 * (memory_dim + model_dim)


def memory_member_bytes(params: int, precision: str) -> float:
    """Return the bytes of a memory's weights with gradients and moments; in bfloat16, of a copy and its gradient."""
    return float(params * (TRAINED_PARAMETER_BYTES + (4 if precision == "bfloat16" else 0)))


@dataclass(frozen=True, kw_only=True)
class MemoryPlan(TrainingPlan):
    """One memory.

    Attributes:
        layer: block whose output it adds to.
        memory_dim: its entries (hidden units).
        norm_and_gate: LayerNorm and gate after its second linear map.
        memory_precision: how its matrix products are computed.
        allocation: how entries are given to documents, of `ALLOCATIONS`.
        mode: `inductive` (a loss keeps others' entries silent) or `hard` (a mask does).
        alpha: weight of the inductive loss.
        granularity: entries per document (`dim`) or per token.
        entries_per_group: hash functions of simset; None for a default by `memory_dim`.
        mem_seed: seed of the allocation.
        num_clusters: groups of documents; None for one each.
        grouping: how groups are found where there are fewer than documents.
        num_documents: documents asked for.
        leakage_sets: names of further entry sets under which a memory without one has its leakage measured.
    """

    name: ClassVar[str] = "memory"
    packs: ClassVar[bool] = True
    unequal: ClassVar[tuple[str, ...]] = ("layer", "seed", "memory_dim", "norm_and_gate")
    own_texts: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = (MEMORY_FILE,)
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {"memory": ("layer", "memory_dim", "norm_and_gate")}

    layer: int | None
    memory_dim: int
    norm_and_gate: bool
    memory_precision: str
    allocation: str
    mode: str
    alpha: float
    granularity: str
    entries_per_group: int | None
    mem_seed: int
    num_clusters: int | None
    grouping: str
    num_documents: int
    leakage_sets: tuple[str, ...]

    @property
    def setting(self) -> SetSetting:
        """What shapes its entry set."""
        return SetSetting.of(vars(self))

    def trunk_layer(self, card: ModelCard) -> int:
        """Return the memory's block."""
        return card.num_blocks - 1 if self.layer is None else self.layer

    @property
    def begins_as(self) -> Hashable | None:
        """What draws its weights, and how it computes: an inductive loss acts in training, a mask from the first."""
        if self.mode == "hard":
            return None
        return self.layer, self.memory_dim, self.norm_and_gate, self.memory_precision, self.seed

    def added_params(self, card: ModelCard) -> int:
        """Return the weights of the memory's two linear maps."""
        return 2 * card.model_dim * self.memory_dim

    def train_token_flops(self, card: ModelCard) -> float:
        """Count blocks and head forward and, for activations only, backward; the memory also for its parameters."""
        blocks = card.active_block_params * self.trial_blocks(card)
        return 4 * (blocks + card.head_params) + 6 * self.added_params(card)

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Count the memory's own too, in float32."""
        own = memory_token_bytes(card.model_dim, self.memory_dim, self.memory_precision)
        return super().token_bytes(card, number_bytes) + own

    def member_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Count what the products' precision needs too."""
        return memory_member_bytes(self.added_params(card), self.memory_precision)

    @property
    def own_precision(self) -> str:
        """How the memory's products are computed."""
        return self.memory_precision

    def metrics(self) -> tuple[str, ...]:
        """Return leakage under its own entry sets; without any, under every allocation that its size allows."""
        if self.allocation != "none" and (self.mode == "hard" or self.alpha != 0):
            return (*super().metrics(), "train/leakage", "memory/leakage")
        fits = self.memory_dim >= (self.num_clusters or self.num_documents)
        names = [name for name in ALLOCATIONS[1:] if fits or name not in ("random", "partitioned")]
        return (*super().metrics(), *(f"memory/leakage_{name}" for name in names))

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return the block, how entries are kept apart, and how they are allocated: `L23 a0.2 simset2`."""
        words = [f"L{identity['layer']}", "hard" if identity["mode"] == "hard" else f"a{identity['alpha']:g}"]
        if identity["allocation"] != "none":
            words.append(identity["allocation"] + ("-token" if identity["granularity"] == "token" else ""))
        return words

    @classmethod
    def load(cls) -> type[MemoryAdapter]:
        """Import the adapter."""
        from trainables.adapters.memory.adapter import MemoryAdapter

        return MemoryAdapter
