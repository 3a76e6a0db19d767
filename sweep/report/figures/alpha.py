"""Figures over alpha, allocation and documents: heat maps, and how fast memorising is (note 002)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from sweep.report.figures.drawing import (
    MAP,
    MAX_PANELS,
    Figure,
    colour_of,
    finish,
    heat_map,
    marker_of,
    panels,
)  # fmt: skip
from sweep.report.figures.layers import Curve, mean_curve, nll_curve
from sweep.report.naming import ACCURACY, LEAKAGE, NLL, SEEDS, allocation_name
from sweep.report.references import References, is_structured
from sweep.report.study import Trial
from sweep.report.table import show
from sweep.report.tables.of_the_study import leakage_of_plain, set_name

MAX_ALPHAS = 12
MAX_MODELS = 3
"""Models side by side; more go into further figures."""
TARGET_SHARE = 0.8
"""The default target: 80 % of the fall that plain memorising reaches in all its epochs (ours)."""
Panel = dict[tuple[str, float], list[Trial]]
Grid = dict[tuple[str, int], Panel]


@dataclass(frozen=True)
class Picture:
    """One kind of heat map: its metric, file name, heading, decimals in the cells and colour map."""

    metric: str
    slug: str
    name: str
    digits: int
    colours: str


PICTURES = (
    Picture(NLL, "nll", "memorisation error (NLL per token)", 2, f"{MAP}_r"),
    Picture(ACCURACY, "accuracy", "FEVER accuracy", 3, MAP),
    Picture(LEAKAGE, "leakage", "leakage (share of energy outside the entries)", 2, f"{MAP}_r"),
)


def alpha_figures(trials: Sequence[Trial], references: References, target: float | None = None) -> Iterator[Figure]:
    """Draw the heat maps and the speed figure for trials with the inductive loss, each as it is asked for.

    Args:
        trials: all trials.
        references: for plain memorising, the alpha 0 of every allocation.
        target: NLL per token to be reached; default a share of what plain memorising reaches, per panel.
    """
    own = [t for t in trials if is_structured(t) and t.get("mode") == "inductive" and t.metric(NLL) is not None]
    models = list(dict.fromkeys(t.model for t in own))
    for part, start in enumerate(range(0, len(models), MAX_MODELS)):
        grid = _panels(own, models[start : start + MAX_MODELS])
        if len({alpha for panel in grid.values() for _, alpha in panel}) > MAX_ALPHAS:
            continue
        suffix = f"_{part + 1}" if part else ""
        maps = (_heat_maps(grid, references, picture, suffix) for picture in PICTURES)
        yield from (figure for figure in maps if figure)
        speed = _epochs_to_target(grid, references, target, suffix)
        if speed:
            yield speed


def _panels(trials: Sequence[Trial], models: Sequence[str]) -> Grid:
    """Return (model and layer, documents) -> (allocation, alpha) -> trials, at one layer per model.

    Where other fields vary too, the most frequent combination of the panel is taken.
    """
    grid: Grid = {}
    for model in models:
        own = [t for t in trials if t.model == model]
        layer = _layer_to_show(own)
        counts = sorted({t.get("num_documents") for t in own if t.get("layer") == layer})
        for documents in counts[:MAX_PANELS]:
            here = [t for t in own if t.get("layer") == layer and t.get("num_documents") == documents]
            settings = [_settings(t) for t in here]
            usual = _most_frequent(settings)
            panel: Panel = {}
            for t, setting in zip(here, settings, strict=True):
                if setting == usual:
                    panel.setdefault((allocation_name(t), float(t.get("alpha"))), []).append(t)
            grid[f"{model} layer {layer}", documents] = panel
    return grid


def _layer_to_show(trials: Sequence[Trial]) -> Any:
    """Return the layer with the most trials; of several, the one that reaches the lowest error."""
    layers = [t.get("layer") for t in trials]
    lowest = {
        layer: min(t.metric(NLL) or math.inf for t in trials if t.get("layer") == layer)
        for layer in dict.fromkeys(layers)
    }
    return min(lowest, key=lambda layer: (-layers.count(layer), lowest[layer]))


def _settings(trial: Trial) -> str:
    free = ("allocation", "alpha", "granularity", "entries_per_group", *SEEDS)
    return repr(sorted((n, show(v)) for n, v in trial.point.items() if n not in free))


def _most_frequent(values: Sequence[Any]) -> Any:
    return max(dict.fromkeys(values), key=values.count)


def _axes_of(grid: Grid) -> tuple[list[str], list[float]]:
    cells = [cell for panel in grid.values() for cell in panel]
    return sorted({name for name, _ in cells}), [0.0, *sorted({alpha for _, alpha in cells})]


def _plain(panel: Panel, references: References) -> list[Trial]:
    """Return plain memorising at the panel's settings, over seeds."""
    found = {p.id: p for own in panel.values() for t in own if (p := references.plain(t))}
    return list(found.values())


def _mean(values: Sequence[float | None]) -> float:
    kept = [value for value in values if value is not None]
    return float(np.mean(kept)) if kept else math.nan


def _heat_maps(grid: Grid, references: References, picture: Picture, suffix: str) -> Figure | None:
    tables = {key: _values(grid, key, references, picture.metric) for key in grid}
    allocations, alphas = _axes_of(grid)
    models, counts = _models_and_counts(grid)
    if all(np.isnan(table).all() for table in tables.values()):
        return None
    width, height = 1.4 + 0.46 * len(alphas), 0.9 + 0.3 * len(allocations)
    with panels(len(counts), len(models), width=width, height=height, share_y=False) as (canvas, axes):
        for model, column in zip(models, axes.T, strict=True):
            norm = _norm([table for (m, _), table in tables.items() if m == model])
            for documents, ax in zip(counts, column, strict=True):
                if (model, documents) not in tables:
                    ax.set_axis_off()
                    continue
                labels = [f"{alpha:g}" for alpha in alphas]
                shades = (picture.colours, norm)
                heat_map(ax, tables[model, documents], allocations, labels, shades, picture.digits)
                ax.set(title=f"{model}, {documents} documents", xlabel="alpha")
            bar = canvas.colorbar(ScalarMappable(norm, picture.colours), ax=list(column), pad=0.02, aspect=40)
            bar.outline.set_visible(False)
        caption = (
            "Brighter is better: higher accuracy, lower error and leakage. One colour scale per model. "
            "Hatched: no result. Alpha 0 is plain memorising, the same trial for every allocation."
        )
        slug = f"alpha_allocation_{picture.slug}{suffix}"
        return finish(canvas, slug, f"Alpha x allocation: {picture.name}", caption)


def _values(grid: Grid, key: tuple[str, int], references: References, metric: str) -> NDArray[np.float64]:
    """Return one panel's means, `[allocations, alphas]`, NaN where there is none."""
    allocations, alphas = _axes_of(grid)
    plain = _plain(grid[key], references)
    values = np.full((len(allocations), len(alphas)), math.nan)
    for i, allocation in enumerate(allocations):
        if metric == LEAKAGE:
            own = {set_name(t): t for (name, _), found in grid[key].items() if name == allocation for t in found}
            values[i, 0] = _mean([leakage_of_plain(t, other) for t in own.values() for other in plain])
        else:
            values[i, 0] = _mean([t.metric(metric) for t in plain])
        for j, alpha in enumerate(alphas[1:], start=1):
            values[i, j] = _mean([t.metric(metric) for t in grid[key].get((allocation, alpha), ())])
    return values


def _norm(tables: Sequence[NDArray[np.float64]]) -> Normalize:
    found = np.concatenate([table[~np.isnan(table)] for table in tables])
    low, high = (float(found.min()), float(found.max())) if found.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1)


def _models_and_counts(grid: Grid) -> tuple[list[str], list[int]]:
    return list(dict.fromkeys(model for model, _ in grid)), sorted({documents for _, documents in grid})


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
    """Return the NLL at `TARGET_SHARE` of plain memorising's fall, or the best curve's if missing."""
    curve = plain or min((c for c in others if c), key=lambda c: c[-1][1], default=[])
    return curve[0][1] - TARGET_SHARE * (curve[0][1] - curve[-1][1]) if len(curve) > 1 else None


def _epochs_to_target(grid: Grid, references: References, target: float | None, suffix: str) -> Figure | None:
    allocations, _ = _axes_of(grid)
    models, counts = _models_and_counts(grid)
    drawn = False
    with panels(len(counts), len(models), width=4.8, height=2.6, share_y=False) as (canvas, axes):
        for (i, j), ax in np.ndenumerate(axes):
            panel = grid.get((models[j], counts[i]))
            goal = None if panel is None else _draw_speed(ax, panel, allocations, references, target)
            if goal is None:
                ax.set_axis_off()
                continue
            drawn = True
            ax.set(title=f"{models[j]}, {counts[i]} documents: NLL {goal:.2f}", xlabel="alpha", ylabel="epochs")
        if not drawn:
            return None
        found = [ax.get_legend_handles_labels() for ax in axes.flat]
        handles = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True)}
        fit = int(canvas.get_figwidth() / (0.6 + 0.085 * max(map(len, handles), default=1)))  # inches a letter
        canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(3, max(1, fit)))
        caption = (
            f"Epochs until the error named above each panel is first reached (default: {TARGET_SHARE:.0%} of the "
            "fall that plain memorising has over all its epochs). Crosses at the top: not reached."
        )
        title = "Epochs to a given memorisation error, by allocation"
        return finish(canvas, f"epochs_to_nll{suffix}", title, caption)


def _draw_speed(
    ax: Any, panel: Panel, allocations: Sequence[str], references: References, target: float | None
) -> float | None:
    """Draw one panel and return the error that it is about, None where nothing can be drawn."""
    curves = {cell: mean_curve([nll_curve(t) for t in own]) for cell, own in panel.items()}
    plain = mean_curve([nll_curve(t) for t in _plain(panel, references)])
    goal = target if target is not None else default_target(plain, list(curves.values()))
    last = max((curve[-1][0] for curve in curves.values() if curve), default=None)
    if goal is None or last is None:
        return None
    alphas = sorted({alpha for _, alpha in panel})
    place = {alpha: i for i, alpha in enumerate(alphas)}
    for index, allocation in enumerate(allocations):
        points = [
            (alpha, epochs_to(curves[allocation, alpha], goal)) for alpha in alphas if curves.get((allocation, alpha))
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
    return goal
