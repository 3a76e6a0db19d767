"""FEVER claims asked in one pass over token trees, answered exactly as greedy generation would.

The prompts about one page share their few-shot examples, so they form a tree. To each prompt's end the
beginnings of the three answers are added, as nodes that are read too. The most likely token at the
prompt's end and along those few nodes settles nearly every claim; a member whose tokens leave the tree,
while what it wrote could still become an answer, is followed in further rounds of small trees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainables.data.documents import LETTERS, Claim, Document
from trainables.data.prompts import choose_examples, choose_examples_for, render_prompt
from trainables.lm.members import NextTokens
from trainables.lm.token_tree import TokenTree, build_trees
from trainables.lm.tokens import encode, end_tokens
from trainables.probes.answers import (
    MAX_ANSWER_TOKENS,
    ContinuationDecoder,
    could_become_answer,
    parse_answer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Path = tuple[int, ...]
"""Token ids generated after a prompt."""


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
class Answer:
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


@dataclass(frozen=True)
class _Reading:
    """Trees of one round, and where each (question, path) is read."""

    trees: list[TokenTree]
    documents: list[int]
    nodes: list[list[int]]
    places: dict[tuple[int, Path], int]


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
        self._decoder = ContinuationDecoder(tokenizer)
        self._ends = end_tokens(tokenizer)
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
                    beginnings = _answer_beginnings(tokenizer, text)
        self._max_tree_tokens = max_tree_tokens
        paths: list[Path] = [(), *(beginnings or [])]
        self._first = self._grow((number, path) for number in range(len(self.prompts)) for path in paths)
        self.trees: list[TokenTree] = self._first.trees
        self.tree_documents: list[int] = self._first.documents

    def __len__(self) -> int:
        """Return the number of claims asked."""
        return len(self.prompts)

    def answer(self, respond: NextTokens) -> list[list[Answer]]:
        """Let K members answer every claim greedily.

        The letters are those of `generate(do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS)` followed by
        `parse_answer` of the continuation; any of the model's end-of-sequence tokens ends an answer.

        Args:
            respond: called once per round; the first time with `self.trees` (so that what is computed from
                them can be kept), later with small trees, at most `MAX_ANSWER_TOKENS` times in all. When
                there are no claims it is called once, with nothing to read, and gives `[K, 0]`.

        Returns:
            For each member, one answer per claim, in the order of `prompts`.

        Raises:
            ValueError: `respond` returned another number of tokens than asked for.
        """
        tokens = _read(respond, self._first)
        known: dict[tuple[int, Path], list[int]] = {}
        answers: list[dict[int, Answer]] = [{} for _ in tokens]
        walks: dict[tuple[int, int], Path] = {
            (member, number): () for member in range(len(tokens)) for number in range(len(self.prompts))
        }
        reading = self._first
        while walks:
            by_place = tokens.T.tolist()
            known.update((key, by_place[place]) for key, place in reading.places.items())
            for (member, number), path in list(walks.items()):
                text, path, settled = self._follow(member, number, path, known)
                if settled:
                    answers[member][number] = self._answer(number, text)
                    del walks[member, number]
                else:
                    walks[member, number] = path
            if walks:
                wanted = {(number, path) for (_, number), path in walks.items()}
                reading = self._grow(sorted(wanted))
                tokens = _read(respond, reading)
        return [[found[number] for number in range(len(self.prompts))] for found in answers]

    def _follow(
        self, member: int, number: int, path: Path, known: dict[tuple[int, Path], list[int]]
    ) -> tuple[str, Path, bool]:
        """Go on from `path` as far as tokens are known; return text, path and whether that settles it."""
        prompt = self.prompts[number].prompt
        text = self._decoder.text(prompt, path)
        while (number, path) in known:
            token = known[number, path][member]
            if token in self._ends:
                return text, path, True
            path = (*path, token)
            text = self._decoder.text(prompt, path)
            if parse_answer(text) or len(path) == MAX_ANSWER_TOKENS or not could_become_answer(text):
                return text, path, True
        return text, path, False

    def _answer(self, number: int, text: str) -> Answer:
        question, claim = self.prompts[number], self.prompts[number].claim
        return Answer(claim.id, question.page, claim.label, claim.rows, text, parse_answer(text))

    def _grow(self, wanted: Iterable[tuple[int, Path]]) -> _Reading:
        """Build trees, page by page, in which every (question, path) wanted can be read at its last token."""
        reading = _Reading([], [], [], {})
        nodes_read = 0
        for document, group in groupby(wanted, key=lambda key: self.prompts[key[0]].document):
            keys = list(group)
            sequences = [(*self.prompts[number].prompt, *path) for number, path in keys]
            trees, ends = build_trees(sequences, self._max_tree_tokens)
            nodes: list[list[int]] = [[] for _ in trees]
            places: dict[tuple[int, int], int] = {}
            for tree, node in sorted(set(ends)):
                places[tree, node] = nodes_read
                nodes[tree].append(node)
                nodes_read += 1
            reading.trees.extend(trees)
            reading.documents.extend([document] * len(trees))
            reading.nodes.extend(nodes)
            reading.places.update((key, places[end]) for key, end in zip(keys, ends, strict=True))
        return reading


def _read(respond: NextTokens, reading: _Reading) -> NDArray[np.int64]:
    tokens = np.asarray(respond(reading.trees, reading.documents, reading.nodes))
    wanted = sum(map(len, reading.nodes))
    if tokens.ndim != 2 or tokens.shape[1] != wanted:
        raise ValueError(f"respond returned tokens of shape {tokens.shape}, expected [members, {wanted}]")
    return tokens


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


def _answer_beginnings(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[Path]:
    """Return what may have been generated before an answer's last token, spelled as in the examples.

    These paths only save rounds, so one prompt's serve for all; where a tokenizer merges across the
    prompt's end there are none.
    """
    start = encode(tokenizer, prompt)
    found: dict[Path, None] = {}
    for letter in LETTERS.values():
        whole = encode(tokenizer, f"{prompt} ({letter})")
        if whole[: len(start)] == start:
            path = tuple(whole[len(start) :])
            found.update((path[:length], None) for length in range(1, min(len(path), MAX_ANSWER_TOKENS)))
    return list(found)
