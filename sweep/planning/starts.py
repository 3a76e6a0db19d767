"""Trials that start from the weights of an earlier one: which of which, and whether those weights are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.planning.points import Axes, Point, PointMaker
from sweep.planning.stages import ResolvedStage
from sweep.space import aliases, without
from trainables.errors import ConfigError


@dataclass(frozen=True)
class Member:
    """A trial of a stage.

    Attributes:
        point: the trial.
        values: what tells it from the others of its stage: of its axes, of what it takes, of what it has from the
            trial that it starts from.
        known: whether all that is chosen for it is.
    """

    point: Point
    values: Mapping[str, Any]
    known: bool


@dataclass(frozen=True)
class Start:
    """What there is of the weights that a trial starts from.

    Attributes:
        files: where they lie in the storage; none while they are not there.
        problem: why they will not come by themselves; empty where they are there or awaited.
        again: why they have to be trained again, though they have been; empty where they have not.
    """

    files: tuple[str, ...] = ()
    problem: str = ""
    again: str = ""


def members(
    maker: PointMaker, stage: ResolvedStage, base: Mapping[str, Any], axes: Axes, known: bool, earlier: Sequence[Member]
) -> Iterator[Member]:
    """Yield the trials of a stage, or of one group of it, equivalent ones as often as they occur.

    Args:
        maker: of points.
        stage: which.
        base: values that all share, what is taken among them.
        axes: its own axes.
        known: whether what is taken has been chosen.
        earlier: the trials of the stage that it starts from, if it does.

    Raises:
        ConfigError: there is no trial to start from, or its weights do not fit.
    """
    taken = {stage.take.field: base[stage.take.field]} if stage.take else {}
    for own in maker.combinations(base, axes):
        values = {**taken, **own}
        if stage.start is None:
            yield Member(maker.point(maker.spec({**base, **own})), values, known)
            continue
        fitting = [other for other in earlier if _agrees(maker, base, values, other)]
        if not fitting:
            told = ", ".join(f"{name}={value}" for name, value in values.items())
            raise ConfigError(f"stage {stage.name}: no trial of {stage.start.name} has {told}, to start from")
        for other in fitting:
            had = {name: value for name, value in other.values.items() if name not in stage.stated}
            stated = {**without(base, had), **had, **own}
            point = maker.started(f"stage {stage.name}", stated, other.point)
            yield Member(point, {**had, **values}, known and other.known)


def _agrees(maker: PointMaker, base: Mapping[str, Any], values: Mapping[str, Any], other: Member) -> bool:
    """Say whether a trial has the values of an earlier one, as far as both stages vary the same."""
    for name, value in other.values.items():
        for own in aliases(name) & values.keys():
            one = values[own] if own == name else maker.block({**base, **values})
            if one != (value if own == name else other.point.spec.layer):
                return False
    return True
