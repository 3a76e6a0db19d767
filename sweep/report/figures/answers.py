"""The figures of the report's first page, one for each conclusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from types import MappingProxyType

from matplotlib.axes import Axes

from sweep.report.conclusions import COST, FORGETTING, HELPS, LAYER, STRUCTURE, SURE
from sweep.report.evidence import Difference, Evidence, differences_from_pretrained, of_fever, of_units
from sweep.report.figures.drawing import (
    MAX_PANELS,
    Figure,
    colour_of,
    finish,
    hide_unused,
    legend_below,
    marker_of,
    panels,
    wrapped,
)  # fmt: skip
from sweep.report.figures.layers import by_layer
from sweep.report.references import plain_by_layer

LOOKS = {1: ("better", 2, 0), 0: ("no difference found", 6, 1), -1: ("worse", 1, 4)}
"""By verdict: its name, colour and marker."""
FEVER = "FEVER accuracy"
FEW = 80
"""Trials in a panel up to which points are drawn large and intervals dark."""


def answer_figures(
    evidence: Evidence, suffix: str = "", shown: Mapping[str, Figure] = MappingProxyType({})
) -> dict[str, Figure]:
    """Return one figure for each conclusion that has something to draw, by its key.

    Args:
        evidence: of a sweep.
        suffix: of the file names.
        shown: figures that stand there already.
    """
    what, found = differences_from_pretrained(evidence)
    structured = [of_fever(c) for c in evidence.against_plain]
    figures = dict(shown)
    if helps := differences_figure(evidence, suffix):
        figures[HELPS] = helps
    by_model = dict(list(plain_by_layer(evidence.trials).items())[:MAX_PANELS])
    if by_model and LAYER not in shown:
        comparisons = {c.trial.id: c for c in evidence.against_pretrained}
        figures[LAYER] = by_layer(by_model, evidence.references, comparisons, suffix)
    if structured and STRUCTURE not in shown:
        figures[STRUCTURE] = _sorted_differences(FEVER, structured, f"structure{suffix}", "plain memorising")
    cost, reach = _cost(evidence, found, what, suffix), _reach(what or FEVER, found or structured, suffix)
    return figures | ({COST: cost} if cost else {}) | ({SURE: reach} if reach else {})


def differences_figure(evidence: Evidence, suffix: str = "") -> Figure | None:
    """Return every trial's difference from the pretrained model; None where nothing was compared with it."""
    what, found = differences_from_pretrained(evidence)
    return _sorted_differences(what, found, f"differences{suffix}") if found else None


def _sorted_differences(
    what: str, found: Sequence[Difference], slug: str, reference: str = "the pretrained model", sign: str = ""
) -> Figure:
    """Draw every trial's difference with its interval, sorted, a panel per model.

    Args:
        what: was measured.
        found: the differences.
        slug: file name.
        reference: what was subtracted.
        sign: what a positive difference means, where that is not "better".
    """
    models = list(dict.fromkeys(d.trial.model for d in found))[:MAX_PANELS]
    with panels(*wrapped(len(models)), width=5.0, height=3.0, share_y=False) as (canvas, axes):
        for ax, model in zip(axes.flat, models, strict=False):
            ranked = sorted((d for d in found if d.trial.model == model), key=lambda d: d.value)
            _caterpillar(ax, ranked)
            ax.set(title=model, xlabel=f"{len(ranked):,} trials, sorted", ylabel=f"difference from {reference}")
        hide_unused(axes, len(models))
        legend_below(canvas, axes)
        caption = (
            f"{what[0].upper()}{what[1:]}, trial minus {reference}, each with its 95 % interval (paired "
            f"bootstrap).{sign} Better and worse: after Holm's correction. Sorted: the ends are extreme by chance, too."
        )
        return finish(canvas, slug, f"Every trial against {reference}: {what}", caption)


def _reach(what: str, found: Sequence[Difference], suffix: str) -> Figure | None:
    """Draw how far each difference's interval reaches against the difference itself (a funnel plot)."""
    points = [(d, (d.interval[1] - d.interval[0]) / 2) for d in found]
    points = [(d, reach) for d, reach in points if reach == reach]
    if not points:
        return None
    with panels(1, 1, width=6.0, height=3.4) as (canvas, axes):
        ax = axes[0, 0]
        for verdict, (name, colour, marker) in LOOKS.items():
            for telling in (True, False):
                own = [(d.value, reach) for d, reach in points if d.verdict == verdict and d.telling == telling]
                if own:
                    ax.scatter(
                        *zip(*own, strict=True), marker=marker_of(marker), s=26 if len(points) <= FEW else 9,
                        facecolors=colour_of(colour) if telling else "none", edgecolors=colour_of(colour),
                        linewidths=0.9, zorder=3, label=name if telling else f"{name} (too few pages)",
                    )  # fmt: skip
        most = max(reach for _, reach in points)
        wide = max(most, *(abs(d.value) for d, _ in points)) * 1.12 or 1.0
        top = (most or wide) * 1.12
        ax.fill_betweenx([0, top], [0, -top], [0, top], color="#eeeeee", zorder=0, label="0 is inside the interval")
        middle = median(reach for _, reach in points)
        ax.axhline(middle, color="#555555", linestyle=":", label=f"median reach {middle:.3f}")
        ax.axvline(0.0, color="#555555", linestyle="--", linewidth=1)
        ax.set(xlim=(-wide, wide), ylim=(top, 0), xlabel=f"difference: {what}", ylabel="reach of the interval")
        ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        caption = (
            "One point a comparison: its difference, and how far its 95 % interval reaches to either side (half its "
            "width); higher up is surer. What lies in the grey wedge cannot be told from no difference; one has "
            "to leave it to be found, and after Holm's correction by more. It says nothing of other seeds."
        )
        return finish(canvas, f"sure{suffix}", "How small a difference could have been found", caption)


def _caterpillar(ax: Axes, ranked: Sequence[Difference]) -> None:
    few = len(ranked) <= FEW
    for verdict, (name, colour, marker) in LOOKS.items():
        own = [(place, d) for place, d in enumerate(ranked, start=1) if d.verdict == verdict]
        if own:
            places = [place for place, _ in own]
            ax.vlines(
                places, [d.interval[0] for _, d in own], [d.interval[1] for _, d in own], color=colour_of(colour),
                linewidth=1.2 if few else 0.6, alpha=0.5 if few else 0.25,
            )  # fmt: skip
            ax.scatter(
                places, [d.value for _, d in own], color=colour_of(colour), marker=marker_of(marker),
                s=22 if few else 7, linewidths=0, zorder=3, label=name,
            )  # fmt: skip
    ax.axhline(0.0, color="#555555", linestyle="--", linewidth=1)


def _cost(evidence: Evidence, gains: Sequence[Difference], what: str, suffix: str) -> Figure | None:
    """Draw what a trial gains against what it forgets, with both intervals."""
    gained = {d.trial.id: d for d in gains}
    if not gained:
        changes = of_units([c for c in evidence.units.get(FORGETTING, ()) if c.score == "nll"])
        name, sign = "NLL per token of documents that were not memorised", " Above 0 something is forgotten."
        return _sorted_differences(name, changes, f"cost{suffix}", sign=sign) if changes else None
    lost = [c for c in evidence.units.get(FORGETTING, ()) if c.score == "nll" and c.trial.id in gained]
    if not lost:
        return None
    with panels(1, 1, width=6.0, height=3.6) as (canvas, axes):
        ax = axes[0, 0]
        for index, model in enumerate(dict.fromkeys(c.trial.model for c in lost)):
            own = [(c, gained[c.trial.id]) for c in lost if c.trial.model == model]
            x, y = [c.after - c.before for c, _ in own], [d.value for _, d in own]
            ax.errorbar(
                x, y, fmt=marker_of(index), color=colour_of(index), markersize=5, elinewidth=0.7, ecolor="#bbbbbb",
                xerr=[_below(x, [c.interval[0] for c, _ in own]), _below([c.interval[1] for c, _ in own], x)],
                yerr=[_below(y, [d.interval[0] for _, d in own]), _below([d.interval[1] for _, d in own], y)],
                label=model,
            )  # fmt: skip
        ax.axhline(0.0, color="#555555", linestyle="--", linewidth=1)
        ax.axvline(0.0, color="#555555", linestyle="--", linewidth=1)
        ax.set(xlabel="change of NLL per token on documents not memorised", ylabel=f"gain: {what}")
        ax.legend(fontsize=8)
        caption = "One point a trial, both with 95 % intervals; up is better, to the right something is forgotten."
        return finish(canvas, f"cost{suffix}", "What is gained, and what is forgotten", caption)


def _below(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    """Return lengths of bars; a percentile interval may leave its own estimate out by a hair."""
    return [max(0.0, high - low) for high, low in zip(upper, lower, strict=True)]
