"""Trials without a result of their own, each with its cause."""

from __future__ import annotations

from collections.abc import Sequence

from sweep.report.naming import NLL, label_texts, labels_of
from sweep.report.study import Trial
from sweep.report.table import MAX_ROWS, Cell, Table, cell_text

ORDER = ("failed", "diverged", "stopped")
CAUSE_CHARS = 300


def failures(trials: Sequence[Trial]) -> Table | None:
    """List trials that failed, diverged or were stopped early, and why; None without any."""
    found = sorted((t for t in trials if t.status in ORDER), key=lambda t: ORDER.index(t.status))
    if not found:
        return None
    labels = labels_of(found)
    shown = found[:MAX_ROWS]
    rows = tuple(
        ((t.id[:8], *label_texts(t, labels)), (Cell(t.status, t.status), Cell(cause := _cause(t), cause)))
        for t in shown
    )
    told = f"{len(shown)} of {len(found):,} are printed; the table of trials has all of them, by status."
    legend = ("In no table or figure of results.", *([told] if len(shown) < len(found) else []))
    ids = tuple(t.id for t in shown)
    return Table("failures", "Failed, diverged and stopped", ("trial", *labels), ("status", "cause"), rows, legend, ids)


def _cause(trial: Trial) -> str:
    """Say why a trial has no result."""
    if trial.error:
        return trial.error[:CAUSE_CHARS]
    if trial.status == "diverged":
        curve = [p for p in trial.curves.get("train/nll", ()) if p[1] is not None]
        last = f"; the last finite error was {curve[-1][1]:.3g} in epoch {cell_text(curve[-1][0])}" if curve else ""
        return f"its loss was no number any more{last}"
    if trial.status == "failed":
        return "no cause was recorded"
    value = trial.metrics.get(NLL)
    reached = "" if value is None else f", at {value:.3f} NLL per token"
    return f"ended early by the scheduler, as others were better{reached}"
