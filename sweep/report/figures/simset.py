"""What the allocations made: entries, load, shared entries against similarity, leakage (note 002, SimSet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.records.sweep_storage import SweepStorage
from sweep.report.figures.drawing import Figure, colour_of, finish, panels, whole_numbers
from sweep.report.figures.resampled import mean_interval, pair_mean_intervals
from sweep.report.naming import allocation_name
from sweep.report.references import is_structured
from sweep.report.study import Trial, read_extra
from sweep.report.table import Cell, Table, number
from trainables.adapters.memory.expectation import from_analysis

ANALYSIS = "analysis.json"
MAX_ALLOCATIONS = 6
"""Allocations in a figure."""
MAX_TABLE = 24
MAX_BARS = 25
MANY_PAIRS = 200
STEPS = 10


@dataclass(frozen=True)
class Analysis:
    """One trial's allocation report and its leakage by group."""

    name: str
    trial: Trial
    report: Mapping[str, Any]
    leakage: Mapping[str, float]


def simset_figure(found: Sequence[Analysis]) -> Figure | None:
    """Draw one row of four panels per allocation, each from one trial that has an `analysis.json`.

    Args:
        found: from `analyses`.
    """
    found = found[:MAX_ALLOCATIONS]
    if not found:
        return None
    with panels(len(found), 4, width=3.3, height=2.7, share_y=False) as (canvas, axes):
        for row, analysis in zip(axes, found, strict=True):
            _row(row, analysis)
        documents = ", ".join(sorted({show_point(a.trial) for a in found}))
        caption = (
            f"From {documents}. Dashed: the mean. Entries and load are counted over all groups and entries, so they "
            "have no interval. Jaccard: exact, over shingles. Shared: hash functions that agree (SimSet, granularity "
            "dim), else entries in common over the mean number of entries; the dashes on the diagonal are SimSet's "
            "promise, the line is the mean in steps of similarity, its bars and the band of the mean leakage 95 % "
            "intervals (bootstrap over groups; a step with a single pair has none)."
        )
        return finish(canvas, "simset", "The memories that the allocations made", caption)


def read_group_of_document(storage: SweepStorage, trial: Trial) -> list[int] | None:
    """Return the group of every document of a trial by rank; None where its analysis does not say."""
    read = read_extra(storage, trial, ANALYSIS)
    found = read.get("group_of_document") if isinstance(read, dict) else None
    return found if isinstance(found, list) else None


def simset_table(found: Sequence[Analysis]) -> Table | None:
    """Print what each allocation's n lets one expect of its overlaps, beside what they are."""
    rows = []
    for analysis in found:
        report = analysis.report
        pairs = report.get("pairs") or ()
        expected = from_analysis(report)
        unshared = [float(pair["shared"] == 0) for pair in pairs if "shared" in pair]
        jaccard = [pair["jaccard"] for pair in pairs]
        values = (
            float(np.mean(report.get("entries") or [np.nan])),
            float(np.mean(jaccard)) if pairs else None,
            float(np.std(jaccard)) if pairs else None,
            expected["standard_error"],
            expected["expected_correlation"],
            report.get("correlation"),
            expected["expected_unshared"],
            float(np.mean(unshared)) if unshared else None,
        )
        labels = (analysis.name, analysis.trial.model, f"{report.get('groups')}", f"{report.get('memory_dim')}")
        sampled = report.get("sampled") or {}
        told = {5: sampled.get("correlation_interval"), 7: sampled.get("unshared_interval")}
        cells = (Cell(value, number(value) + _between(told.get(place))) for place, value in enumerate(values))
        rows.append((labels, tuple(cells)))
    if not rows:
        return None
    columns = (
        "entries of a group", "mean Jaccard", "its deviation", "standard error of an overlap", "expected correlation",
        "correlation", "pairs sharing nothing, expected", "pairs sharing nothing",
    )  # fmt: skip
    legend = (
        "Correlation: of the share of entries that two groups share with the Jaccard similarity of their texts, over "
        "pairs. Expected: what n entries allow, by the definition of SimSet (granularity dim). Where it is low, "
        "overlaps hardly follow similarity, and a comparison of allocations says little about the method: raise "
        "entries_per_group (search_spaces/entries.py). In brackets: 95 % interval of the figure over all pairs, where "
        "there are so many that some were drawn.",
    )
    labels = ("allocation", "model", "groups", "memory_dim")
    return Table("simset", "How far shared entries can follow similarity", labels, columns, tuple(rows), legend)


def _between(interval: Sequence[float] | None) -> str:
    return f" ({number(interval[0])} to {number(interval[1])})" if interval else ""


def show_point(trial: Trial) -> str:
    """Name the model and number of documents."""
    return f"{trial.model} with {trial.get('num_documents')} documents"


def analyses(storage: SweepStorage, trials: Sequence[Trial]) -> list[Analysis]:
    """Read one analysis per allocation and granularity, at most `MAX_TABLE`.

    It is that of the trial with the most documents and the largest alpha.
    """
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if (is_structured(trial) or trial.get("method") == "allocate") and trial.status == "done":
            groups.setdefault(allocation_name(trial), []).append(trial)
    found = []
    for name in sorted(groups):
        ranked = sorted(
            groups[name], key=lambda t: (-t.get("num_documents"), -float(t.get("alpha") or 0), t.model, t.id)
        )
        for trial in ranked:
            read = read_extra(storage, trial, ANALYSIS)
            if isinstance(read, dict) and isinstance(read.get("allocation"), dict):
                found.append(Analysis(name, trial, read["allocation"], read.get("leakage_by_group") or {}))
                break
    return found[:MAX_TABLE]


def _row(row: Any, analysis: Analysis) -> None:
    report = analysis.report
    entries, load = np.asarray(report.get("entries", ())), np.asarray(report.get("load", ()))
    _histogram(row[0], entries, "entries", "groups", f"{analysis.name}: entries per group")
    _histogram(row[1], load, "groups on an entry", "entries", "load per entry")
    _similarity(row[2], report.get("pairs") or (), entries)
    ax, values = row[3], np.asarray(sorted(analysis.leakage.values()))
    trial = analysis.trial
    how = "hard" if trial.get("mode") == "hard" else f"alpha {trial.get('alpha') or 0:g}"
    how = "not trained" if trial.get("method") == "allocate" else how
    ax.set(title=f"leakage by group ({how})", xlim=(0, 1), ylabel="groups")
    if not values.size:
        _nothing(ax)
        return
    _bars(ax, values, np.linspace(0, 1, 21))
    span = mean_interval(values)
    if span:
        ax.axvspan(*span, color=colour_of(1), alpha=0.25, linewidth=0)
    ax.set_xlabel(f"leakage (mean {values.mean():.2f}{f' [{span[0]:.2f}, {span[1]:.2f}]' if span else ''})")


def _histogram(ax: Any, values: Any, name: str, counted: str, title: str) -> None:
    ax.set(title=title, ylabel=counted)
    if not values.size:
        _nothing(ax)
        return
    low, high = int(values.min()), int(values.max())
    step = max(1, -(-(high - low + 1) // MAX_BARS))
    _bars(ax, values, np.arange(low - 0.5, high + step + 0.5, step))
    ax.set_xlim(max(low - 1.5 * step, -0.9), high + 1.5 * step)
    ax.set_xlabel(f"{name} (mean {values.mean():.1f})")
    whole_numbers(ax)


def _bars(ax: Any, values: Any, edges: Any) -> None:
    """Draw a histogram with its mean as a dashed line."""
    ax.hist(values, bins=edges, color=colour_of(0), edgecolor="white", linewidth=0.4)
    ax.axvline(values.mean(), color=colour_of(1), linestyle="--")
    whole_numbers(ax, "y")


def _similarity(ax: Any, pairs: Sequence[Mapping[str, float]], entries: Any) -> None:
    """Draw the share of entries that two groups share against their similarity, with its mean in steps."""
    ax.set(title="shared entries and similarity", xlabel="exact Jaccard", ylabel="share of entries shared")
    if not pairs:
        _nothing(ax)
        return
    x = np.array([pair["jaccard"] for pair in pairs])
    y = np.array([_shared(pair, entries) for pair in pairs])
    many = len(pairs) > MANY_PAIRS
    ax.scatter(x, y, s=6 if many else 16, alpha=0.15 if many else 0.7, color=colour_of(0), linewidths=0)
    step = np.clip(np.digitize(x, np.linspace(x.min(), x.max() + 1e-9, STEPS + 1)) - 1, 0, STEPS - 1)
    inside = [step == k for k in range(STEPS) if (step == k).sum() >= (3 if many else 1)]
    middle = [float(x[m].mean()) for m in inside]
    ax.plot(middle, [y[m].mean() for m in inside], color=colour_of(1), marker="o", markersize=3.5)
    left, right = (np.array([int(pair[side]) for pair in pairs]) for side in ("left", "right"))
    for place, span in zip(middle, pair_mean_intervals(y, left, right, inside), strict=True):
        if span:
            ax.vlines(place, *span, color=colour_of(1), linewidth=1.2, alpha=0.6)
    top = max(float(x.max()), float(y.max()), 0.05) * 1.05
    ax.plot([0, top], [0, top], color="#888888", linestyle="--", linewidth=1)
    ax.set(xlim=(0, top), ylim=(-0.03 * top, top))


def _shared(pair: Mapping[str, float], entries: Any) -> float:
    """Return the share of hash functions that agree (SimSet), else of the two groups' entries that are shared."""
    if "agreement" in pair:
        return pair["agreement"]
    return 2 * pair["shared"] / float(entries[int(pair["left"])] + entries[int(pair["right"])])


def _nothing(ax: Any) -> None:
    ax.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=ax.transAxes, color="#777777")
