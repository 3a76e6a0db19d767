"""FEVER's claims, in any of its forms, grouped by evidence page (note 000, section 2).

A *row* is one evidence annotation: the innermost list of the official per-claim layout, a line of the table
form in which the hub publishes the same data. Both forms give the same claims.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainables.data.documents import LABELS, Claim
from trainables.data.jsonl import checked_text
from trainables.data.source_files import SourceFiles
from trainables.data.tables import read_table
from trainables.data.titles import normal_title
from trainables.errors import DataError

COLUMNS = ("id", "label", "claim", ("evidence", "evidence_wiki_url"))
_MISSING = frozenset(
    "|nan|-nan|none|null|nil|na|n/a|<na>|#na|#n/a|#n/a n/a|nat|-|1.#ind|-1.#ind|1.#qnan|-1.#qnan".split("|")
)
"""What pandas, R, Excel and people write for a value that is missing, in lower case."""


class EvidenceRow(NamedTuple):
    """One evidence annotation; `page` is None for a claim without evidence page, `where` is file and line."""

    claim_id: str
    label: str
    text: str
    page: str | None
    where: str


@dataclass(frozen=True)
class ClaimTable:
    """One split, grouped.

    Attributes:
        pages: claims by evidence page, both in order of first appearance.
        rows: rows of the whole split, those without a page or on other pages included.
    """

    pages: dict[str, tuple[Claim, ...]]
    rows: int

    def ranking(self) -> list[str]:
        """Pages by number of rows, descending; ties by title (ours)."""
        return sorted(self.pages, key=lambda page: (-sum(claim.rows for claim in self.pages[page]), page))


def load_splits(source: SourceFiles) -> tuple[ClaimTable, ClaimTable]:
    """Read a source's training and validation claims; training claims only about pages of validation rows.

    Raises:
        DataError: a broken line or a field that is missing.
    """
    assert source.train is not None and source.valid is not None
    valid = group_by_page(read_rows(source.valid))
    return group_by_page(read_rows(source.train), valid.pages), valid


def group_by_page(rows: Iterable[EvidenceRow], wanted: Collection[str] | None = None) -> ClaimTable:
    """Group rows by evidence page.

    Args:
        rows: the split's rows.
        wanted: pages to keep; all where None.

    Raises:
        DataError: two different claims under one id.
    """
    total = 0
    grouped: dict[str, dict[str, list[EvidenceRow]]] = {}
    for row in rows:
        total += 1
        if row.page is None or (wanted is not None and row.page not in wanted):
            continue
        same = grouped.setdefault(row.page, {}).setdefault(row.claim_id, [])
        if same and (same[0].text, same[0].label) != (row.text, row.label):
            raise DataError(f"{row.where}: id {row.claim_id} names another claim at {same[0].where}")
        same.append(row)
    pages = {
        page: tuple(Claim(id_, same[0].text, same[0].label, len(same)) for id_, same in claims.items())
        for page, claims in grouped.items()
    }
    return ClaimTable(pages, total)


def read_rows(path: Path) -> Iterator[EvidenceRow]:
    """Yield the rows of a table of claims: one claim a record, or one evidence annotation.

    Raises:
        DataError: a broken line, a column that is missing, or a value that cannot be one.
    """
    for where, record in read_table(path, COLUMNS):
        yield from _rows_of(record, where)


def _rows_of(record: Mapping[str, Any], where: str) -> Iterator[EvidenceRow]:
    """Yield the rows of one record: several in the per-claim layout, one in the table form."""
    claim_id = _claim_id(record["id"], where)
    label = checked_text(record["label"], "field 'label'", where)
    text = checked_text(record["claim"], "field 'claim'", where)
    if label not in LABELS:
        raise DataError(f"{where}: label {label!r} must be one of {', '.join(LABELS)}")
    if is_missing(text):
        raise DataError(f"{where}: claim {text!r}: the claim is missing")
    pages = _evidence_pages(record["evidence"], where) if "evidence" in record else [record["evidence_wiki_url"]]
    for page in pages:
        yield EvidenceRow(claim_id, label, text, _page(page, label, where), where)


def _claim_id(value: Any, where: str) -> str:
    """Return an id as text; tables with gaps turn whole numbers into `75397.0`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or is_missing(value):
        raise DataError(f"{where}: id {value!r}: a number or text is needed")
    text = checked_text(str(value), "field 'id'", where).strip()
    return text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text


def _page(page: Any, label: str, where: str) -> str | None:
    """Return the page of an annotation; None where it has none.

    A claim without enough info has no page in FEVER, whatever a program has written for "nothing" there. For the
    others such a word is a page's name: Wikipedia has a page `NaN`.
    """
    if page is None or page == "" or page != page:
        return None
    if label == "NOT ENOUGH INFO" and is_missing(page):
        return None
    return normal_title(checked_text(page, "evidence page", where)) or None


def is_missing(value: Any) -> bool:
    """Say whether a value is what programs write where there is none: empty, not a number, or a word such as `NULL`."""
    return value != value or (isinstance(value, str) and value.strip().casefold() in _MISSING)


def _evidence_pages(evidence: Any, where: str) -> list[Any]:
    """Return the page of every `[annotation, evidence, page, sentence]`."""
    try:
        return [page for group in evidence for _, _, page, _ in group]
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: field 'evidence' must be lists of lists of [annotation, evidence, page, sentence]"
        ) from None
