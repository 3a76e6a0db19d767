"""Lay trials out as tables by the fields they differ in.

A table's rows are fields of the trials. Whatever else differs between trials is added to the row's labels by
itself, so that no cell ever mixes different points; trials that differ only in seeds share a cell, as mean ±
standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweep.report.comparisons.fever import spread
from sweep.report.naming import NOT_SHOWN, SEEDS, varying
from sweep.report.study import Trial
from sweep.report.table import MISSING, Cell, Table, cell_text, number
from trainables.trial.identity import TOLD_APART

MAX_COLUMNS = 16

Key = tuple[Any, ...]
Row = tuple[tuple[str, ...], tuple[Cell, ...]]


@dataclass(frozen=True)
class Measure:
    """One value column of a listing: name, where its value comes from, which end is best (None: neither), digits."""

    name: str
    value: Callable[[Trial], float | None]
    lower_is_better: bool | None = None
    digits: int = 3


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


def metric_named(name: str) -> Callable[[Trial], float | None]:
    """Return what reads a metric of a trial."""
    return lambda trial: trial.metric(name)


def sort_key(values: Iterable[Any]) -> list[tuple[int, float, str]]:
    """Order mixed values: nothing first, numbers by size, then texts."""
    keys = []
    for value in values:
        if value is None:
            keys.append((0, 0.0, ""))
        elif isinstance(value, (int, float)):
            keys.append((1, float(value), ""))
        else:
            keys.append((2, 0.0, cell_text(value)))
    return keys


def compared_over(trials: Sequence[Trial], names: Sequence[str]) -> list[Trial]:
    """Return the trials that have a companion which differs in the named fields (and seeds) only."""
    groups: dict[str, list[Trial]] = {}
    rest = [name for name in TOLD_APART if name not in (*names, *NOT_SHOWN)]
    for trial in trials:
        groups.setdefault(repr([trial.get(name) for name in rest]), []).append(trial)
    return [t for own in groups.values() if varying(own, set(TOLD_APART) - {*names}) for t in own]


def pivot(trials: Sequence[Trial], layout: Layout, slug: str, title: str) -> Table | None:
    """Lay trials out with one column per value; None where there is nothing, or too many columns to print."""
    placed = [(column, trial) for trial in trials if (column := layout.column(trial)) is not None]
    columns = sorted({column for column, _ in placed}, key=layout.order or (lambda c: sort_key([c])))
    if not columns or len(columns) > MAX_COLUMNS:
        return None
    labels = (*layout.rows, *varying([t for _, t in placed], (*layout.rows, *layout.ignore)))
    cells: dict[Key, dict[Any, list[Trial]]] = {}
    for column, trial in placed:
        cells.setdefault(_row_key(trial, labels), {}).setdefault(column, []).append(trial)
    rows: list[Row] = []
    for block in _blocks(cells, layout.group):
        printed = [[*_references(cells[key], layout), *(_cell(cells[key].get(c, ()), layout) for c in columns)]
                   for key in block]  # fmt: skip
        flat = mark_best([cell for row in printed for cell in row], layout.lower_is_better, layout.digits)
        width = len(columns) + len(layout.references)
        for index, key in enumerate(block):
            rows.append((tuple(map(cell_text, key)), tuple(flat[index * width : (index + 1) * width])))
    names = (*layout.references, *map(cell_text, columns))
    return Table(slug, title, labels, names, tuple(rows), _legend(rows, labels[: layout.group]))


def listing(
    trials: Sequence[Trial], labels: Sequence[str], measures: Sequence[Measure], slug: str, title: str
) -> Table:
    """Lay trials out with one column per measure, sorted by the labels; the best of each first label is bold."""
    labels = (*labels, *varying(trials, labels))
    cells: dict[Key, list[Trial]] = {}
    for trial in trials:
        cells.setdefault(_row_key(trial, labels), []).append(trial)
    rows: list[Row] = []
    for block in _blocks(cells, 1):
        columns = [
            mark_best([_summary(_by_seed(cells[key], m.value), m.digits) for key in block], m.lower_is_better, m.digits)
            for m in measures
        ]
        rows += [(tuple(map(cell_text, key)), row) for key, row in zip(block, zip(*columns, strict=True), strict=True)]
    names = tuple(m.name for m in measures)
    return Table(slug, title, tuple(labels), names, tuple(rows), _legend(rows, labels[:1]))


def mark_best(cells: Sequence[Cell], lower_is_better: bool | None, digits: int = 3) -> list[Cell]:
    """Mark the best of some cells; all that print the same are best, none where all are equal."""
    numbers = [round(cell.value, digits) for cell in cells if isinstance(cell.value, float)]
    if lower_is_better is None or len(set(numbers)) < 2:
        return list(cells)
    best = min(numbers) if lower_is_better else max(numbers)
    return [replace(c, best=isinstance(c.value, float) and round(c.value, digits) == best) for c in cells]


def _row_key(trial: Trial, labels: Sequence[str]) -> Key:
    values = (trial.get(name) for name in labels)
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _blocks(rows: Iterable[Key], group: int) -> list[list[Key]]:
    """Return the row keys in order, those that share their first `group` values together."""
    blocks: dict[Key, list[Key]] = {}
    for key in sorted(rows, key=sort_key):
        blocks.setdefault(key[:group], []).append(key)
    return list(blocks.values())


def _references(columns: Mapping[Any, Sequence[Trial]], layout: Layout) -> list[Cell]:
    """Return the leading cells of a row: what its trials are measured against."""
    trials = [trial for own in columns.values() for trial in own]
    found = []
    for look_up in layout.references.values():
        values: dict[tuple[str, float], float] = {}  # one trial may be measured in several ways, as under several sets
        for trial in trials:
            other = look_up(trial)
            if other is None:
                continue
            measure = layout.reference_metric
            value = measure(trial, other) if measure else other.metric(layout.metric)
            if value is not None:
                values[other.id, value] = value
        found.append(_summary(list(values.values()), layout.digits))
    return found


def _cell(trials: Sequence[Trial], layout: Layout) -> Cell:
    values = _by_seed(trials, lambda trial: trial.metric(layout.metric))
    if not values:
        for status in ("diverged", "stopped", "failed"):
            if any(trial.status == status for trial in trials):
                return Cell(status, status)
    cell = _summary(values, layout.digits)
    return replace(cell, trial=trials[0].id) if values and len(trials) == 1 else cell


def _by_seed(trials: Iterable[Trial], value_of: Callable[[Trial], float | None]) -> list[float]:
    """Return one value per seed: trials that differ in probes alone measure the same thing."""
    found: dict[Key, float] = {}
    for trial in trials:
        value = value_of(trial)
        if value is not None:
            found.setdefault(tuple(trial.get(name) for name in SEEDS), value)
    return list(found.values())


def _summary(values: Sequence[float], digits: int = 3) -> Cell:
    if not values:
        return Cell(None, MISSING)
    over = spread(values)
    if over.runs == 1:
        return Cell(over.mean, number(over.mean, digits))
    return Cell(over.mean, f"{number(over.mean, digits)} ± {number(over.sd, digits)}", sd=over.sd)


def _legend(rows: Iterable[Row], group: Sequence[str]) -> tuple[str, ...]:
    cells = [cell for _, row in rows for cell in row]
    lines = []
    if any(cell.best for cell in cells):
        lines.append(f"**Bold**: best of each {' and '.join(group)}.")
    if any(cell.value is None for cell in cells):
        lines.append(f"{MISSING}: no result; the point was not run, or is not finished, or has no such number.")
    if any(cell.sd is not None for cell in cells):
        lines.append("±: standard deviation over seeds.")
    return tuple(lines)
