"""The model as it comes, asked as trained ones are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from trainables.adapters.adapter import ModelParts, PackTexts
from trainables.adapters.pretrained.plan import PretrainedPlan
from trainables.adapters.split import SplitAdapter
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import TokenTree


class PretrainedAdapter(SplitAdapter[PretrainedPlan]):
    """No adapter at all: the states after the last block stay as they are."""

    def __init__(self, plans: Sequence[PretrainedPlan], parts: ModelParts, texts: PackTexts) -> None:
        """Compute the hidden states after the last block."""
        layers = [plan.trunk_layer(parts.card) for plan in plans]
        super().__init__(plans, parts, texts, layers, plans[0].micro_batch_tokens)

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Return the states as they are."""
        return hidden

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Return the whole model as it is."""
        yield self.parts.whole_model()
