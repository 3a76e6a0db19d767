"""The probe of a user's own questions as planning sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.probes.fever.plan import ANSWER_POSITIONS
from trainables.probes.plan import ProbePlan, Reading, TextSizes

if TYPE_CHECKING:
    from trainables.probes.choices.probe import ChoicesProbe

BY = ("letter", "likelihood")
CHOICES = 4
"""Choices of a question (ours: for costs only)."""


@dataclass(frozen=True, kw_only=True)
class ChoicesPlan(ProbePlan):
    """The questions that `questions.jsonl` asks about the trial's documents.

    By letter: the model answers greedily, and the first `(a)`, `(b)`, … that it writes counts, as in FEVER. By
    likelihood: the choice that is likeliest as a continuation counts; `accuracy_norm` is by likelihood per character of
    the choice, as in lm-evaluation-harness. `chance`: what guessing gives.

    Attributes:
        data, allow_missing_pages: the sources, which hold training questions and the template.
        choices_by: `letter` or `likelihood`.
        questions_per_document: at most; None for all.
        num_shots: examples in a prompt: training questions of the same document, then of others.
        seed: of the choice of examples.
    """

    name: ClassVar[str] = "choices"
    metrics: ClassVar = dict.fromkeys(("accuracy", "accuracy_norm", "unparsed", "chance"), (0.0, 1.0))
    answers: ClassVar = {
        "question_id": "string",
        "page": "string",
        "question": "string",
        "choices": "list<string>",
        "label": "string",
        "answer": "string",
        "parsed": "string",
        "chosen": "string",
        "correct": "bool",
        "chosen_norm": "string",
        "correct_norm": "bool",
        "log_likelihoods": "list<double>",
    }

    data: str
    allow_missing_pages: bool
    choices_by: str
    questions_per_document: int | None
    num_shots: int
    seed: int

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return the prompts of each document; by likelihood once for every choice."""
        questions = num_documents * min(sizes.claims, self.questions_per_document or sizes.claims)
        if self.choices_by == "letter":
            page = sizes.header_tokens + (self.num_shots + questions / num_documents) * sizes.claim_tokens
            return Reading(above_trunk=num_documents * page, heads=questions * ANSWER_POSITIONS)
        prompt = sizes.header_tokens + (self.num_shots + 1) * sizes.claim_tokens
        return Reading(above_trunk=questions * CHOICES * prompt, heads=questions * CHOICES * ANSWER_POSITIONS)

    @classmethod
    def load(cls) -> type[ChoicesProbe]:
        """Import the probe."""
        from trainables.probes.choices.probe import ChoicesProbe

        return ChoicesProbe
