"""The FEVER probe as planning sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.probes.plan import ProbePlan, Reading, TextSizes

if TYPE_CHECKING:
    from trainables.probes.fever.probe import FeverProbe

ANSWER_POSITIONS = 5
"""Positions read per claim: the end of the prompt and the answer path."""
_SHARES = ("accuracy", "f1_micro", "f1_macro", "f1_supports", "f1_refutes", "f1_nei", "unparsed")


@dataclass(frozen=True, kw_only=True)
class FeverPlan(ProbePlan):
    """The validation claims of a trial's documents.

    Attributes:
        num_shots: few-shot examples in every prompt.
        seed: of the choice of examples.
        notes_labels: label the example pool as the notes print it.
        claims_per_page: ask at most so many claims of a page; None for all.
    """

    name: ClassVar[str] = "fever"
    version: ClassVar[int] = 2
    """2: a claim is never among its own examples."""
    metrics: ClassVar = dict.fromkeys(_SHARES, (0.0, 1.0))
    answers: ClassVar = {
        "claim_id": "string",
        "page": "string",
        "question": "string",
        "label": "string",
        "weight": "int32",
        "answer": "string",
        "parsed": "string",
        "correct": "bool",
    }

    num_shots: int
    seed: int
    notes_labels: bool
    claims_per_page: int | None

    def claims(self, sizes: TextSizes) -> float:
        """Return the claims asked about a page."""
        return min(sizes.claims, self.claims_per_page or sizes.claims)

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return the prompts of each page, the examples they share once."""
        claims = self.claims(sizes)
        page = sizes.header_tokens + (self.num_shots + claims) * sizes.claim_tokens
        return Reading(above_trunk=num_documents * page, heads=num_documents * claims * ANSWER_POSITIONS)

    @classmethod
    def load(cls) -> type[FeverProbe]:
        """Import the probe."""
        from trainables.probes.fever.probe import FeverProbe

        return FeverProbe
