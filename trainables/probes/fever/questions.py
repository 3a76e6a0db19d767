"""FEVER claims as questions with the letters a, b and c: prompts with examples from the claim's own page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainables.data.documents import LETTERS, Claim, Document
from trainables.data.prompts import choose_examples, choose_examples_for, render_prompt
from trainables.lm.members import NextTokens
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import encode
from trainables.probes.letters import LetteredPrompt, LetterQuestions, Path, answer_beginnings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LETTERS = "".join(LETTERS.values())


@dataclass(frozen=True)
class ClaimPrompt:
    """One claim, ready to be asked.

    Attributes:
        document: index of its page among the documents.
        page: the page's title.
        claim: what is asked, its label and weight.
        prompt: token ids of the whole few-shot prompt, up to `A:`.
    """

    document: int
    page: str
    claim: Claim
    prompt: tuple[int, ...]


@dataclass(frozen=True)
class FeverAnswer:
    """What one member answered to one claim.

    Attributes:
        label: the true label, one of `LABELS`.
        rows: weight of the claim: evidence annotations on this page.
        text: what was generated, as far as needed to settle the answer.
        letter: `a`, `b` or `c`; None when unparsed.
    """

    claim_id: str
    page: str
    label: str
    rows: int
    text: str
    letter: str | None

    @property
    def correct(self) -> bool:
        """Whether the letter is that of the true label."""
        return self.letter == LETTERS[self.label]


class FeverQuestions:
    """The validation claims of some documents, as token trees; shared by all members and epochs.

    Attributes:
        prompts: one per claim, in the documents' order.
        trees: all prompts with the beginnings of the answers; every tree is about one page.
        tree_documents: for every tree, the index of its document.
        own_examples: claims that stood among the examples of their page, and are asked with others instead.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: PreTrainedTokenizerBase,
        num_shots: int = 1,
        seed: int = 0,
        notes_labels: bool = False,
        claims_per_page: int | None = None,
        max_tree_tokens: int = 1024,
    ) -> None:
        """Build prompts and trees.

        Args:
            documents: all documents of the trial; those without claims are passed over.
            tokenizer: of the language model.
            num_shots: few-shot examples in every prompt.
            seed: of the choice of examples.
            notes_labels: label the example pool as the notes print it.
            claims_per_page: ask at most so many claims of a page, in an order given by the claims' ids.
            max_tree_tokens: largest tree; attention costs its square.
        """
        self.prompts: list[ClaimPrompt] = []
        self.own_examples = 0
        beginnings: list[Path] | None = None
        for index, document in enumerate(documents):
            claims = _first_claims(document.claims, claims_per_page)
            if not claims:
                continue
            shared = choose_examples(document, num_shots, seed, notes_labels)
            for claim in claims:
                examples = choose_examples_for(claim.text, document, num_shots, seed, notes_labels, chosen=shared)
                self.own_examples += examples != shared
                text = render_prompt(examples, claim.text)
                prompt = tuple(encode(tokenizer, text))
                self.prompts.append(ClaimPrompt(index, document.title, claim, prompt))
                if beginnings is None:
                    beginnings = answer_beginnings(tokenizer, text, _LETTERS)
        asked = [LetteredPrompt(prompt.document, prompt.prompt, _LETTERS) for prompt in self.prompts]
        self._letters = LetterQuestions(asked, beginnings or [], tokenizer, max_tree_tokens)
        self.trees: list[TokenTree] = self._letters.trees
        self.tree_documents: list[int] = self._letters.tree_documents

    def __len__(self) -> int:
        """Return the number of claims asked."""
        return len(self.prompts)

    def answer(self, respond: NextTokens) -> list[list[FeverAnswer]]:
        """Let K members answer every claim greedily, as `LetterQuestions.answer` says; one answer per claim each."""
        return [
            [self._answer(number, *found) for number, found in enumerate(own)] for own in self._letters.answer(respond)
        ]

    def _answer(self, number: int, text: str, letter: str | None) -> FeverAnswer:
        question, claim = self.prompts[number], self.prompts[number].claim
        return FeverAnswer(claim.id, question.page, claim.label, claim.rows, text, letter)


def _first_claims(claims: Sequence[Claim], most: int | None) -> list[Claim]:
    """Keep at most `most` claims, in their given order.

    Which ones depends on their ids alone, through a hash: neighbouring ids are often variants of one
    sentence, so the lowest ids would be a biased choice. Smaller choices are parts of larger ones.
    """
    if most is None:
        return list(claims)
    by_hash = sorted(claims, key=lambda claim: hashlib.blake2b(claim.id.encode(), digest_size=8).digest())
    kept = {claim.id for claim in by_hash[:most]}
    return [claim for claim in claims if claim.id in kept]
