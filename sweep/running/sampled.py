"""The sampled stages of a sweep: what is drawn, how far each drawn trial has come, and which fall behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sweep.planning.choices import Choices
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.records.sweep_storage import SweepStorage
from sweep.running.known_trials import KnownTrials
from sweep.running.optuna_draws import StageDraws

INFORMED = 4
"""A sampled stage has at most one in so many of its trials under way at a time, so that the others are drawn knowing
how some have gone (ours; Optuna's sampler draws its first ten at random)."""


class SampledTrials:
    """The draws of all sampled stages, and the curves of the trials that have been drawn.

    Args:
        plan: of the sweep.
        storage: where the lists of draws are kept.
        sweep: its name.
        known: its trials.
        choices: recorded choices by key.
        say: prints a line for the user.
    """

    def __init__(
        self,
        plan: Plan,
        storage: SweepStorage,
        sweep: str,
        known: KnownTrials,
        choices: Choices,
        say: Callable[[str], None],
    ) -> None:
        """Read what earlier runs drew."""
        self._known, self._say = known, say
        self._draws = {
            stage.name: StageDraws(
                plan, stage, storage, sweep, known.record, partial(known.recorded, stage.name), choices
            )
            for stage in plan.stages
            if stage.stage.sampling
        }
        self._latest: dict[str, dict[str, float]] = {}
        self._curves: dict[str, dict[str, list[list[float]]]] = {}

    def __contains__(self, trial: str) -> bool:
        """Whether a trial was drawn by a sampler in this run rather than being a point of a grid."""
        return trial in self._curves

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the sampled stages."""
        return tuple(self._draws)

    @property
    def has_more(self) -> bool:
        """Whether trials are left to draw or to run again."""
        return any(draws.has_more for draws in self._draws.values())

    def ids(self, stage: str) -> list[str]:
        """Return the ids of all trials of a stage drawn so far."""
        return self._draws[stage].ids

    def all_drawn(self, stage: str) -> bool:
        """Whether a stage is a sampled one that ends early because nothing is left to draw."""
        draws = self._draws.get(stage)
        return draws is not None and bool(draws.exhausted) and not draws.has_more

    def most_at_once(self, stage: str, slots: int) -> int:
        """Return how many trials of a stage a pack may have, where so many packs run at once."""
        return -(-self._draws[stage].stage.copies // (INFORMED * slots))

    def draw(self, stage: str, choices: Choices, pack_key: tuple[Any, ...] | None) -> Point | None:
        """Return a trial of a stage to run; None when nothing is left, which is told, or a choice is open.

        Args:
            stage: its name.
            choices: made so far.
            pack_key: draw for a pack of trials of this kind only; None for any.
        """
        draws = self._draws[stage]
        told = len(draws.exhausted)
        point = draws.next(choices, pack_key)
        for line in list(draws.exhausted.values())[told:]:
            self._say(f"note: {line}")
        return point

    def begin(self, trial: str) -> None:
        """Take note that a trial that was drawn is to be run."""
        self._curves[trial] = {}

    def lead_of(self, trials: Sequence[str]) -> str:
        """Return the first of a training's trials if it is a sampled one, else nothing."""
        return next((trial for trial in trials[:1] if trial in self._curves), "")

    def go_on(self, trial: str, curves: Mapping[str, list[list[float]]]) -> None:
        """Take note of what a trial that goes on from a checkpoint came to before.

        It is stopped or not as if it had never been cut off, and its record has all its epochs.
        """
        for name, curve in curves.items():
            known = self._curves[trial].setdefault(name, [])
            known[:0] = [point for point in curve if not known or point[0] < known[0][0]]
        draws = self._draws_of(trial)
        for epoch, value in curves.get(draws.sampling.metric, ()):
            draws.falls_behind(trial, int(epoch), {draws.sampling.metric: value})  # it did not, or would not be here

    def epoch(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Remember a trial's epoch, which may be stopped early."""
        self._latest[trial] = dict(metrics)
        for name, value in metrics.items():
            if name.startswith("train/"):
                curve = self._curves[trial].setdefault(name, [])
                if not curve or curve[-1][0] < epoch:  # a worker that died repeats epochs
                    curve.append([epoch, value])

    def in_order(self, trials: Mapping[str, str]) -> list[str]:
        """Return those of some trials that were drawn, in the order in which that happened."""
        return [trial for trial in self._curves if trial in trials]

    def stop_behind(self, trial: str, epoch: int) -> dict[str, Any] | None:
        """Return the result of a trial that falls behind, by its stage's metric, mode, grace and reduction; else None.

        Args:
            trial: whose `epoch` is known.
            epoch: that it has just done.
        """
        metrics = self._latest[trial]
        if not self._draws_of(trial).falls_behind(trial, epoch, metrics):
            return None
        return {"status": "stopped", "metrics": metrics, "curves": self._curves[trial]}

    def tell(self, point: Point) -> None:
        """Let a stage's sampler learn from a finished trial's record; nothing for a point of a grid."""
        if point.spec.stage in self._draws:
            self._draws[point.spec.stage].tell(point.id)

    def adopt(self, plan: Plan) -> None:
        """Go on with another plan of the same sweep."""
        for draws in self._draws.values():
            draws.adopt(plan)

    def _draws_of(self, trial: str) -> StageDraws:
        return self._draws[self._known.points[trial].spec.stage]
