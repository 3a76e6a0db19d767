"""A user's own questions, ready to be put to any number of members."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainables.data.documents import Document, Question
from trainables.data.own import training_pool
from trainables.data.prompts import same_sentence
from trainables.data.sources import resolve_sources
from trainables.data.template import Template, read_templates
from trainables.errors import ConfigError
from trainables.lm.members import ModelMembers
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import encode
from trainables.probes.answer_letter import MAX_ANSWER_TOKENS
from trainables.probes.choices.plan import ChoicesPlan
from trainables.probes.letters import LetteredPrompt, LetterQuestions, answer_beginnings
from trainables.probes.probe import Finding, Probe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TREE_TOKENS = 1024


@dataclass(frozen=True)
class AskedQuestion:
    """One question with its prompt.

    Attributes:
        document: index of its document.
        page: the document's title.
        question: what is asked.
        prompt: the whole text up to where the answer begins.
    """

    document: int
    page: str
    question: Question
    prompt: str


class ChoicesProbe(Probe[ChoicesPlan]):
    """The questions about a trial's documents."""

    def __init__(
        self, plan: ChoicesPlan, asked: Sequence[AskedQuestion], template: Template, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Tokenise what is asked."""
        self.plan, self.asked = plan, list(asked)
        self._by_letter = plan.choices_by == "letter"
        if self._by_letter:
            prompts = [
                LetteredPrompt(a.document, tuple(encode(tokenizer, a.prompt)), a.question.letters) for a in asked
            ]
            most = max(asked, key=lambda a: len(a.question.choices))
            beginnings = answer_beginnings(tokenizer, most.prompt, most.question.letters)
            self._letters = LetterQuestions(prompts, beginnings, tokenizer, MAX_TREE_TOKENS)
            self._longest = max(len(prompt.tokens) for prompt in prompts) + MAX_ANSWER_TOKENS - 1
        else:
            self._texts = [
                _continuation(tokenizer, a.prompt, template.answered(a.question, place), a.document)
                for a in asked
                for place in range(len(a.question.choices))
            ]
            self._longest = max(len(text.tree) for text in self._texts)

    @classmethod
    def make(
        cls, plan: ChoicesPlan, documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase
    ) -> ChoicesProbe | None:
        """Choose examples and render prompts; None where no document has a question.

        Raises:
            ConfigError: more examples than there are training questions.
            DataError: a template that cannot be rendered.
        """
        if not any(document.questions for document in documents):
            return None
        sources = resolve_sources(plan.data, plan.allow_missing_pages)
        template, pool = read_templates(sources)[plan.choices_by], training_pool(sources)
        asked = []
        for place, document in enumerate(documents):
            for question in _first_questions(document.questions, plan.questions_per_document):
                examples = choose_questions(question, document, pool, plan.num_shots, plan.seed)
                asked.append(AskedQuestion(place, document.title, question, template.prompt(question, examples)))
        return cls(plan, asked, template, tokenizer)

    @property
    def prompts(self) -> Sequence[TokenTree]:
        """All prompts with the beginnings of the answers, or with each choice."""
        return self._letters.trees if self._by_letter else [text.tree for text in self._texts]

    @property
    def counts(self) -> Mapping[str, int]:
        """How many questions were asked."""
        return {"questions_asked": len(self.asked)}

    @property
    def longest_text(self) -> tuple[int, str]:
        """The longest prompt with its answer."""
        return self._longest, f"lower num_shots, which is {self.plan.num_shots}, or shorten the questions"

    def ask(self, members: ModelMembers) -> list[Finding]:
        """Let all members answer every question."""
        if self._by_letter:
            found = self._letters.answer(members.next_tokens)
            return [
                self._finding([self._lettered(*pair) for pair in zip(self.asked, own, strict=True)]) for own in found
            ]
        tokens = [text.num_targets for text in self._texts]
        nll = members.text_nll(self._texts)
        return [
            self._finding(self._likeliest([-value * n for value, n in zip(own, tokens, strict=True)]))
            for own in nll.tolist()
        ]

    def _finding(self, rows: Sequence[dict[str, Any]]) -> Finding:
        return Finding(choices_metrics(rows), rows)

    def _lettered(self, asked: AskedQuestion, answer: tuple[str, str | None]) -> dict[str, Any]:
        text, letter = answer
        chosen = None if letter is None else asked.question.choices[asked.question.letters.index(letter)]
        return _row(asked, answer=text, parsed=letter, chosen=chosen, correct=chosen == _truth(asked))

    def _likeliest(self, values: Sequence[float]) -> list[dict[str, Any]]:
        rows, start = [], 0
        for asked in self.asked:
            choices = asked.question.choices
            own = values[start : start + len(choices)]
            start += len(choices)
            finite = all(map(math.isfinite, own))
            chosen = _best(choices, own) if finite else None
            norm = _best(choices, [v / len(c) for v, c in zip(own, choices, strict=True)]) if finite else None
            told = {"answer": chosen, "chosen": chosen, "chosen_norm": norm, "correct": chosen == _truth(asked)}
            likely = list(own) if finite else None
            rows.append(_row(asked, **told, correct_norm=norm == _truth(asked), log_likelihoods=likely))
        return rows


def choices_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return shares over the questions; those that the way of asking does not give are left out."""
    count = len(rows)
    found = {
        "accuracy": sum(row["correct"] for row in rows) / count,
        "chance": sum(1 / len(row["choices"]) for row in rows) / count,
        "unparsed": sum(row["chosen"] is None for row in rows) / count,
    }
    if all(row["correct_norm"] is not None for row in rows):
        found["accuracy_norm"] = sum(row["correct_norm"] for row in rows) / count
    return found


def choose_questions(
    question: Question, document: Document, pool: Sequence[Question], num_shots: int, seed: int
) -> tuple[Question, ...]:
    """Choose the few-shot examples of a question: its document's training questions, then any others.

    Both are drawn at random, by hashes of their texts, the document's title and the seed. The question that is asked is
    never among them, nor is a whole prompt; a question that is a whole prompt has none. k examples are the first k of
    k + 1.

    Raises:
        ConfigError: there are fewer training questions.
    """
    if question.is_prompt:
        return ()

    def drawn(questions: Sequence[Question], taken: Sequence[Question]) -> list[Question]:
        left = {
            q.text: q
            for q in reversed(questions)
            if not q.is_prompt and not same_sentence(q.text, question.text) and all(q.text != t.text for t in taken)
        }
        return [left[text] for text in sorted(left, key=lambda text: _digest([seed, document.title, text]))]

    own = drawn(document.train_questions, ())[:num_shots]
    found = [*own, *(drawn(pool, own) if len(own) < num_shots else ())][:num_shots]
    if len(found) < num_shots:
        raise ConfigError(
            f"num_shots={num_shots}: the data have {len(found)} training questions (split: train) to be examples of "
            f"question {question.id!r}; lower it or add some"
        )
    return tuple(found)


def _digest(value: Any) -> bytes:
    return hashlib.sha256(json.dumps(value).encode()).digest()


def _first_questions(questions: Sequence[Question], most: int | None) -> list[Question]:
    """Keep at most `most` questions in their order, chosen by a hash of their ids."""
    kept = {q.id for q in sorted(questions, key=lambda q: _digest(q.id))[:most]}
    return [question for question in questions if question.id in kept]


def _continuation(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, document: int) -> TrainingText:
    """Return a prompt with an answer, whose tokens alone carry loss: from where prompt and whole text part."""
    alone, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + answer)
    shared = next((at for at, (one, other) in enumerate(zip(alone, whole, strict=False)) if one != other), len(alone))
    return TrainingText(TokenTree.chain(whole), document, max(1, min(shared, len(whole) - 1)))


def _best(choices: Sequence[str], values: Sequence[float]) -> str:
    return choices[max(range(len(choices)), key=values.__getitem__)]


def _truth(asked: AskedQuestion) -> str:
    return asked.question.choices[asked.question.answer]


def _row(asked: AskedQuestion, **values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(ChoicesPlan.answers)
    told = {
        "question_id": asked.question.id, "page": asked.page, "question": asked.question.text,
        "choices": list(asked.question.choices), "label": _truth(asked),
    }  # fmt: skip
    return {**empty, **told, **values}
