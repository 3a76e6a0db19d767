"""Figures over layers: memorisation error over epochs, accuracy, and both in one (note 001)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sweep.report.comparisons.fever import Comparison, spread
from sweep.report.figures.drawing import (
    MAX_PANELS,
    Figure,
    colour_of,
    finish,
    hide_unused,
    legend_below,
    ordered_colours,
    panels,
    whole_numbers,
    wrapped,
)  # fmt: skip
from sweep.report.naming import ACCURACY, NLL
from sweep.report.references import References, plain_by_layer
from sweep.report.study import Trial

MAX_LABELS = 11

Curve = Sequence[tuple[float, float]]


def layer_figures(
    trials: Sequence[Trial], references: References, comparisons: Mapping[str, Comparison]
) -> list[Figure]:
    """Return the figures that the plain document memories of at least two layers allow."""
    by_model = dict(list(plain_by_layer(trials).items())[:MAX_PANELS])
    if not by_model:
        return []
    figures = [
        by_layer(by_model, references, comparisons),
        curves_by_layer(
            by_model,
            "nll_over_epochs",
            "Memorisation error over epochs, by layer",
            "NLL per token",
            error_curve,
        ),
        error_and_accuracy(by_model, references, comparisons),
        curves_by_layer(
            by_model,
            "accuracy_over_epochs",
            "FEVER accuracy over epochs, by layer",
            "FEVER accuracy",
            accuracy_curve,
        ),
    ]
    return [figure for figure in figures if figure]


def nll_curve(trial: Trial) -> Curve:
    """Return the memorisation error by epoch, from epoch 0: measured after several epochs, else while training."""
    measured = trial.curves.get("memory/nll", ())
    points = measured if len(measured) > 1 else trial.curves.get("train/nll", ())
    curve = [(float(p[0]), float(p[1])) for p in points if p[1] is not None]
    before = trial.metrics.get("memory/nll_before")
    if curve and curve[0][0] > 0 and before is not None:
        curve.insert(0, (0.0, float(before)))
    return curve


def error_curve(trial: Trial) -> Curve:
    """Return the memorisation error by epoch of what is trained: at epoch 0 that of the untrained memory, if known."""
    curve = [point for point in nll_curve(trial) if point[0] > 0]
    at_start = [
        (float(epoch), float(value))
        for name in ("memory/nll", "memory/nll_untrained")
        for epoch, value in trial.curves.get(name, ())
        if epoch == 0 and value is not None
    ]
    return [*at_start[:1], *curve]


def pretrained_error(trials: Iterable[Trial]) -> float | None:
    """Return the mean memorisation error of the model as it comes."""
    found = [float(value) for t in trials if (value := t.metrics.get("memory/nll_before")) is not None]
    return float(np.mean(found)) if found else None


def accuracy_curve(trial: Trial) -> Curve:
    """Return a trial's accuracy at the epochs at which it was evaluated, where there are several."""
    points = trial.curves.get(ACCURACY, ())
    return [(float(p[0]), float(p[1])) for p in points] if len(points) > 1 else []


def curves_by_layer(
    by_model: Mapping[str, Mapping[int, Sequence[Trial]]],
    slug: str,
    title: str,
    unit: str,
    curve_of: Callable[[Trial], Curve],
) -> Figure | None:
    """Draw one line per layer, coloured by layer, one panel per model."""
    curves = {
        model: {layer: [curve_of(t) for t in own] for layer, own in layers.items()}
        for model, layers in by_model.items()
    }
    drawn = {
        model: {layer: curve for layer, own in layers.items() if (curve := mean_curve(own))}
        for model, layers in curves.items()
    }
    drawn = {model: layers for model, layers in drawn.items() if layers}
    if not drawn:
        return None
    with panels(*wrapped(len(drawn)), share_y=False) as (canvas, axes):
        for ax, (model, layers) in zip(axes.flat, drawn.items(), strict=False):
            shades = ordered_colours(list(layers))
            for layer, curve in layers.items():
                ax.plot(
                    *zip(*curve, strict=True),
                    color=shades.to_rgba(layer),
                    linewidth=1.6 if len(layers) <= MAX_LABELS else 0.9,
                    marker="." if len(curve) < 8 else None,
                )
                draw_band(ax, curves[model][layer], shades.to_rgba(layer))
            before = pretrained_error(t for own in by_model[model].values() for t in own)
            if curve_of is error_curve and before is not None:
                ax.axhline(before, color=colour_of(1), linestyle="--", label="pretrained")
                ax.legend(fontsize=8)
            ax.set(title=model, xlabel="epoch", ylabel=unit)
            whole_numbers(ax)
            _layer_bar(canvas, ax, shades, list(layers))
        hide_unused(axes, len(drawn))
        all_curves = [own for layers in curves.values() for own in layers.values()]
        caption = f"One line per layer, dark (early) to light (late). {bands_told(all_curves)}"
        if slug.startswith("nll"):
            caption += (
                " Dashed: the pretrained model. Epoch 0: the memory before it is trained, where that was measured. "
                "Trials that were evaluated after several epochs are shown as measured "
                "there; others by the means over each epoch's training steps."
            )
        return finish(canvas, slug, title, caption)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average curves over seeds, at the epochs that all of them have."""
    tables = [dict(curve) for curve in curves if curve]
    if not tables:
        return []
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    return [(epoch, float(np.mean([table[epoch] for table in tables]))) for epoch in shared]


def draw_band(ax: Axes, curves: Sequence[Curve], colour: Any) -> None:
    """Shade the 95 % t-interval of the mean over seeds, at the epochs that all of several curves have."""
    tables = [dict(curve) for curve in curves if curve]
    epochs = [epoch for epoch, _ in mean_curve(curves)] if len(tables) > 1 else []
    spans = [span for epoch in epochs if (span := seed_interval([table[epoch] for table in tables]))]
    if spans:
        low, high = ([span[end] for span in spans] for end in (0, 1))
        ax.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)


def bands_told(curves: Iterable[Sequence[Curve]]) -> str:
    """Say what the bands around curves are, or why there is none: an error is taken over all texts, none is drawn."""
    several = [sum(1 for curve in own if curve) > 1 for own in curves]
    if several and all(several):
        return "Bands: 95 % t-interval of the mean over seeds."
    if any(several):
        return "Bands: 95 % t-interval of the mean over seeds; without: a single training, so no interval."
    return "Each line is a single training: how far another seed would differ is not known, so there is no interval."


def by_layer(
    models: Mapping[str, Mapping[int, Sequence[Trial]]],
    references: References,
    comparisons: Mapping[str, Comparison],
    suffix: str = "",
) -> Figure:
    """Draw memorisation error over layers and, below, FEVER accuracy with the pretrained line, a column per model."""
    answered = any(t.metric(ACCURACY) is not None for layers in models.values() for own in layers.values() for t in own)
    with panels(2 if answered else 1, len(models), share_y=False, height=2.6) as (canvas, axes):
        for column, (model, layers) in zip(axes.T, models.items(), strict=True):
            for ax, metric, unit in zip(column, (NLL, ACCURACY), ("NLL per token", "FEVER accuracy"), strict=False):
                found = {layer: _values(own, metric) for layer, own in layers.items()}
                found = {layer: values for layer, values in found.items() if values}
                ax.plot(
                    list(found), [float(np.mean(v)) for v in found.values()], color=colour_of(0), marker="o",
                    label="memory at this layer",
                )  # fmt: skip
                spans = {layer: seed_interval(values) for layer, values in found.items()}
                if metric == ACCURACY:
                    spans = {layer: spans[layer] or interval_around(layers[layer], comparisons) for layer in spans}
                for layer, span in spans.items():
                    if span:
                        ax.vlines(layer, *span, color=colour_of(0), alpha=0.5)
                ax.set(xlabel="layer", ylabel=unit)
                whole_numbers(ax)
            column[0].set_title(model)
            if answered:
                baseline = pretrained_accuracy([t for own in layers.values() for t in own], references)
                if baseline is not None:
                    column[1].axhline(baseline, color=colour_of(1), linestyle="--", label="pretrained")
        legend_below(canvas, axes)
        caption = (
            "Plain memories, after training: upper row, lower is better; lower row, higher is better. "
            "Bars: 95 % t-interval over seeds, where there are several; else, for the accuracy, the paired bootstrap "
            "interval of its difference from the pretrained model: where it crosses that model's line, none was found. "
            "The error is taken over all texts; with a single seed it has no interval."
        )
        return finish(canvas, f"by_layer{suffix}", "Memorisation error and FEVER accuracy by layer", caption)


def seed_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % t-interval of the mean over seeds; None with a single one."""
    over = spread(values) if len(values) > 1 else None
    return (over.low, over.high) if over else None


def interval_around(trials: Sequence[Trial], comparisons: Mapping[str, Comparison]) -> tuple[float, float] | None:
    """Return the interval of a single trial's paired difference in accuracy, moved to stand around the trial's own."""
    found = comparisons.get(trials[0].id) if len(trials) == 1 else None
    if found is None or math.isnan(found.accuracy_interval[0]):
        return None
    base = found.accuracy - found.accuracy_difference
    return base + found.accuracy_interval[0], base + found.accuracy_interval[1]


def _values(trials: Iterable[Trial], metric: str) -> list[float]:
    return [value for t in trials if (value := t.metric(metric)) is not None]


def error_and_accuracy(
    by_model: Mapping[str, Mapping[int, Sequence[Trial]]],
    references: References,
    comparisons: Mapping[str, Comparison],
) -> Figure | None:
    """Draw memorisation error against accuracy, one numbered point per layer."""
    drawn = {
        m: ls for m, ls in by_model.items() if any(t.metric(ACCURACY) is not None for ts in ls.values() for t in ts)
    }
    if not drawn:
        return None
    with panels(*wrapped(len(drawn)), share_y=False, width=4.6, height=3.6) as (canvas, axes):
        for ax, (model, layers) in zip(axes.flat, drawn.items(), strict=False):
            shades = ordered_colours(list(layers))
            points = [(layer, _mean(own, NLL), _mean(own, ACCURACY)) for layer, own in layers.items()]
            ax.plot([p[1] for p in points], [p[2] for p in points], color="#c4c4c4", linewidth=0.8, zorder=1)
            labelled = _worth_a_label(points)
            for layer, error, accuracy in points:
                span = seed_interval(_values(layers[layer], ACCURACY)) or interval_around(layers[layer], comparisons)
                if span:
                    ax.vlines(error, *span, color=shades.to_rgba(layer), alpha=0.5, zorder=1)
                ax.scatter(error, accuracy, color=shades.to_rgba(layer), s=44, zorder=2)
                if layer in labelled:
                    place = {"xytext": (6, 4), "textcoords": "offset points"}
                    ax.annotate(str(layer), (error, accuracy), **place, fontsize=8)
            baseline = pretrained_accuracy([t for own in layers.values() for t in own], references)
            if baseline is not None:
                ax.axhline(baseline, color=colour_of(1), linestyle="--", label="pretrained")
                ax.legend(fontsize=8)
            ax.set(title=model, xlabel="memorisation error (NLL per token)", ylabel="FEVER accuracy")
            ax.margins(0.12)
            _layer_bar(canvas, ax, shades, list(layers))
        hide_unused(axes, len(drawn))
        caption = (
            "One point per layer, joined in the order of layers; up and to the left is better. Bars: 95 % interval of "
            "the accuracy, over seeds where there are several, else of its paired difference from the pretrained model."
        )
        return finish(canvas, "layer_error_accuracy", "Layer, memorisation error and accuracy in one", caption)


def pretrained_accuracy(trials: Sequence[Trial], references: References) -> float | None:
    """Return the mean accuracy of the trials' baselines."""
    found = {b.id: b.metric(ACCURACY) for t in trials if (b := references.baseline(t))}
    values = [value for value in found.values() if value is not None]
    return float(np.mean(values)) if values else None


def _mean(trials: Sequence[Trial], metric: str) -> float:
    values = _values(trials, metric)
    return float(np.mean(values)) if values else float("nan")


def _worth_a_label(points: Sequence[tuple[int, float, float]]) -> set[int]:
    """Return the layers to number: at most about `MAX_LABELS` evenly, the last, and the two best."""
    layers = [layer for layer, _, _ in points]
    best = (min(points, key=lambda p: p[1])[0], max(points, key=lambda p: p[2])[0])
    return {*layers[:: -(-len(layers) // MAX_LABELS)], layers[-1], *best}


def _layer_bar(canvas: Canvas, ax: Axes, shades: Any, layers: Sequence[int]) -> None:
    bar = canvas.colorbar(shades, ax=ax, label="layer", pad=0.02)
    bar.set_ticks(list(layers[:: max(1, len(layers) // 8)]))
    bar.outline.set_visible(False)
