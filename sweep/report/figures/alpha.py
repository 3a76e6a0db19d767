"""Figures over alpha, allocation and documents: results with their intervals, and how fast memorising is (note 002)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sweep.report.comparisons.fever import Comparison
from sweep.report.figures.drawing import MAX_PANELS, Figure, colour_of, finish, legend_below, marker_of, panels
from sweep.report.figures.layers import Curve, interval_around, mean_curve, nll_curve, seed_interval
from sweep.report.naming import ACCURACY, LEAKAGE, NLL, SEEDS, allocation_name
from sweep.report.references import References, is_structured
from sweep.report.study import Trial
from sweep.report.table import cell_text

MAX_ALPHAS = 12
MAX_MODELS = 3
"""Models side by side; more go into further figures."""
TARGET_SHARE = 0.8
"""The default target: 80 % of the fall that plain memorising reaches in all its epochs (ours)."""
PLAIN = "plain memorising (alpha 0)"
DODGE = 0.09
"""How far lines stand apart, of the distance between two alphas, so that their intervals can be told apart."""
Panel = dict[tuple[str, float], list[Trial]]
Grid = dict[tuple[str, int], Panel]


@dataclass(frozen=True)
class AlphaFigure:
    """One kind of figure over alpha: its metric, file name and heading, and which end is best."""

    metric: str
    slug: str
    name: str
    better: str


PICTURES = (
    AlphaFigure(ACCURACY, "accuracy", "FEVER accuracy", "higher"),
    AlphaFigure(NLL, "nll", "memorisation error (NLL per token)", "lower"),
    AlphaFigure(LEAKAGE, "leakage", "leakage (share of energy outside the entries)", "lower"),
)


def alpha_figures(
    trials: Sequence[Trial],
    references: References,
    comparisons: Mapping[str, Comparison],
    target: float | None = None,
) -> Iterator[Figure]:
    """Draw results over alpha and the speed figure for trials with the inductive loss, each as it is asked for.

    Args:
        trials: all trials.
        references: for plain memorising, the alpha 0 of every allocation.
        comparisons: of trials with plain memorising, by trial id.
        target: NLL per token to be reached; default a share of what plain memorising reaches, per panel.
    """
    own = [t for t in trials if is_structured(t) and t.get("mode") == "inductive" and t.metric(NLL) is not None]
    models = list(dict.fromkeys(t.model for t in own))
    for part, start in enumerate(range(0, len(models), MAX_MODELS)):
        grid = _panels(own, models[start : start + MAX_MODELS])
        if len({alpha for panel in grid.values() for _, alpha in panel}) > MAX_ALPHAS:
            continue
        suffix = f"_{part + 1}" if part else ""
        drawn = (_over_alpha(grid, references, comparisons, picture, suffix) for picture in PICTURES)
        yield from (figure for figure in drawn if figure)
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
    return repr(sorted((n, cell_text(v)) for n, v in trial.point.items() if n not in free))


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


def _over_alpha(
    grid: Grid, references: References, comparisons: Mapping[str, Comparison], picture: AlphaFigure, suffix: str
) -> Figure | None:
    """Draw one line per allocation over alpha, with intervals; plain memorising is a dashed line across."""
    allocations, alphas = _axes_of(grid)
    models, counts = _models_and_counts(grid)
    place = {alpha: i for i, alpha in enumerate(alphas[1:])}
    drawn = False
    with panels(len(counts), len(models), width=4.8, height=2.6, share_y=False) as (canvas, axes):
        for (i, j), ax in np.ndenumerate(axes):
            key = (models[j], counts[i])
            points = _points(grid.get(key, {}), picture.metric, comparisons)
            if not points:
                ax.set_axis_off()
                continue
            drawn = True
            for index, allocation in enumerate(allocations):
                own = [(place[alpha], *points[name, alpha]) for name, alpha in sorted(points) if name == allocation]
                shift = (index - (len(allocations) - 1) / 2) * DODGE
                style: Any = {"color": colour_of(index), "linewidth": 1.0}
                ax.plot(
                    [x + shift for x, *_ in own], [y for _, y, _ in own], marker=marker_of(index), markersize=5,
                    label=allocation, **style,
                )  # fmt: skip
                for x, _, span in own:
                    if span:
                        ax.vlines(x + shift, *span, alpha=0.45, **style)
            plain = _mean([t.metric(picture.metric) for t in _plain(grid[key], references)])
            if not math.isnan(plain):
                ax.axhline(plain, color="#555555", linestyle="--", label=PLAIN)
            _alpha_axis(ax, list(place))
            ax.set(title=f"{key[0]}, {key[1]} documents", xlabel="alpha", ylabel=picture.name.split(" (")[0])
        if not drawn:
            return None
        legend_below(canvas, axes)
        bars = (
            "over seeds where there are several, else of the paired difference from plain memorising (bootstrap over "
            "pages), drawn around the trial's own value"
            if picture.metric == ACCURACY
            else "over seeds; without a bar: a single training, whose value is taken over all texts"
        )
        caption = f"{picture.better.capitalize()} is better. Bars: 95 % interval {bars}."
        slug = f"alpha_allocation_{picture.slug}{suffix}"
        return finish(canvas, slug, f"Alpha x allocation: {picture.name}", caption)


def _alpha_axis(ax: Any, alphas: Sequence[float]) -> None:
    """Label a place for each alpha, with half a place on either side, also around a single one."""
    ax.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    ax.set_xlim(-0.5, len(alphas) - 0.5)


def _points(
    panel: Panel, metric: str, comparisons: Mapping[str, Comparison]
) -> dict[tuple[str, float], tuple[float, tuple[float, float] | None]]:
    """Return the mean of each cell of a panel and its interval, where there is one."""
    found = {}
    for cell, own in panel.items():
        values = [value for t in own if (value := t.metric(metric)) is not None]
        if values:
            paired = interval_around(own, comparisons) if metric == ACCURACY else None
            found[cell] = float(np.mean(values)), seed_interval(values) or paired
    return found


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
        legend_below(canvas, axes)
        caption = (
            f"Epochs until the error named above each panel is first reached (default: {TARGET_SHARE:.0%} of the "
            "fall that plain memorising has over all its epochs). Crosses at the top: not reached. Bars: 95 % interval "
            "over seeds, where several reach it; without: a single training."
        )
        title = "Epochs to a given memorisation error, by allocation"
        return finish(canvas, f"epochs_to_nll{suffix}", title, caption)


def _draw_speed(
    ax: Any, panel: Panel, allocations: Sequence[str], references: References, target: float | None
) -> float | None:
    """Draw one panel and return the error that it is about, None where nothing can be drawn."""
    by_seed = {cell: [nll_curve(t) for t in own] for cell, own in panel.items()}
    curves = {cell: mean_curve(own) for cell, own in by_seed.items()}
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
        shift = (index - (len(allocations) - 1) / 2) * DODGE
        reached = [(place[alpha] + shift, epoch) for alpha, epoch in points if epoch is not None]
        ax.plot(
            [x for x, _ in reached], [y for _, y in reached], color=colour_of(index), marker=marker_of(index),
            markersize=5, linewidth=1.0, label=allocation,
        )  # fmt: skip
        for alpha, epoch in points:
            span = seed_interval([e for c in by_seed[allocation, alpha] if (e := epochs_to(c, goal)) is not None])
            if epoch is not None and span:
                ax.vlines(place[alpha] + shift, *span, color=colour_of(index), linewidth=1.0, alpha=0.45)
        never = [place[alpha] + shift for alpha, epoch in points if epoch is None]
        ax.scatter(never, [last * 1.04] * len(never), color=colour_of(index), marker="x", s=26)
    reached_by_plain = epochs_to(plain, goal)
    if reached_by_plain is not None:
        ax.axhline(reached_by_plain, color="#555555", linestyle="--", label=PLAIN)
    _alpha_axis(ax, alphas)
    ax.set_ylim(0, last * 1.1)
    return goal
