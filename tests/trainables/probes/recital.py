"""A probe in one file: how much of each document's beginning is said by heart, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from trainables.data.documents import Document
from trainables.lm.members import ModelMembers
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import encode
from trainables.probes.plan import ProbePlan, Reading, TextSizes
from trainables.probes.probe import Finding, Probe

TOKENS = 12


@dataclass(frozen=True, kw_only=True)
class RecitalPlan(ProbePlan):
    name: ClassVar[str] = "recital"
    metrics: ClassVar = {"share": (0.0, 1.0), "longest": (0.0, float(TOKENS))}
    answers: ClassVar = {"title": "string", "expected": "list<int64>", "said": "list<int64>"}

    segment_tokens: int

    def reading(self, sizes: TextSizes, num_documents: int) -> Reading:
        return Reading(above_trunk=TOKENS * num_documents, heads=TOKENS * num_documents)

    @classmethod
    def load(cls) -> type[Probe]:
        return RecitalProbe


class RecitalProbe(Probe[RecitalPlan]):
    def __init__(self, plan: RecitalPlan, titles: list[str], texts: list[list[int]]) -> None:
        self.plan, self.titles, self.texts = plan, titles, texts
        self.trees = [TokenTree.chain(text[:-1]) for text in texts]

    @classmethod
    def make(cls, plan: RecitalPlan, documents: Sequence[Document], tokenizer: Any) -> RecitalProbe | None:
        length = min(plan.segment_tokens, TOKENS + 1)
        texts = [encode(tokenizer, document.text)[:length] for document in documents]
        return cls(plan, [document.title for document in documents], texts) if texts else None

    @property
    def prompts(self) -> Sequence[TokenTree]:
        return self.trees

    @property
    def longest_text(self) -> tuple[int, str]:
        return max(len(tree) for tree in self.trees), "lower segment_tokens"

    def ask(self, members: ModelMembers) -> list[Finding]:
        said = members.next_tokens(self.trees, range(len(self.trees)), [range(len(tree)) for tree in self.trees])
        return [self._finding(row.tolist()) for row in said]

    def _finding(self, said: list[int]) -> Finding:
        answers, runs, right = [], [0], 0
        for title, text in zip(self.titles, self.texts, strict=True):
            own, said = said[: len(text) - 1], said[len(text) - 1 :]
            answers.append({"title": title, "expected": text[1:], "said": own})
            hits = [one == other for one, other in zip(own, text[1:], strict=True)]
            runs.append(hits.index(False) if False in hits else len(hits))
            right += sum(hits)
        share = right / sum(len(text) - 1 for text in self.texts)
        return Finding({"share": share, "longest": float(max(runs))}, answers)
