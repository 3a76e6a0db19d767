"""Tables: values with their printed form, and their CSV and Parquet files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

MISSING = "—"
MAX_ROWS = 40
Row = TypeVar("Row")


@dataclass(frozen=True)
class Cell:
    """A value and how it is printed; the id of the trial that it is of, where it is of one."""

    value: float | str | None
    text: str
    best: bool = False
    sd: float | None = None
    trial: str = ""


@dataclass(frozen=True)
class Table:
    """A table ready to print.

    Attributes:
        slug: file name without ending.
        title: heading.
        labels: names of the leading label columns.
        columns: names of the value columns.
        rows: label texts and cells of each row.
        legend: lines below the table.
        trials: of each row, the id of the trial that it is about; none where rows are about several.
    """

    slug: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]
    legend: tuple[str, ...] = ()
    trials: tuple[str, ...] = ()


def cell_text(value: Any) -> str:
    """Print a field's value."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value)) or MISSING
    return str(value)


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Print a number with fixed decimals."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if sign else text


def interval_text(bounds: tuple[float, float], sign: bool = True) -> str:
    """Print an interval."""
    low, high = bounds
    return f"[{number(low, sign=sign)}, {number(high, sign=sign)}]" if low == low else MISSING


def p_text(value: float) -> str:
    """Print a p value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def most_telling(found: Sequence[Row], ordered: Sequence[Row], slug: str) -> tuple[Sequence[Row], tuple[str, ...]]:
    """Return the rows to print, at most `MAX_ROWS`, and a legend where rows are left out.

    Args:
        found: all rows.
        ordered: the same, those that differ first, then the largest differences.
        slug: name of the file that has all.
    """
    if len(found) <= MAX_ROWS:
        return found, ()
    told = (
        f"{MAX_ROWS} of {len(found):,} rows are printed: those that differ first, then the largest differences; "
        f"all are in {slug}.csv."
    )
    return ordered[:MAX_ROWS], (told,)


def records_of(table: Table) -> list[dict[str, Any]]:
    """Return a table's raw values, one dict per row; `<column> sd` where seeds vary."""
    found = []
    for labels, cells in table.rows:
        row: dict[str, Any] = dict(zip(table.labels, labels, strict=True))
        for column, cell in zip(table.columns, cells, strict=True):
            row[column] = cell.value
            if cell.sd is not None:
                row[f"{column} sd"] = cell.sd
        found.append(row)
    return found


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV text."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as a Parquet file; a column that mixes numbers and words (`diverged`) is stored as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if len({isinstance(v, str) for v in values if v is not None}) > 1:
            values = [v if v is None else str(v) for v in values]
        columns[name] = pa.array(values)
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()
