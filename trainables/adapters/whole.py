"""Adapters that change the model itself: each trial runs all its blocks, so nothing is computed once for many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainables.adapters.adapter import Adapter, ModelParts, PackTexts, PlanT
from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree, collate


class WholeModelAdapter(Adapter[PlanT]):
    """One member that is a whole model of its own.

    Attributes:
        whole: the model, with what is trained in it.
        batch_size: texts in one forward pass.
    """

    def __init__(
        self, plans: Sequence[PlanT], parts: ModelParts, texts: PackTexts, whole: WholeModel, batch_size: int
    ) -> None:
        """Keep the model and evaluate it before it is trained."""
        super().__init__(plans, parts, texts)
        self.whole, self.batch_size = whole, batch_size
        self._nll_before = self.nll(texts.segments)[0]

    @property
    def nll_before(self) -> float:
        """The memorisation error of the model as it comes."""
        return self._nll_before

    @torch.no_grad()
    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return the mean NLL over the target tokens of some texts (`ModelMembers`)."""
        total, count = 0.0, 0
        for first in range(0, len(texts), self.batch_size):
            nll, targets = self.nll_sum(texts[first : first + self.batch_size])
            total, count = total + float(nll), count + targets
        return [total / count]

    def nll_sum(self, texts: Sequence[TrainingText]) -> tuple[Tensor, int]:
        """Return the summed NLL of the target tokens of some texts, with its gradient, and their number."""
        batch = collate([text.tree for text in texts], self.parts.device)
        labels = batch.tokens.clone()
        for row, text in enumerate(texts):
            labels[row, : text.first_target] = -100
            labels[row, len(text.tree) :] = -100
        logits = self.whole(batch.tokens)[:, :-1].float()
        nll = functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100
        )
        return nll, sum(text.num_targets for text in texts)

    @torch.no_grad()
    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next token at nodes of trees, `[1, nodes in all]` (`ModelMembers`)."""
        found: list[int] = []
        for tree, read in zip(trees, nodes, strict=True):
            batch = collate([tree], self.parts.device)
            logits = self.whole(batch.tokens, batch.attention_mask, batch.positions)
            found += logits[0, list(read)].argmax(dim=-1).tolist()
        return np.array([found], dtype=np.int64).reshape(1, -1)
