"""The files that one source of data has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainables.data.tables import table_files


@dataclass(frozen=True)
class SourceFiles:
    """The tables of one source, files or folders saved by `datasets`; None or empty where it has none of a kind.

    Attributes:
        name: the source as the user named it.
        train: FEVER training claims.
        valid: FEVER validation claims (paper_dev).
        wiki_pages: files of FEVER's pages, sorted.
        wiki_docs: files of articles without claims, sorted.
        counterfact: CounterFact records.
        documents: tables of documents of one's own, or text files with one document each, sorted.
        questions: questions about documents.
        template: how questions are put to a model.
    """

    name: str
    train: Path | None = None
    valid: Path | None = None
    wiki_pages: tuple[Path, ...] = ()
    wiki_docs: tuple[Path, ...] = ()
    counterfact: Path | None = None
    documents: tuple[Path, ...] = ()
    questions: Path | None = None
    template: Path | None = None

    @property
    def has_claims(self) -> bool:
        """Whether FEVER claims come from here."""
        return self.train is not None

    @property
    def tables(self) -> tuple[Path, ...]:
        """Every table of this source, questions left out."""
        single = (self.train, self.valid, self.counterfact)
        return (*(path for path in single if path is not None), *self.documents, *self.wiki_docs, *self.wiki_pages)

    @property
    def asked(self) -> tuple[Path, ...]:
        """Questions and their template."""
        return tuple(path for path in (self.questions, self.template) if path is not None)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of this source."""
        return tuple(file for path in (*self.tables, *self.asked) for file in table_files(path))
