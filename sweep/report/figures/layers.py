"""Figures over layers: memorisation error over epochs, accuracy, and both in one (note 001)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from sweep.report.comparisons.fever import Comparison
from sweep.report.figures.drawing import (
    MAX_PANELS,
    Figure,
    colour_of,
    finish,
    hide_unused,
    ordered_colours,
    panels,
    whole_numbers,
    wrapped,
)  # fmt: skip
from sweep.report.naming import ACCURACY, NLL, SEEDS
from sweep.report.references import References, is_plain
from sweep.report.study import Trial

MAX_LABELS = 11

Curve = Sequence[tuple[float, float]]


def layer_figures(
    trials: Sequence[Trial], references: References, comparisons: Mapping[str, Comparison]
) -> list[Figure]:
    """Return the figures that the plain document memories of at least two layers allow."""
    by_model = plain_by_layer(trials)
    if not by_model:
        return []
    figures = [
        curves_by_layer(
            by_model,
            "nll_over_epochs",
            "Memorisation error over epochs, by layer",
            "NLL per token",
            error_curve,
        ),
        accuracy_by_layer(by_model, references, comparisons),
        error_and_accuracy(by_model, references),
        curves_by_layer(
            by_model,
            "accuracy_over_epochs",
            "FEVER accuracy over epochs, by layer",
            "FEVER accuracy",
            accuracy_curve,
        ),
    ]
    return [figure for figure in figures if figure]


def plain_by_layer(trials: Sequence[Trial]) -> dict[str, dict[int, list[Trial]]]:
    """Return model -> layer -> trials of plain document memories, at each model's most documents.

    Where other fields vary too, the most frequent combination is taken, so that lines differ by layer alone.
    """
    found = {}
    for model in dict.fromkeys(t.model for t in trials):
        own = [t for t in trials if t.model == model and is_plain(t) and t.get("content") == "document"]
        own = [t for t in own if t.metric(NLL) is not None]
        groups: dict[str, list[Trial]] = {}
        for t in own:
            rest = {n: v for n, v in t.point.items() if n not in ("layer", *SEEDS)}
            groups.setdefault(repr(sorted(rest.items(), key=str)), []).append(t)
        best = max(
            groups.values(),
            key=lambda g: (len({t.get("layer") for t in g}), g[0].get("num_documents")),
            default=[],
        )
        layers: dict[int, list[Trial]] = {}
        for t in sorted(best, key=lambda t: t.get("layer")):
            layers.setdefault(t.get("layer"), []).append(t)
        if len(layers) > 1:
            found[model] = layers
    return dict(list(found.items())[:MAX_PANELS])


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
    drawn = {
        model: {layer: curve for layer, own in layers.items() if (curve := mean_curve([curve_of(t) for t in own]))}
        for model, layers in by_model.items()
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
            before = pretrained_error(t for own in by_model[model].values() for t in own)
            if curve_of is error_curve and before is not None:
                ax.axhline(before, color=colour_of(1), linestyle="--", label="pretrained")
                ax.legend(fontsize=8)
            ax.set(title=model, xlabel="epoch", ylabel=unit)
            whole_numbers(ax)
            _layer_bar(canvas, ax, shades, list(layers))
        hide_unused(axes, len(drawn))
        caption = "One line per layer, dark (early) to light (late)."
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


def accuracy_by_layer(
    by_model: Mapping[str, Mapping[int, Sequence[Trial]]],
    references: References,
    comparisons: Mapping[str, Comparison],
) -> Figure | None:
    """Draw accuracy over layers with the pretrained line; bars are the paired intervals, put at that line."""
    drawn = {
        m: ls for m, ls in by_model.items() if any(t.metric(ACCURACY) is not None for ts in ls.values() for t in ts)
    }
    if not drawn:
        return None
    with panels(*wrapped(len(drawn)), share_y=False) as (canvas, axes):
        for ax, (model, layers) in zip(axes.flat, drawn.items(), strict=False):
            points = [(layer, _mean(own, ACCURACY), own) for layer, own in layers.items()]
            ax.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                color=colour_of(0),
                marker="o",
                label="memory at this layer",
            )
            single = [
                (layer, comparisons[own[0].id])
                for layer, _, own in points
                if len(own) == 1 and own[0].id in comparisons
            ]
            for layer, c in single:
                base = c.accuracy - c.accuracy_difference
                ax.vlines(
                    layer,
                    base + c.accuracy_interval[0],
                    base + c.accuracy_interval[1],
                    color=colour_of(0),
                    alpha=0.5,
                )
            baseline = pretrained_accuracy([t for own in layers.values() for t in own], references)
            if baseline is not None:
                ax.axhline(baseline, color=colour_of(1), linestyle="--", label="pretrained")
            ax.set(title=model, xlabel="layer", ylabel="FEVER accuracy")
            whole_numbers(ax)
            ax.legend(fontsize=8)
        hide_unused(axes, len(drawn))
        caption = "Bars: 95 % paired bootstrap interval of the difference from pretrained, clustered by page."
        return finish(canvas, "accuracy_by_layer", "FEVER accuracy by layer", caption)


def error_and_accuracy(by_model: Mapping[str, Mapping[int, Sequence[Trial]]], references: References) -> Figure | None:
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
        caption = "One point per layer, joined in the order of layers; up and to the left is better."
        return finish(canvas, "layer_error_accuracy", "Layer, memorisation error and accuracy in one", caption)


def pretrained_accuracy(trials: Sequence[Trial], references: References) -> float | None:
    """Return the mean accuracy of the trials' baselines."""
    found = {b.id: b.metric(ACCURACY) for t in trials if (b := references.baseline(t))}
    values = [value for value in found.values() if value is not None]
    return float(np.mean(values)) if values else None


def _mean(trials: Sequence[Trial], metric: str) -> float:
    values = [v for t in trials if (v := t.metric(metric)) is not None]
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
