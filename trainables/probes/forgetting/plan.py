"""The forgetting probe as planning sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.data.general_text import general_text_key
from trainables.probes.fever.plan import ANSWER_POSITIONS
from trainables.probes.plan import ProbePlan, Reading, TextSizes

if TYPE_CHECKING:
    from trainables.probes.forgetting.probe import ForgettingProbe

SEGMENTS = 2
"""Segments read of a held-out document (ours): most of what an article's beginning says, at a fixed cost."""


@dataclass(frozen=True, kw_only=True)
class ForgettingPlan(ProbePlan):
    """What memorising costs: how well a model still predicts, and judges claims about, what it did not memorise.

    `nll`: mean over the tokens of held-out documents of the same data, in nats; `general_nll` of the general text;
    `accuracy` and `unparsed`: shares of the claims about held-out pages, each counted once. What it cost is the
    difference from the pretrained model, which is asked the same.

    Held out are the first `heldout_documents`, pages with claims before others, in an order given by a hash of their
    titles, that are not among the trial's documents: so trials of one corpus with other numbers of documents are asked
    nearly the same.

    Attributes:
        data, detokenize, allow_missing_pages: where documents come from.
        segment_tokens: length of the pieces that are read; as many of the general text as there are held-out
            documents, and up to `SEGMENTS` of each document.
        heldout_documents: at most.
        heldout_claims: asked of a held-out page, at most.
        num_shots, seed, notes_labels: of the claims' prompts.
        general_text: a text file; None for none.
    """

    name: ClassVar[str] = "forgetting"
    metrics: ClassVar = {
        "nll": (0.0, math.inf), "general_nll": (0.0, math.inf), "accuracy": (0.0, 1.0), "unparsed": (0.0, 1.0),
    }  # fmt: skip
    answers: ClassVar = {
        "kind": "string",
        "page": "string",
        "text": "string",
        "tokens": "int32",
        "nll": "double",
        "claim_id": "string",
        "label": "string",
        "answer": "string",
        "parsed": "string",
        "correct": "bool",
    }

    data: str
    detokenize: bool
    allow_missing_pages: bool
    segment_tokens: int
    heldout_documents: int
    heldout_claims: int
    num_shots: int
    seed: int
    notes_labels: bool
    general_text: str | None

    def identity(self) -> dict[str, Any]:
        """Return what decides the question; the general text by its content."""
        stated = super().identity()
        return stated if self.general_text is None else {**stated, "general_text": general_text_key(self.general_text)}

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return the texts and prompts, whatever the number of documents that are memorised."""
        text = min(sizes.document_tokens, SEGMENTS * self.segment_tokens)
        general = 0 if self.general_text is None else self.heldout_documents * self.segment_tokens
        claims = min(sizes.claims, self.heldout_claims)
        prompts = sizes.header_tokens + (self.num_shots + claims) * sizes.claim_tokens
        return Reading(
            above_trunk=self.heldout_documents * (text + prompts) + general,
            heads=self.heldout_documents * (text + claims * ANSWER_POSITIONS) + general,
        )

    @classmethod
    def load(cls) -> type[ForgettingProbe]:
        """Import the probe."""
        from trainables.probes.forgetting.probe import ForgettingProbe

        return ForgettingProbe
