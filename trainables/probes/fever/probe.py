"""FEVER's claims as a probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainables.data.documents import Document
from trainables.lm.members import ModelMembers
from trainables.lm.token_tree import TokenTree
from trainables.probes.answer_letter import MAX_ANSWER_TOKENS
from trainables.probes.fever.metrics import fever_metrics
from trainables.probes.fever.plan import FeverPlan
from trainables.probes.fever.questions import ClaimPrompt, FeverAnswer, FeverQuestions
from trainables.probes.probe import Finding, Probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FeverProbe(Probe[FeverPlan]):
    """The claims about a trial's pages, judged greedily by all members at once.

    Attributes:
        questions: the claims with their prompts.
    """

    def __init__(self, plan: FeverPlan, questions: FeverQuestions) -> None:
        """Keep the questions."""
        self.plan, self.questions = plan, questions

    @classmethod
    def make(
        cls, plan: FeverPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> FeverProbe | None:
        """Build prompts and trees; None where no page has a claim."""
        if not any(document.claims for document in documents):
            return None
        questions = FeverQuestions(
            documents, tokenizer, plan.num_shots, plan.seed, plan.notes_labels, plan.claims_per_page
        )
        return cls(plan, questions)

    @property
    def prompts(self) -> Sequence[TokenTree]:
        """All prompts with the beginnings of the answers."""
        return self.questions.trees

    @property
    def counts(self) -> Mapping[str, int]:
        """How many claims were asked, and for how many of them an example had to give way."""
        return {"claims_asked": len(self.questions), "claims_among_their_examples": self.questions.own_examples}

    @property
    def longest_text(self) -> tuple[int, str]:
        """The longest prompt, its answer's last token not read."""
        longest = max((len(asked.prompt) for asked in self.questions.prompts), default=0)
        return longest + MAX_ANSWER_TOKENS - 1, f"lower num_shots, which is {self.plan.num_shots}"

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Let all members judge every claim."""
        found = self.questions.answer(members.next_tokens)
        prompts = self.questions.prompts
        return [Finding(fever_metrics(answers), list(map(_row, prompts, answers))) for answers in found]


def _row(asked: ClaimPrompt, answer: FeverAnswer) -> dict[str, Any]:
    return {
        "claim_id": str(answer.claim_id),
        "page": answer.page,
        "question": asked.claim.text,
        "label": answer.label,
        "weight": answer.rows,
        "answer": answer.text,
        "parsed": answer.letter,
        "correct": answer.correct,
    }
