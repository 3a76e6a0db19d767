"""What the allocations made: entries, load, shared entries against similarity, leakage (note 002, SimSet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.report.drawing import Figure, colour_of, finish, panels, whole_numbers
from sweep.report.loading import Trial, read_extra
from sweep.report.naming import allocation_name
from sweep.report.references import is_structured
from sweep.store import Store

ANALYSIS = "analysis.json"
MAX_ALLOCATIONS = 6


@dataclass(frozen=True)
class Analysis:
    """One trial's allocation report and its leakage by group."""

    name: str
    trial: Trial
    report: Mapping[str, Any]
    leakage: Mapping[str, float]


def simset_figure(store: Store, trials: Sequence[Trial]) -> Figure | None:
    """Draw one row of four panels per allocation, each from one trial that has an `analysis.json`.

    The trial is, for each allocation and granularity, the one with the most documents and largest alpha.
    """
    found = analyses(store, trials)
    if not found:
        return None
    with panels(len(found), 4, width=3.3, height=2.7, share_y=False) as (canvas, axes):
        for row, analysis in zip(axes, found, strict=True):
            _row(row, analysis)
        documents = ", ".join(sorted({show_point(a.trial) for a in found}))
        caption = (
            f"From {documents}. Load: groups on an entry. Jaccard: exact, over shingles. Overlap: shared "
            "entries over all entries of the two groups. Points are translucent where pairs are many; the line is "
            "their mean in ten steps of similarity; dashes mark equality."
        )
        return finish(canvas, "simset", "The memories that the allocations made", caption)


def show_point(trial: Trial) -> str:
    """Name the model and number of documents."""
    return f"{trial.model} with {trial.get('num_documents')} documents"


def analyses(store: Store, trials: Sequence[Trial]) -> list[Analysis]:
    """Read one analysis per allocation and granularity, at most `MAX_ALLOCATIONS`."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if is_structured(trial) and trial.status == "done":
            groups.setdefault(allocation_name(trial), []).append(trial)
    found = []
    for name in sorted(groups):
        ranked = sorted(
            groups[name], key=lambda t: (-t.get("num_documents"), -float(t.get("alpha")), t.model, t.id)
        )
        for trial in ranked:
            read = read_extra(store, trial, ANALYSIS)
            if isinstance(read, dict) and isinstance(read.get("allocation"), dict):
                found.append(Analysis(name, trial, read["allocation"], read.get("leakage_by_group") or {}))
                break
    return found[:MAX_ALLOCATIONS]


def _row(row: Any, analysis: Analysis) -> None:
    entries, load = (
        np.asarray(analysis.report.get("entries", ())),
        np.asarray(analysis.report.get("load", ())),
    )
    _histogram(row[0], entries, "entries per group", f"{analysis.name}: entries per group")
    _histogram(row[1], load, "groups on an entry", "load per entry")
    row[1].set_ylabel("entries")
    row[0].set_ylabel("groups")
    _similarity(row[2], analysis.report.get("pairs") or ())
    values = np.asarray(sorted(analysis.leakage.values()))
    ax = row[3]
    ax.set(title=f"leakage by group (alpha {analysis.trial.get('alpha'):g})", xlabel="leakage")
    if values.size:
        ax.hist(values, bins=np.linspace(0, 1, 21), color=colour_of(0), edgecolor="white", linewidth=0.4)
        ax.axvline(values.mean(), color=colour_of(1), linestyle="--", label=f"mean {values.mean():.2f}")
        ax.legend(fontsize=8)
    else:
        _nothing(ax)
    ax.set_xlim(0, 1)
    ax.set_ylabel("groups")
    whole_numbers(ax, "y")


def _histogram(ax: Any, values: Any, label: str, title: str) -> None:
    ax.set(title=title, xlabel=label)
    if not values.size:
        _nothing(ax)
        return
    low, high = int(values.min()), int(values.max())
    step = max(1, -(-(high - low + 1) // 25))
    ax.hist(
        values,
        bins=np.arange(low - 0.5, high + step + 0.5, step),
        color=colour_of(0),
        edgecolor="white",
        linewidth=0.4,
    )
    ax.axvline(values.mean(), color=colour_of(1), linestyle="--", label=f"mean {values.mean():.1f}")
    ax.legend(fontsize=8)
    whole_numbers(ax)
    whole_numbers(ax, "y")


def _similarity(ax: Any, pairs: Sequence[Mapping[str, float]]) -> None:
    ax.set(title="shared entries and similarity", xlabel="exact Jaccard", ylabel="overlap of entries")
    if not pairs:
        _nothing(ax)
        return
    x = np.array([pair["jaccard"] for pair in pairs])
    y = np.array([pair["overlap"] for pair in pairs])
    many = len(pairs) > 200
    ax.scatter(x, y, s=6 if many else 16, alpha=0.15 if many else 0.7, color=colour_of(0), linewidths=0)
    edges = np.linspace(x.min(), x.max() + 1e-9, 11)
    step = np.clip(np.digitize(x, edges) - 1, 0, 9)
    means = [(x[step == k].mean(), y[step == k].mean()) for k in range(10) if (step == k).any()]
    ax.plot(*zip(*means, strict=True), color=colour_of(1), marker="o", markersize=3.5)
    top = max(float(x.max()), float(y.max()), 0.05) * 1.05
    ax.plot([0, top], [0, top], color="#888888", linestyle="--", linewidth=1)
    ax.set(xlim=(0, top), ylim=(-0.03 * top, top))


def _nothing(ax: Any) -> None:
    ax.text(0.5, 0.5, "not recorded", ha="center", va="center", transform=ax.transAxes, color="#777777")
