"""A tuned prefix as planning sees it: keys and values before every text, in every block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.adapters.prompt.plan import PromptPlan
from trainables.lm.card import ModelCard

if TYPE_CHECKING:
    from trainables.adapters.prefix.adapter import PrefixAdapter


@dataclass(frozen=True, kw_only=True)
class PrefixPlan(PromptPlan):
    """Prefix tuning (arXiv 2101.00190), by peft: without a network that makes the prefix."""

    name: ClassVar[str] = "prefix"
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {"prefix": ("virtual_tokens",)}

    def check(self, card: ModelCard) -> None:
        """Refuse a model whose blocks keep no keys and values, where its configuration is here."""
        from trainables.adapters.prefix.model import check_prefix

        check_prefix(card)

    def stored_params(self, card: ModelCard) -> int:
        """Return the numbers of the keys and values."""
        return self.virtual_tokens * card.num_blocks * 2 * card.num_kv_heads * card.head_dim

    def train_flops(self, card: ModelCard, tokens: float, texts: float) -> float:
        """Count the texts alone: keys and values go through no block."""
        return self.train_token_flops(card) * tokens

    @classmethod
    def load(cls) -> type[PrefixAdapter]:
        """Import the adapter."""
        from trainables.adapters.prefix.adapter import PrefixAdapter

        return PrefixAdapter
