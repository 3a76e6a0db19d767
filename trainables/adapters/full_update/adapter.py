"""Training all weights of a language model instead of a memory: the comparison of note 000 on small Pythias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trainables.adapters.adapter import ModelParts, PackTexts
from trainables.adapters.full_update.plan import FullUpdatePlan
from trainables.adapters.whole import TrainedWholeModel
from trainables.lm.reference import WholeModel


class FullUpdateAdapter(TrainedWholeModel[FullUpdatePlan]):
    """All weights of one model of its own; they are not stored, being as large as the model."""

    def __init__(self, plans: Sequence[FullUpdatePlan], parts: ModelParts, texts: PackTexts) -> None:
        """Load a model and set up the optimiser."""
        (plan,) = plans
        whole = parts.own_model()
        super().__init__(plans, parts, texts, whole, plan.batch_size)
        whole.model.requires_grad_(True)
        self.train_these(dict(whole.model.named_parameters()))

    def train_flops(self, epochs: int, member: int = 0) -> float:
        """Count six FLOPs per weight and token: forward, and backward for activations and parameters."""
        card = self.parts.card
        tokens = sum(len(text.tree) for text in self.texts.train)
        return 6.0 * (card.num_blocks * card.active_block_params + card.head_params) * tokens * epochs

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Return the model that is trained."""
        yield self.whole
