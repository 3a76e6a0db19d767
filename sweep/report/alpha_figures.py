"""Figures over alpha, allocation and documents: heat maps, and how fast memorising is (note 002)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Normalize

from sweep.report.drawing import (
    MAP,
    MAX_PANELS,
    Figure,
    colour_of,
    finish,
    heat_map,
    marker_of,
    panels,
)  # fmt: skip
from sweep.report.layer_figures import Curve, mean_curve, nll_curve
from sweep.report.loading import Trial
from sweep.report.references import References, is_structured
from sweep.report.study_tables import ACCURACY, LEAKAGE, NLL
from sweep.report.tables import show

MAX_ALPHAS = 12
TARGET_SHARE = 0.8
"""The default target: 80 % of the fall that plain memorising reaches in all its epochs (ours)."""
PICTURES = (
    (NLL, "nll", "Memorisation error (NLL per token)", 2, "viridis_r"),
    (ACCURACY, "accuracy", "FEVER accuracy", 3, MAP),
    (LEAKAGE, "leakage", "Leakage (share of energy outside the entries)", 2, "viridis_r"),
)

Panel = dict[tuple[str, float], list[Trial]]


def alpha_figures(
    trials: Sequence[Trial], references: References, target: float | None = None
) -> list[Figure]:
    """Return the heat maps and the speed figure for trials with the inductive loss.

    Args:
        trials: all trials.
        references: for plain memorising, the alpha 0 of every allocation.
        target: NLL per token to be reached; default a share of what plain memorising reaches, per panel.
    """
    own = [
        t for t in trials if is_structured(t) and t.get("mode") == "inductive" and t.metric(NLL) is not None
    ]
    grid = _panels(own)
    if not grid or len({alpha for panel in grid.values() for _, alpha in panel}) > MAX_ALPHAS:
        return []
    figures = [_heat_maps(grid, references, *picture) for picture in PICTURES]
    figures.append(_epochs_to_target(grid, references, target))
    return [figure for figure in figures if figure]


def _panels(trials: Sequence[Trial]) -> dict[tuple[str, int], Panel]:
    """Return (model, documents) -> (allocation, alpha) -> trials over seeds, at each model's most frequent layer.

    Where other fields vary too, the most frequent combination of the panel is taken.
    """
    grid: dict[tuple[str, int], Panel] = {}
    for model in list(dict.fromkeys(t.model for t in trials))[:MAX_PANELS]:
        own = [t for t in trials if t.model == model]
        layer = _most_frequent([t.get("layer") for t in own])
        counts = sorted({t.get("num_documents") for t in own if t.get("layer") == layer})
        for documents in counts[:MAX_PANELS]:
            here = [t for t in own if t.get("layer") == layer and t.get("num_documents") == documents]
            settings = [_settings(t) for t in here]
            usual = _most_frequent(settings)
            panel: Panel = {}
            for t, setting in zip(here, settings, strict=True):
                if setting == usual:
                    panel.setdefault((str(t.get("allocation")), float(t.get("alpha"))), []).append(t)
            grid[model, documents] = panel
    return grid


def _settings(trial: Trial) -> str:
    free = ("allocation", "alpha", "seed", "mem_seed", "granularity", "entries_per_group")
    return repr(sorted((n, show(v)) for n, v in trial.point.items() if n not in free))


def _most_frequent(values: Sequence[Any]) -> Any:
    return max(dict.fromkeys(values), key=values.count)


def _axes_of(grid: dict[tuple[str, int], Panel]) -> tuple[list[str], list[float]]:
    cells = [cell for panel in grid.values() for cell in panel]
    return sorted({name for name, _ in cells}), [0.0, *sorted({alpha for _, alpha in cells})]


def _plain(panel: Panel, references: References) -> list[Trial]:
    """Return plain memorising at the panel's settings, over seeds."""
    found = {p.id: p for own in panel.values() for t in own if (p := references.plain(t))}
    return list(found.values())


def _mean(values: Sequence[float | None]) -> float:
    kept = [value for value in values if value is not None]
    return float(np.mean(kept)) if kept else math.nan


def _heat_maps(
    grid: dict[tuple[str, int], Panel],
    references: References,
    metric: str,
    slug: str,
    name: str,
    digits: int,
    colours: str,
) -> Figure | None:
    allocations, alphas = _axes_of(grid)
    pictures = {}
    for key, panel in grid.items():
        plain = _plain(panel, references)
        values = np.full((len(allocations), len(alphas)), math.nan)
        for i, allocation in enumerate(allocations):
            at_zero = f"{metric}_{allocation}" if metric == LEAKAGE else metric
            values[i, 0] = _mean([t.metric(at_zero) for t in plain])
            for j, alpha in enumerate(alphas[1:], start=1):
                values[i, j] = _mean([t.metric(metric) for t in panel.get((allocation, alpha), ())])
        pictures[key] = values
    found = np.concatenate([values[~np.isnan(values)] for values in pictures.values()])
    if not found.size:
        return None
    models, counts = list(dict.fromkeys(m for m, _ in grid)), sorted({d for _, d in grid})
    width = 1.2 + 0.48 * len(alphas)
    with panels(len(models), len(counts), width=width, height=0.9 + 0.42 * len(allocations)) as (
        canvas,
        axes,
    ):
        for row, model in zip(axes, models, strict=True):
            own = [values for (m, _), values in pictures.items() if m == model]
            inside = np.concatenate([values[~np.isnan(values)] for values in own] or [np.zeros(1)])
            low, high = (float(inside.min()), float(inside.max())) if inside.size else (0.0, 1.0)
            norm = Normalize(low, high if high > low else low + 1)
            for ax, documents in zip(row, counts, strict=True):
                if (model, documents) not in pictures:
                    ax.set_axis_off()
                    continue
                labels = [f"{alpha:g}" for alpha in alphas]
                heat_map(ax, pictures[model, documents], allocations, labels, (colours, norm), digits)
                ax.set(title=f"{model}, {documents} documents", xlabel="alpha")
            shades = matplotlib.cm.ScalarMappable(norm, colours)
            canvas.colorbar(shades, ax=list(row), pad=0.01, aspect=12).outline.set_visible(False)  # type: ignore[operator]
        caption = (
            "Brighter is better: higher accuracy, lower error and leakage. One colour scale per model. "
        )
        caption += "Hatched: no result. Alpha 0 is plain memorising, the same trial for every allocation."
        return finish(canvas, f"alpha_allocation_{slug}", f"Alpha x allocation: {name}", caption)


def epochs_to(curve: Curve, target: float) -> float | None:
    """Return when a curve first reaches the target, linear between epochs; None if it never does."""
    for index, (epoch, value) in enumerate(curve):
        if value <= target:
            if index == 0:
                return epoch
            before, high = curve[index - 1]
            return before + (epoch - before) * (high - target) / (high - value)
    return None


def default_target(plain: Curve, others: Sequence[Curve]) -> float | None:
    """Return the NLL at `TARGET_SHARE` of plain memorising's fall, or the best curve's where that is missing."""
    curve = plain or min((c for c in others if c), key=lambda c: c[-1][1], default=[])
    return curve[0][1] - TARGET_SHARE * (curve[0][1] - curve[-1][1]) if len(curve) > 1 else None


def _epochs_to_target(
    grid: dict[tuple[str, int], Panel], references: References, target: float | None
) -> Figure | None:
    allocations, _ = _axes_of(grid)
    models, counts = list(dict.fromkeys(m for m, _ in grid)), sorted({d for _, d in grid})
    drawn = False
    with panels(len(models), len(counts), width=3.4, height=3.0, share_y=False) as (canvas, axes):
        for (i, j), ax in np.ndenumerate(axes):
            panel = grid.get((models[i], counts[j]))
            if panel is None:
                ax.set_axis_off()
                continue
            drawn = _draw_speed(ax, panel, allocations, references, target) or drawn
            ax.set_title(f"{ax.get_title()}{models[i]}, {counts[j]} documents", fontsize=10)
            ax.set_xlabel("alpha")
        axes[0, 0].set_ylabel("epochs")
        handles = {
            label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        canvas.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(6, len(handles))
        )
        if not drawn:
            return None
        caption = (
            f"Epochs until the error named in each panel is first reached (default: {TARGET_SHARE:.0%} of the fall that "
            "plain memorising has over all its epochs). Crosses at the top: not reached."
        )
        return finish(canvas, "epochs_to_nll", "Epochs to a given memorisation error, by allocation", caption)


def _draw_speed(
    ax: Any, panel: Panel, allocations: Sequence[str], references: References, target: float | None
) -> bool:
    curves = {cell: mean_curve([nll_curve(t) for t in own]) for cell, own in panel.items()}
    plain = mean_curve([nll_curve(t) for t in _plain(panel, references)])
    goal = target if target is not None else default_target(plain, list(curves.values()))
    last = max((curve[-1][0] for curve in curves.values() if curve), default=None)
    if goal is None or last is None:
        return False
    alphas = sorted({alpha for _, alpha in panel})
    place = {alpha: i for i, alpha in enumerate(alphas)}
    for index, allocation in enumerate(allocations):
        points = [
            (alpha, epochs_to(curves[allocation, alpha], goal))
            for alpha in alphas
            if curves.get((allocation, alpha))
        ]
        shift = (index - (len(allocations) - 1) / 2) * 0.09
        reached = [(place[alpha] + shift, epoch) for alpha, epoch in points if epoch is not None]
        ax.plot(
            [x for x, _ in reached], [y for _, y in reached], color=colour_of(index), marker=marker_of(index),
            markersize=5, linewidth=1.0, label=allocation,
        )  # fmt: skip
        never = [place[alpha] + shift for alpha, epoch in points if epoch is None]
        ax.scatter(never, [last * 1.04] * len(never), color=colour_of(index), marker="x", s=26)
    reached_by_plain = epochs_to(plain, goal)
    if reached_by_plain is not None:
        ax.axhline(reached_by_plain, color="#555555", linestyle="--", label="plain memorising (alpha 0)")
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    ax.set_ylim(bottom=0)
    ax.set_title(f"to NLL {goal:.2f}\n")
    return True
