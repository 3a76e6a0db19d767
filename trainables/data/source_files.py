"""The files that one source of data has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceFiles:
    """The files of one source; None or empty where it has none of a kind.

    Attributes:
        name: the source as the user named it.
        train: FEVER training claims.
        valid: FEVER validation claims (paper_dev).
        wiki_pages: FEVER's page files, sorted.
        wiki_docs: articles without claims.
        counterfact: CounterFact records.
    """

    name: str
    train: Path | None = None
    valid: Path | None = None
    wiki_pages: tuple[Path, ...] = ()
    wiki_docs: Path | None = None
    counterfact: Path | None = None

    @property
    def has_claims(self) -> bool:
        """Whether FEVER claims come from here."""
        return self.train is not None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of this source."""
        single = (self.train, self.valid, self.wiki_docs, self.counterfact)
        return (*(path for path in single if path is not None), *self.wiki_pages)
