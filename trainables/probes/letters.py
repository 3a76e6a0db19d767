"""Questions with lettered choices asked in one pass over token trees, answered exactly as greedy generation would.

The prompts about one page share their few-shot examples, so they form a tree. To each prompt's end the
beginnings of the answers are added, as nodes that are read too. The most likely token at the
prompt's end and along those few nodes settles nearly every question; a member whose tokens leave the tree,
while what it wrote could still become an answer, is followed in further rounds of small trees.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainables.lm.members import NextTokens
from trainables.lm.token_tree import TokenTree, build_trees
from trainables.lm.tokens import encode, end_tokens
from trainables.probes.answer_letter import (
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
class LetteredPrompt:
    """A question ready to be asked.

    Attributes:
        document: index of the document that it is about.
        tokens: the prompt, up to where the answer begins.
        letters: of its choices: `abc`.
    """

    document: int
    tokens: tuple[int, ...]
    letters: str


@dataclass(frozen=True)
class _Reading:
    """Trees of one round, and where each (question, path) is read."""

    trees: list[TokenTree]
    documents: list[int]
    nodes: list[list[int]]
    places: dict[tuple[int, Path], int]


class LetterQuestions:
    """Prompts as token trees; shared by all members and epochs.

    Attributes:
        trees: all prompts with the beginnings of the answers; every tree is about one document.
        tree_documents: for every tree, the index of its document.
    """

    def __init__(
        self,
        prompts: Sequence[LetteredPrompt],
        beginnings: Sequence[Path],
        tokenizer: PreTrainedTokenizerBase,
        max_tree_tokens: int,
    ) -> None:
        """Build the trees.

        Args:
            prompts: in the documents' order.
            beginnings: of answers, from `answer_beginnings`: read along with every prompt.
            tokenizer: of the language model.
            max_tree_tokens: largest tree; attention costs its square.
        """
        self._prompts, self._max_tree_tokens = list(prompts), max_tree_tokens
        self._decoder = ContinuationDecoder(tokenizer)
        self._ends = end_tokens(tokenizer)
        paths: list[Path] = [(), *beginnings]
        self._first = self._grow((number, path) for number in range(len(self._prompts)) for path in paths)
        self.trees: list[TokenTree] = self._first.trees
        self.tree_documents: list[int] = self._first.documents

    def answer(self, respond: NextTokens) -> list[list[tuple[str, str | None]]]:
        """Let K members answer every question greedily.

        The letters are those of `generate(do_sample=False, max_new_tokens=MAX_ANSWER_TOKENS)` followed by
        `parse_answer` of the continuation; any of the model's end-of-sequence tokens ends an answer.

        Args:
            respond: called once per round; the first time with `self.trees` (so that what is computed from
                them can be kept), later with small trees, at most `MAX_ANSWER_TOKENS` times in all. When
                there are no questions it is called once, with nothing to read, and gives `[K, 0]`.

        Returns:
            For each member and question, in order: what was written, as far as needed to settle the answer, and its
            letter, None where it is unparsed.

        Raises:
            ValueError: `respond` returned another number of tokens than asked for.
        """
        tokens = _read(respond, self._first)
        known: dict[tuple[int, Path], list[int]] = {}
        answers: list[dict[int, tuple[str, str | None]]] = [{} for _ in tokens]
        walks: dict[tuple[int, int], Path] = {
            (member, number): () for member in range(len(tokens)) for number in range(len(self._prompts))
        }
        reading = self._first
        while walks:
            by_place = tokens.T.tolist()
            known.update((key, by_place[place]) for key, place in reading.places.items())
            for (member, number), path in list(walks.items()):
                text, path, settled = self._follow(member, number, path, known)
                if settled:
                    answers[member][number] = text, parse_answer(text, self._prompts[number].letters)
                    del walks[member, number]
                else:
                    walks[member, number] = path
            if walks:
                wanted = {(number, path) for (_, number), path in walks.items()}
                reading = self._grow(sorted(wanted))
                tokens = _read(respond, reading)
        return [[found[number] for number in range(len(self._prompts))] for found in answers]

    def _follow(
        self, member: int, number: int, path: Path, known: dict[tuple[int, Path], list[int]]
    ) -> tuple[str, Path, bool]:
        """Go on from `path` as far as tokens are known; return text, path and whether that settles it."""
        prompt, letters = self._prompts[number].tokens, self._prompts[number].letters
        text = self._decoder.text(prompt, path)
        while (number, path) in known:
            token = known[number, path][member]
            if token in self._ends:
                return text, path, True
            path = (*path, token)
            text = self._decoder.text(prompt, path)
            done = parse_answer(text, letters) or len(path) == MAX_ANSWER_TOKENS
            if done or not could_become_answer(text, letters):
                return text, path, True
        return text, path, False

    def _grow(self, wanted: Iterable[tuple[int, Path]]) -> _Reading:
        """Build trees, page by page, in which every (question, path) wanted can be read at its last token."""
        reading = _Reading([], [], [], {})
        nodes_read = 0
        for document, group in groupby(wanted, key=lambda key: self._prompts[key[0]].document):
            keys = list(group)
            sequences = [(*self._prompts[number].tokens, *path) for number, path in keys]
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


def answer_beginnings(tokenizer: PreTrainedTokenizerBase, prompt: str, letters: str) -> list[Path]:
    """Return what may have been generated before an answer's last token, spelled as in the examples.

    These paths only save rounds, so one prompt's serve for all; where a tokenizer merges across the
    prompt's end there are none.
    """
    start = encode(tokenizer, prompt)
    found: dict[Path, None] = {}
    for letter in letters:
        whole = encode(tokenizer, f"{prompt} ({letter})")
        if whole[: len(start)] == start:
            path = tuple(whole[len(start) :])
            found.update((path[:length], None) for length in range(1, min(len(path), MAX_ANSWER_TOKENS)))
    return list(found)
