"""What the data loaders hand on: documents, the claims about them, and a selection of documents."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase
from typing import Literal

LABELS = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
LETTERS = {"SUPPORTS": "a", "REFUTES": "b", "NOT ENOUGH INFO": "c"}


@dataclass(frozen=True)
class Claim:
    """One claim, as seen from one evidence page.

    Attributes:
        id: FEVER's claim id.
        text: the claim.
        label: one of `LABELS`.
        rows: evidence annotations (rows of the table form) of this claim on this page; the claim's weight.
    """

    id: str
    text: str
    label: str
    rows: int = 1

    @property
    def letter(self) -> str:
        """The right answer in the prompt: a, b or c."""
        return LETTERS[self.label]


@dataclass(frozen=True)
class Question:
    """One question of a user's own about a document.

    Attributes:
        id: its name in the file.
        text: what is asked; where `is_prompt`, the whole prompt as it stands.
        choices: possible answers.
        answer: place of the right one.
        is_prompt: whether no template is put around the text.
    """

    id: str
    text: str
    choices: tuple[str, ...]
    answer: int
    is_prompt: bool = False

    @property
    def letters(self) -> str:
        """The letters of its choices: `abcd` for four."""
        return ascii_lowercase[: len(self.choices)]


@dataclass(frozen=True)
class Document:
    """A Wikipedia page with its claims, or a document of a user's own with questions.

    Attributes:
        title: page name in FEVER's spelling, whatever the file's (`Ice-T`, `Phoenix,_Arizona`; see `titles`); of a
            document of one's own as it is written.
        text: the page's text; empty where the page is missing from the wiki-pages files.
        train_claims: claims for few-shot examples and templates, in file order.
        claims: claims asked (FEVER's paper_dev), in file order.
        source: `fever`, `wiki` for an article without claims, or `own`.
        train_questions: questions for few-shot examples and templates, in file order.
        questions: questions asked, in file order.
    """

    title: str
    text: str
    train_claims: tuple[Claim, ...]
    claims: tuple[Claim, ...]
    source: Literal["fever", "wiki", "own"]
    train_questions: tuple[Question, ...] = ()
    questions: tuple[Question, ...] = ()

    @property
    def train_rows(self) -> int:
        """Training rows on this page."""
        return sum(claim.rows for claim in self.train_claims)

    @property
    def valid_rows(self) -> int:
        """Validation rows on this page: what the ranking sorts by."""
        return sum(claim.rows for claim in self.claims)


@dataclass(frozen=True)
class Selection:
    """The documents of one trial, in ranking order, and the numbers every trial reports.

    Attributes:
        documents: the N_trunc documents that remain.
        counts: `n_full` evidence pages of the validation rows; `n_top` documents asked for (plain articles
            included); `n_trunc` documents that remain; `train_rows` and `valid_rows` of the whole tables,
            rows without a page included; `train_rows_selected` and `valid_rows_selected` on the documents
            that remain; `claims_selected` questions about them (a claim is asked once per page); `questions_selected`
            where a source has questions of one's own.
    """

    documents: tuple[Document, ...]
    counts: dict[str, int]
