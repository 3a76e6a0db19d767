"""The few-shot prompt of note 000, character for character, and the choice of its examples."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from trainables.data.documents import Document
from trainables.errors import ConfigError

HEADER = (
    "Determine the factuality of the following claims \n"
    "Answer candidates: (a) supports, (b) refutes, (c) not enough info\n"
)

POOL = (
    (
        "Nikolaj Coster-Waldau worked with the Fox Broadcasting Company.",
        "Roman Atwood is a content creator.",
        "Tetris has sold millions of physical copies.",
        "The Boston Celtics play their home games at TD Garden.",
        "The Ten Commandments is an epic film.",
    ),
    (
        "System of a Down briefly disbanded in limbo.",
        "Beautiful reached number two on the Billboard Hot 100 in 2003.",
        "Afghanistan is the source of the Kushan dynasty.",
        "Marilyn Monroe worked with Warner Brothers.",
        "United Nations was relocated to the United States in 1945.",
        "Keith Urban is a person who sings.",
    ),
    (
        "Adrienne Bailon is an accountant.",
        "Stranger Things is set in Bloomington, Indiana.",
        "Puerto Rico is not an unincorporated territory of the United States.",
        "Peggy Sue Got Married is a Egyptian film released in 1986.",
        "Andy Roddick lost 5 Master Series between 2002 and 2010.",
        "Willie Nelson dropped out of college after three years.",
    ),
)
"""The notes' three lists of FEVER training claims, to top up examples from."""

POOL_LETTERS = ("a", "c", "b")
"""Answers of the pool's lists by FEVER's own labels: supports, not enough info, refutes."""

NOTES_POOL_LETTERS = ("a", "b", "c")
"""Answers of the pool's lists as the notes print them."""


def render_prompt(examples: Sequence[tuple[str, str]], claim: str) -> str:
    """Render the question about a claim.

    Args:
        examples: claims with their answer letters, in order.
        claim: the claim asked.

    Returns:
        Text that ends in `A:`, without a newline.
    """
    shots = "".join(f"Claim: {text}\nA: ({letter})\n" for text, letter in examples)
    return f"{HEADER}{shots}Claim: {claim}\nA:"


def render_template(examples: Sequence[tuple[str, str]], claim: str, letter: str) -> str:
    """Render the question with its answer, as it is memorised: the prompt and ` (a)`."""
    return f"{render_prompt(examples, claim)} ({letter})"


def choose_examples(
    document: Document, num_shots: int, seed: int, notes_labels: bool = False, exclude: Collection[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Choose the few-shot examples for a claim: a function of page, shot count, seed and `exclude` only.

    Training claims of the page come first, drawn at random. Where they are too few, claims of the pool
    follow, each time of the answer that is rarest so far (ties: supports, refutes, not enough info), so that
    missing answers are covered first (ours, within note 000's rule). k examples are the first k of k + 1.

    Args:
        document: the evidence page of the claim.
        num_shots: examples wanted.
        seed: of the draw.
        notes_labels: answer the pool's second and third list as the notes print them.
        exclude: texts that are no example, such as that of the claim asked; the next one drawn takes the place.

    Returns:
        Pairs of claim text and answer letter, `num_shots` of them.

    Raises:
        ConfigError: page and pool together have fewer claims.
    """
    by_text = {claim.text: claim.letter for claim in reversed(document.train_claims) if claim.text not in exclude}
    drawn = _shuffled(by_text, document.title, seed)[:num_shots]
    examples = [(text, by_text[text]) for text in drawn]
    letters = NOTES_POOL_LETTERS if notes_labels else POOL_LETTERS
    pool = {
        letter: [text for text in _shuffled(texts, document.title, seed) if text not in {*by_text, *exclude}]
        for letter, texts in zip(letters, POOL, strict=True)
    }
    while len(examples) < num_shots:
        left = [letter for letter in "abc" if pool[letter]]
        if not left:
            raise ConfigError(
                f"num_shots={num_shots}: page {document.title} and the pool have {len(examples)}; lower it"
            )
        rarest = min(left, key=lambda letter: sum(answer == letter for _, answer in examples))
        examples.append((pool[rarest].pop(0), rarest))
    return tuple(examples)


def choose_examples_for(
    claim: str,
    document: Document,
    num_shots: int,
    seed: int,
    notes_labels: bool = False,
    *,
    chosen: tuple[tuple[str, str], ...] | None = None,
) -> tuple[tuple[str, str], ...]:
    """Choose the examples for a claim that is asked: those of its page, the claim itself left out.

    A page's training claims, and the pool, may hold the very sentence that is asked, so that the prompt would give its
    answer away. An example is the same sentence where it agrees after white space and case are evened out.

    Args:
        claim: text of the claim asked.
        document: its page.
        num_shots: examples wanted.
        seed: of the draw.
        notes_labels: as for `choose_examples`.
        chosen: what `choose_examples` gives for the page, where it is at hand; returned as it is unless the claim is
            among it.
    """
    chosen = choose_examples(document, num_shots, seed, notes_labels) if chosen is None else chosen
    asked = _evened(claim)
    if all(_evened(text) != asked for text, _ in chosen):
        return chosen
    there_are = (*(known.text for known in document.train_claims), *(text for texts in POOL for text in texts))
    same = {text for text in there_are if _evened(text) == asked}
    return choose_examples(document, num_shots, seed, notes_labels, exclude=same)


def same_sentence(one: str, other: str) -> bool:
    """Say whether two texts are one sentence: alike after white space and case are evened out."""
    return _evened(one) == _evened(other)


def _evened(text: str) -> str:
    """Return a sentence without what makes no other sentence of it: case, and how white space is written."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _shuffled(texts: Iterable[str], title: str, seed: int) -> list[str]:
    """Order texts at random, by their own hashes: the same in every process and Python version."""
    return sorted(texts, key=lambda text: hashlib.sha256(json.dumps([seed, title, text]).encode()).digest())
