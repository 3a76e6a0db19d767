"""Which metrics trials will report, so that one that none of them has decides nothing."""

from __future__ import annotations

from collections.abc import Iterable

from sweep.planning.points import Point
from trainables.adapters.registry import adapter_plan
from trainables.errors import ConfigError, nearest
from trainables.probes.registry import probe_plans

MEMORISATION = ("memory/nll", "memory/nll_before", "memory/nll_per_byte")
"""Measured of every trial that has an error, whatever its adapter and probes."""


def metrics_of(point: Point) -> tuple[str, ...]:
    """Return the names of all metrics that a trial reports if it ends well."""
    values = vars(point.spec)
    asked = (f"{probe.name}/{metric}" for probe in probe_plans(values) for metric in probe.metrics)
    adapter = adapter_plan(values)
    return (*(MEMORISATION if adapter.has_error else ()), *adapter.metrics(), *asked)


def check_metric(metric: str, points: Iterable[Point], place: str) -> None:
    """Refuse a metric that none of some trials will report.

    Args:
        metric: its full name.
        points: the trials.
        place: what they are and what the metric is for, for the message.

    Raises:
        ConfigError: none has it; tells those that they have, and the nearest.
    """
    known: dict[str, None] = {}
    for point in points:
        known |= dict.fromkeys(metrics_of(point))
    if known and metric not in known:
        raise ConfigError(f"{place} {metric!r}: no such metric{nearest(metric, known)} (there are: {', '.join(known)})")
