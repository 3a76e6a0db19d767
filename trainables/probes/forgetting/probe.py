"""Texts and claims that were not memorised, ready to be put to any number of members."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainables.data.corpus import load_corpus, usable
from trainables.data.documents import Document
from trainables.data.general_text import read_general_text
from trainables.lm.members import ModelMembers
from trainables.lm.texts import NO_DOCUMENT, TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import segments
from trainables.probes.answer_letter import MAX_ANSWER_TOKENS
from trainables.probes.fever.questions import FeverAnswer, FeverQuestions
from trainables.probes.forgetting.plan import SEGMENTS, ForgettingPlan
from trainables.probes.probe import Finding, Probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HELD_OUT, GENERAL, CLAIM = "held out", "general", "claim"


@dataclass(frozen=True)
class Passage:
    """A piece of text whose NLL is measured.

    Attributes:
        kind: `HELD_OUT` or `GENERAL`.
        page: title of its document, or the piece's number in the general text.
        text: its tokens.
        beginning: its first words, for people.
    """

    kind: str
    page: str
    text: TrainingText
    beginning: str


class ForgettingProbe(Probe[ForgettingPlan]):
    """The passages and claims; none of them is about a document of the trial, so every entry is used."""

    def __init__(
        self,
        plan: ForgettingPlan,
        passages: Sequence[Passage],
        questions: FeverQuestions,
        num_documents: int,
    ) -> None:
        """Keep what is asked.

        Args:
            plan: how it was chosen.
            passages: of held-out documents and of the general text.
            questions: the claims about held-out documents.
            num_documents: held-out documents.
        """
        self.plan, self.passages, self.questions = plan, list(passages), questions
        self._texts = [passage.text for passage in self.passages]
        self._num_documents = num_documents

    @classmethod
    def make(
        cls, plan: ForgettingPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> ForgettingProbe | None:
        """Choose the held-out documents; None where all are memorised and there is no general text.

        Raises:
            ConfigError: the data cannot be downloaded.
            DataError: data or a general text that are missing or broken.
        """
        held_out = held_out_documents(plan, {document.title for document in documents})
        passages = [
            _passage(HELD_OUT, document.title, tokens, tokenizer)
            for document in held_out
            for tokens in segments(tokenizer, document.text, plan.segment_tokens, SEGMENTS)
        ]
        if plan.general_text is not None:
            text = read_general_text(plan.general_text)
            pieces = segments(tokenizer, text, plan.segment_tokens, plan.heldout_documents)
            passages += [_passage(GENERAL, str(number), tokens, tokenizer) for number, tokens in enumerate(pieces)]
        questions = FeverQuestions(
            held_out, tokenizer, plan.num_shots, plan.seed, plan.notes_labels, plan.heldout_claims
        )
        return cls(plan, passages, questions, len(held_out)) if passages else None

    @property
    def prompts(self) -> Sequence[TokenTree]:
        """The claims' prompts and the passages."""
        return [*self.questions.trees, *(text.tree for text in self._texts)]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many documents were held out, and how many claims about them asked."""
        return {"heldout_documents": self._num_documents, "heldout_claims": len(self.questions)}

    @property
    def longest_text(self) -> tuple[int, str]:
        """The longest passage or prompt, its answer's last token not read."""
        asked = max((len(asked.prompt) + MAX_ANSWER_TOKENS - 1 for asked in self.questions.prompts), default=0)
        read = max((len(text.tree) for text in self._texts), default=0)
        return max(asked, read), "lower segment_tokens or num_shots"

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Measure the passages and ask the claims, all members at once."""

        def respond(
            trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
        ) -> NDArray[np.int64]:
            return members.next_tokens(trees, [NO_DOCUMENT] * len(trees), nodes)

        nll = members.text_nll(self._texts)
        answers = self.questions.answer(respond) if len(self.questions) else [[] for _ in range(members.num_members)]
        return [self._finding(own.tolist(), claims) for own, claims in zip(nll, answers, strict=True)]

    def _finding(self, nll: Sequence[float], claims: Sequence[FeverAnswer]) -> Finding:
        rows = [_text_row(passage, value) for passage, value in zip(self.passages, nll, strict=True)]
        texts = {asked.claim.id: asked.claim.text for asked in self.questions.prompts}
        rows += [_claim_row(answer, texts[answer.claim_id]) for answer in claims]
        return Finding(forgetting_metrics(rows), rows)


def held_out_documents(plan: ForgettingPlan, memorised: Collection[str]) -> list[Document]:
    """Return the documents that are held out, by the order of their titles' hashes.

    Args:
        plan: the data, and how many.
        memorised: titles of the trial's documents.
    """
    corpus = load_corpus(plan.data, plan.detokenize, plan.allow_missing_pages)
    others = [d for d in (*corpus.pages, *corpus.articles) if d.title not in memorised and usable(d)]
    ordered = sorted(others, key=lambda d: (not d.claims, hashlib.sha256(d.title.encode()).digest()))
    return ordered[: plan.heldout_documents]


def forgetting_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means over tokens and over claims; a mean that is not finite, or over nothing, is left out."""
    found = {}
    for kind, name in ((HELD_OUT, "nll"), (GENERAL, "general_nll")):
        own = [row for row in rows if row["kind"] == kind]
        if own and all(row["nll"] is not None for row in own):
            found[name] = sum(row["nll"] * row["tokens"] for row in own) / sum(row["tokens"] for row in own)
    claims = [row for row in rows if row["kind"] == CLAIM]
    if claims:
        found["accuracy"] = sum(row["correct"] for row in claims) / len(claims)
        found["unparsed"] = sum(row["parsed"] is None for row in claims) / len(claims)
    return found


def _passage(kind: str, page: str, tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> Passage:
    beginning = str(tokenizer.decode(list(tokens[:24]), skip_special_tokens=True, clean_up_tokenization_spaces=False))
    return Passage(kind, page, TrainingText(TokenTree.chain(tokens), NO_DOCUMENT), beginning)


def _row(kind: str, page: str, text: str, **values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(ForgettingPlan.answers)
    return {**empty, "kind": kind, "page": page, "text": text, **values}


def _text_row(passage: Passage, nll: float) -> dict[str, Any]:
    told = float(nll) if math.isfinite(nll) else None
    return _row(passage.kind, passage.page, passage.beginning, tokens=passage.text.num_targets, nll=told)


def _claim_row(answer: FeverAnswer, text: str) -> dict[str, Any]:
    told = {"label": answer.label, "answer": answer.text, "parsed": answer.letter, "correct": answer.correct}
    return _row(CLAIM, answer.page, text, claim_id=str(answer.claim_id), **told)
