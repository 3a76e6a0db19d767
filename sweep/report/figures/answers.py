"""The figures of the report's first page: every trial's difference from the pretrained model, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from sweep.report.conclusions import COST, FORGETTING, HELPS, Difference, Evidence, differences_from_pretrained
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

LOOKS = {1: ("better", 2, 0), 0: ("no difference found", 6, 1), -1: ("worse", 1, 4)}
"""By verdict: its name, colour and marker."""
FEW = 80
"""Trials in a panel up to which points are drawn large and intervals dark."""


def answer_figures(evidence: Evidence, suffix: str = "") -> dict[str, Figure]:
    """Return the figures that the comparisons with the pretrained model allow, by the key of their conclusion."""
    what, found = differences_from_pretrained(evidence)
    figures = {HELPS: _sorted_differences(what, found, suffix)} if found else {}
    cost = _cost(evidence, found, what, suffix)
    return figures | ({COST: cost} if cost else {})


def _sorted_differences(what: str, found: Sequence[Difference], suffix: str) -> Figure:
    """Draw every trial's difference with its interval, sorted, a panel per model."""
    models = list(dict.fromkeys(d.trial.model for d in found))[:MAX_PANELS]
    with panels(*wrapped(len(models)), width=5.0, height=3.0, share_y=False) as (canvas, axes):
        for ax, model in zip(axes.flat, models, strict=False):
            ranked = sorted((d for d in found if d.trial.model == model), key=lambda d: d.value)
            _caterpillar(ax, ranked)
            ax.set(title=model, xlabel=f"{len(ranked):,} trials, sorted", ylabel="difference from pretrained")
        hide_unused(axes, len(models))
        legend_below(canvas, axes)
        caption = (
            f"{what[0].upper()}{what[1:]}, trial minus the pretrained model, each with its 95 % interval (paired "
            "bootstrap). Better and worse: after Holm's correction. Sorted: the ends are extreme by chance, too."
        )
        title = "Every trial against the pretrained model"
        return finish(canvas, f"differences{suffix}", title, caption)


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
