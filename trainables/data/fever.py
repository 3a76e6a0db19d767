"""FEVER's claims, in any of its forms, grouped by evidence page (note 000, section 2).

A *row* is one evidence annotation: the innermost list of the official per-claim layout, a line of the table
form in which the hub publishes the same data. Both forms give the same claims.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trainables.data.documents import LABELS, Claim
from trainables.data.jsonl import field, numbered_lines, parse_object, text_field
from trainables.data.source_files import SourceFiles
from trainables.data.titles import normal_title
from trainables.errors import DataError

TABLE_COLUMNS = ["id", "label", "claim", "evidence_wiki_url"]


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
    """Yield the rows of a claims file: JSON lines of either form, or CSV or Parquet in table form.

    Raises:
        DataError: a broken line or a field that is missing.
    """
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Mapping[str, Any]]]]] = {
        ".jsonl": _jsonl_records,
        ".csv": _csv_records,
        ".parquet": _parquet_records,
    }
    for where, record in readers[path.suffix](path):
        yield from _rows_of(record, where)


def _rows_of(record: Mapping[str, Any], where: str) -> Iterator[EvidenceRow]:
    """Yield the rows of one record: several in the per-claim layout, one in the table form."""
    claim_id = str(field(record, "id", where))
    label = text_field(record, "label", where)
    text = text_field(record, "claim", where)
    if label not in LABELS:
        raise DataError(f"{where}: label {label!r} must be one of {', '.join(LABELS)}")
    if "evidence" in record:
        pages = _evidence_pages(record["evidence"], where)
    else:
        pages = [field(record, "evidence_wiki_url", where)]
    for page in pages:
        if page is not None and not isinstance(page, str):
            raise DataError(f"{where}: evidence page {page!r} is not text")
        yield EvidenceRow(claim_id, label, text, normal_title(page) if page else None, where)


def _evidence_pages(evidence: Any, where: str) -> list[Any]:
    """Return the page of every `[annotation, evidence, page, sentence]`."""
    try:
        return [page for group in evidence for _, _, page, _ in group]
    except (TypeError, ValueError):
        raise DataError(
            f"{where}: field 'evidence' must be lists of lists of [annotation, evidence, page, sentence]"
        ) from None


def _jsonl_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for where, line in numbered_lines(path):
        yield where, parse_object(where, line)


def _csv_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for record in reader:
                yield f"{path}:{reader.line_num}", record
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error


def _parquet_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        columns = [name for name in TABLE_COLUMNS if name in file.schema_arrow.names]
        records = (row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist())
        for number, record in enumerate(records, start=1):
            yield f"{path}:{number}", record
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
