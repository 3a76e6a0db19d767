"""The forming of a memory's entry sets as planning sees it: no language model is loaded, nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.adapters.memory.setting import SetSetting
from trainables.adapters.plan import AdapterPlan
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.allocate.adapter import AllocateAdapter


@dataclass(frozen=True, kw_only=True)
class AllocatePlan(AdapterPlan):
    """The entry sets of a memory, alone: memory formation as an experiment of its own (note 002).

    Attributes:
        memory_dim: entries of the memory.
        allocation: how entries are given to documents.
        granularity: entries per document (`dim`) or per token.
        entries_per_group: hash functions of simset; None for a default by `memory_dim`.
        mem_seed: seed of the allocation.
        num_clusters: groups of documents; None for one each.
        grouping: how groups are found where there are fewer than documents.
        num_documents: documents asked for.
        micro_batch_tokens: tokens in one forward pass, should the model be asked.
    """

    name: ClassVar[str] = "allocate"
    packs: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    has_error: ClassVar[bool] = False

    memory_dim: int
    allocation: str
    granularity: str
    entries_per_group: int | None
    mem_seed: int
    num_clusters: int | None
    grouping: str
    num_documents: int
    micro_batch_tokens: int

    @property
    def setting(self) -> SetSetting:
        """What shapes the sets."""
        return SetSetting.of(vars(self))

    def trunk_layer(self, card: ModelCard) -> None:
        """Return nothing: no state of the model is wanted."""
        return None

    def weight_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return those of the head: should the model be asked, its last block's states are kept."""
        return float(number_bytes * card.head_params)

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return nothing: no block runs."""
        return 0.0

    def train_token_flops(self, card: ModelCard) -> float:
        """Return nothing."""
        return 0.0

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return the method and the set's name: `allocate simset2-token_n8`."""
        return [cls.name, SetSetting.of(identity).name]

    @classmethod
    def load(cls) -> type[AllocateAdapter]:
        """Import the adapter."""
        from trainables.adapters.allocate.adapter import AllocateAdapter

        return AllocateAdapter
