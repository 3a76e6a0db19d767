"""Entry sets formed from the documents' tokens; the language model is loaded only if somebody asks it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trainables.adapters.adapter import Adapter, Findings, ModelParts, PackTexts
from trainables.adapters.allocate.plan import AllocatePlan
from trainables.adapters.memory.entry_sets import EntrySets
from trainables.adapters.pretrained.adapter import PretrainedAdapter
from trainables.adapters.pretrained.plan import PretrainedPlan
from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree


class AllocateAdapter(Adapter[AllocatePlan]):
    """The sets of one memory that is not there: its language model is the pretrained one.

    Raises:
        ConfigError: fewer entries than groups of documents.
    """

    def __init__(self, plans: Sequence[AllocatePlan], parts: ModelParts, texts: PackTexts) -> None:
        """Form the sets."""
        super().__init__(plans, parts, texts)
        sets = parts.keep("entry_sets", None, lambda: EntrySets(texts.segments, texts.num_documents, parts.map_batches))
        self.entry_set = sets.of(plans[0].setting, plans[0].memory_dim)

    @cached_property
    def _model(self) -> PretrainedAdapter:
        plan = PretrainedPlan(micro_batch_tokens=self.plans[0].micro_batch_tokens)
        return PretrainedAdapter([plan], self.parts, self.texts)

    @property
    def nll_before(self) -> float:
        """The memorisation error of the model as it comes."""
        return self._model.nll_before

    def findings(self) -> list[Findings]:
        """Return the analysis of the sets."""
        return [Findings(analysis=self.entry_set.described())]

    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return what the pretrained model says (`ModelMembers`)."""
        return self._model.next_tokens(trees, documents, nodes)

    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return the pretrained model's error (`ModelMembers`)."""
        return self._model.nll(texts)

    def attached(self, member: int, document: int | None = None) -> AbstractContextManager[WholeModel]:
        """Return the whole model as it is."""
        return self._model.attached(member, document)
