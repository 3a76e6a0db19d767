"""What there is of trials: their results, what they lack, the weights that they start from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from sweep.planning.due import Due
from sweep.planning.points import Point, PointMaker
from sweep.planning.stages import ResolvedStage
from sweep.planning.starts import Start


class State(Protocol):
    """Says of trials what there is of them."""

    def due(self, point: Point) -> Due | None:
        """Return what a trial lacks; None where it has a result or has failed."""

    def has_failed(self, point: Point) -> bool:
        """Say whether it has failed."""

    def recorded(self, maker: PointMaker, trial: str) -> Point | None:
        """Return a trial that has been trained; None where nothing says what it is."""

    def start(self, point: Point) -> Start:
        """Say what there is of the weights that a trial starts from."""

    def want(self, trainings: Mapping[str, str]) -> None:
        """Take note of trainings that are due again since others start from their weights, with the reasons."""


@dataclass(frozen=True)
class KnownIds:
    """What a list of ids says."""

    done: frozenset[str]
    failed: frozenset[str]

    def due(self, point: Point) -> Due | None:
        """All that a trial is asked, unless it is done."""
        return None if point.id in self.done else Due(point.askings)

    def has_failed(self, point: Point) -> bool:
        """Whether it is listed as failed."""
        return point.id in self.failed

    def recorded(self, maker: PointMaker, trial: str) -> Point | None:
        """Nothing: a list of ids does not say what they are."""
        return None

    def start(self, point: Point) -> Start:
        """Nothing yet."""
        return Start()

    def want(self, trainings: Mapping[str, str]) -> None:
        """Nothing changes: a list has no weights."""


@dataclass(frozen=True)
class DrawnSoFar:
    """What there is of the trials that a sampled stage has drawn: how many are done, have failed, lack answers."""

    done: int = 0
    failed: int = 0
    to_ask: tuple[tuple[Point, Due], ...] = ()


def drawn_of(
    maker: PointMaker,
    stage: ResolvedStage,
    drawn: Collection[str],
    done: Collection[str],
    failed: Collection[str],
    state: State | None,
) -> DrawnSoFar:
    """Count what there is of the trials that a sampled stage has drawn.

    Args:
        maker: of points.
        stage: the stage.
        drawn: ids of its trials.
        done: ids of trials that are not to be run again.
        failed: ids of those among them that failed.
        state: says what trials lack, where there are records.
    """
    to_ask = {}
    for trial in drawn if state and (stage.probes or not set(drawn) <= set(done)) else ():
        point = state.recorded(maker, trial) if state else None
        due = state.due(point) if state and point else None
        if point and due and not due.trains:
            to_ask[trial] = point, due
    counted = [trial for trial in drawn if trial not in to_ask]
    return DrawnSoFar(sum(i in done for i in counted), sum(i in failed for i in counted), tuple(to_ask.values()))
