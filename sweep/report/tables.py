"""Tables: values with their printed form, laid out by fields of the trials, written as CSV and Parquet.

A table's rows are fields of the trials, its columns the values of one more. Whatever else differs between
trials is added to the row's labels by itself, so that no cell ever mixes different points; trials that differ
only in seeds share a cell, as mean ± standard deviation.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.report.loading import Trial
from sweep.report.statistics import spread
from trainables.spec import IDENTITY_FIELDS

MISSING = "—"
SEEDS = ("seed", "mem_seed")
NOT_SHOWN = ("depth", "revision", *SEEDS)
MAX_COLUMNS = 16

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """A value and how it is printed."""

    value: float | str | None
    text: str
    best: bool = False
    sd: float | None = None


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
    """

    slug: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[Cell, ...]], ...]
    legend: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How trials become a table.

    Attributes:
        rows: fields that label the rows; the best is bold within a block.
        column: gives a trial's column, or None to leave the trial out.
        metric: name of the metric.
        references: leading columns found by lookup: title and function from a trial to another trial.
        reference_metric: a reference's value, given the trial and the reference; default its metric.
        lower_is_better: which end is best; None: nothing is bold.
        ignore: further fields that may differ within a row (those the column stands for).
        group: how many of the row fields delimit a block.
        digits: decimals printed.
        order: sort key of the columns.
    """

    rows: tuple[str, ...]
    column: Callable[[Trial], Any]
    metric: str
    references: Mapping[str, Callable[[Trial], Trial | None]] = field(default_factory=dict)
    reference_metric: Callable[[Trial, Trial], float | None] | None = None
    lower_is_better: bool | None = False
    ignore: tuple[str, ...] = ()
    group: int = 1
    digits: int = 3
    order: Callable[[Any], Any] | None = None


def show(value: Any) -> str:
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


def varying(trials: Iterable[Trial], besides: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the identity fields, other than seeds and `besides`, in which the trials differ."""
    trials = list(trials)
    skip = {*NOT_SHOWN, *besides}
    return tuple(
        name for name in IDENTITY_FIELDS if name not in skip and len({show(t.get(name)) for t in trials}) > 1
    )


def sort_key(values: Iterable[Any]) -> list[tuple[int, float, str]]:
    """Order mixed values: nothing first, numbers by size, then texts."""
    keys = []
    for value in values:
        if value is None:
            keys.append((0, 0.0, ""))
        elif isinstance(value, (int, float)):
            keys.append((1, float(value), ""))
        else:
            keys.append((2, 0.0, show(value)))
    return keys


def pivot(trials: Sequence[Trial], layout: Layout, slug: str, title: str) -> Table | None:
    """Lay trials out; None where nothing is to be shown or the columns are too many to print."""
    placed = [(layout.column(trial), trial) for trial in trials]
    placed = [(column, trial) for column, trial in placed if column is not None]
    columns = sorted({column for column, _ in placed}, key=layout.order or (lambda c: sort_key([c])))
    if not columns or len(columns) > MAX_COLUMNS:
        return None
    labels = (*layout.rows, *varying([t for _, t in placed], (*layout.rows, *layout.ignore)))
    cells: dict[Key, dict[Any, list[Trial]]] = {}
    for column, trial in placed:
        row = tuple(trial.get(name) for name in labels)
        cells.setdefault(_hashable(row), {}).setdefault(column, []).append(trial)
    blocks: dict[Key, list[tuple[tuple[str, ...], list[Cell]]]] = {}
    for row in sorted(cells, key=sort_key):
        found = [trial for column in columns for trial in cells[row].get(column, ())]
        printed = [_reference_cell(found, name, layout) for name in layout.references]
        printed += [_cell(cells[row].get(column, ()), layout) for column in columns]
        blocks.setdefault(row[: layout.group], []).append((tuple(map(show, row)), printed))
    rows = [row for block in blocks.values() for row in _embolden(block, layout)]
    return Table(
        slug, title, labels, (*layout.references, *map(show, columns)), tuple(rows), _legend(rows, layout)
    )


def _hashable(row: Key) -> Key:
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)


def _reference_cell(found: Sequence[Trial], name: str, layout: Layout) -> Cell:
    values: dict[str, float] = {}
    for trial in found:
        other = layout.references[name](trial)
        if other is not None:
            measured = layout.reference_metric or (lambda _, reference: reference.metric(layout.metric))
            value = measured(trial, other)
            if value is not None:
                values[other.id] = value
    return _summary(list(values.values()), layout)


def _cell(trials: Sequence[Trial], layout: Layout) -> Cell:
    values = [value for trial in trials if (value := trial.metric(layout.metric)) is not None]
    if not values:
        for status in ("diverged", "failed"):
            if any(trial.status == status for trial in trials):
                return Cell(status, status)
    return _summary(values, layout)


def _summary(values: Sequence[float], layout: Layout) -> Cell:
    if not values:
        return Cell(None, MISSING)
    over = spread(values)
    if over.runs == 1:
        return Cell(over.mean, number(over.mean, layout.digits))
    text = f"{number(over.mean, layout.digits)} ± {number(over.sd, layout.digits)}"
    return Cell(over.mean, text, sd=over.sd)


def _embolden(
    block: Sequence[tuple[tuple[str, ...], list[Cell]]], layout: Layout
) -> list[tuple[tuple[str, ...], tuple[Cell, ...]]]:
    """Mark the best of a block; all that print the same are best; none where all are equal."""
    numbers = [round(c.value, layout.digits) for _, row in block for c in row if isinstance(c.value, float)]
    if layout.lower_is_better is None or len(set(numbers)) < 2:
        return [(labels, tuple(row)) for labels, row in block]
    best = min(numbers) if layout.lower_is_better else max(numbers)
    marked = []
    for labels, row in block:
        cells = (
            Cell(c.value, c.text, isinstance(c.value, float) and round(c.value, layout.digits) == best, c.sd)
            for c in row
        )
        marked.append((labels, tuple(cells)))
    return marked


def _legend(rows: Iterable[tuple[tuple[str, ...], tuple[Cell, ...]]], layout: Layout) -> tuple[str, ...]:
    cells = [cell for _, row in rows for cell in row]
    lines = []
    if any(cell.best for cell in cells):
        lines.append(
            f"**Bold**: best ({'lowest' if layout.lower_is_better else 'highest'}) of each {layout.rows[0]}"
            f"{''.join(f', {name}' for name in layout.rows[1 : layout.group])}."
        )
    if any(cell.value is None for cell in cells):
        lines.append(f"{MISSING}: no result, the point was not run or is not finished.")
    if any(cell.sd is not None for cell in cells):
        lines.append("±: standard deviation over seeds.")
    return tuple(lines)


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
