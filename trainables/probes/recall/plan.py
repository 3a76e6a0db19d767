"""The recall probe as planning sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.probes.plan import ProbePlan, Reading, TextSizes

if TYPE_CHECKING:
    from trainables.probes.recall.probe import RecallProbe

WORD_TOKENS = 1.4
"""Tokens of a word of English text, its space included (ours: for costs only)."""
TITLE_TOKENS = 6


@dataclass(frozen=True, kw_only=True)
class RecallPlan(ProbePlan):
    """How much of the rest of a document a model writes, given its title and first words (definitions are ours).

    `token_accuracy`: share of the rest's tokens that are the most likely one after what truly stands before them.
    `rouge_l`: F1 of the longest common subsequence of words, of the greedy continuation with the rest. `verbatim`:
    share of the rest's words that the continuation has word by word before its first mistake. Each is the mean over
    documents.

    Attributes:
        recall_documents: asked at most, by rank.
        recall_title: whether the title stands in a line before the text; without, the prompt is as it was memorised.
        recall_words: first words of the text that are given.
        recall_tokens: of the rest that are asked for, and most that are written.
    """

    name: ClassVar[str] = "recall"
    metrics: ClassVar = dict.fromkeys(("token_accuracy", "rouge_l", "verbatim"), (0.0, 1.0))
    answers: ClassVar = {
        "page": "string",
        "prompt": "string",
        "expected": "string",
        "written": "string",
        "tokens": "int32",
        "tokens_right": "int32",
        "rouge_l": "double",
        "words": "int32",
        "words_right": "int32",
    }

    recall_documents: int
    recall_title: bool
    recall_words: int
    recall_tokens: int

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        """Return prompts and rest: read once with what truly stands there, and once as it is written."""
        documents = min(num_documents, self.recall_documents)
        prompt = self.recall_title * TITLE_TOKENS + self.recall_words * WORD_TOKENS
        rest = min(float(self.recall_tokens), max(1.0, sizes.document_tokens - prompt))
        return Reading(
            above_trunk=documents * (prompt + rest),
            heads=documents * rest,
            whole=documents * (prompt + self.recall_tokens),
        )

    @classmethod
    def load(cls) -> type[RecallProbe]:
        """Import the probe."""
        from trainables.probes.recall.probe import RecallProbe

        return RecallProbe
