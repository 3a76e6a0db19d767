"""Counts how far a sweep is while it runs.

What counts are *trial-epochs*, not trials: the members of a pack end together, so trials alone would stand still and
then jump. A trial that trains nothing counts as one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import ParamSpec, TypeVar

from sweep.planning.flops import CostModel
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.records.record import Record
from sweep.running.pace import Pace, WorkLeft
from sweep.running.state import PackState, StageState, SweepState
from trainables.trial.spec import TrialSpec

P = ParamSpec("P")
T = TypeVar("T")


def _locked(method: Callable[P, T]) -> Callable[P, T]:
    """Have one thread at a time in a `SweepProgress`."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        with args[0]._lock:  # type: ignore[attr-defined]
            return method(*args, **kwargs)

    return guarded


def trial_epochs(spec: TrialSpec) -> int:
    """Return what a trial counts: its epochs; 1 where it trains nothing."""
    return max(1, spec.epochs)


class SweepProgress:
    """Counts what happens in a run of a sweep; several threads may call it.

    Args:
        name: of the sweep.
        plan: what it is to run; None where there is none to compare with.
        label: returns a trial's short name, for people.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        plan: Plan | None = None,
        label: Callable[[Record], str] = lambda record: str(record["id"]),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Start the clock."""
        self._clock, self.label = clock, label
        self._lock = threading.RLock()
        now = clock()
        self.state = SweepState(name, "starting", now, now)
        self._pace = Pace()
        self._cost = CostModel({})
        self._flops_left = 0.0  # of trials that have not ended
        self._packs: dict[str, _Running] = {}
        self._epochs: dict[str, float] = {}  # of trials under way
        self._ended_epochs: dict[str, float] = {}  # of trials that ended, by stage
        self._outcomes: dict[str, str] = {}  # of trials that ended
        self._places: dict[str, str] = {}  # the stage of this run's plan in which a trial is
        self._side_by_side = 1  # packs, when the latest was handed out
        self._best: _Best | None = None
        if plan:
            self.replan(plan)
            by = next((question.best for stage in plan.stages for question in stage.questions), None)
            self._best = _Best(by.by, by.mode) if by else _Best("memory/nll", "min")

    @_locked
    def replan(self, plan: Plan) -> None:
        """Take what is left from a plan made now: at the start, and when points were added.

        What ended in this run stays counted, as does what trials under way have done.
        """
        self._flops_left = 0.0
        for stage in plan.stages:
            share = stage.num_to_run / max(1, len(stage.to_run))
            epochs = share * sum(trial_epochs(point.spec) for point in stage.to_run) + stage.num_to_ask
            trials = stage.num_to_run + stage.num_to_ask
            known = self._stage(stage.name)
            if known:
                ended = sum(known.ended.values())
                known.trials, known.epochs = trials + ended, epochs + self._ended_epochs.get(stage.name, 0.0)
            elif trials:
                self.state.stages.append(StageState(stage.name, trials, epochs, waits_for=stage.waits_for or ""))
            self._places |= {point.id: stage.name for point in (*stage.to_run, *stage.to_ask)}
            self._flops_left += share * sum(self._cost.work(point).total for point in stage.to_run)
            self._flops_left += sum(self._cost.work(point).evaluation for point in stage.to_ask)

    @_locked
    def phase(self, text: str) -> None:
        """Say what is going on."""
        self.state.phase = text
        self.state.updated = self._clock()

    @_locked
    def steered(self, lines: Sequence[str], paused_by: str) -> None:
        """Take note of what people asked of the sweep, and of who holds it, if somebody does."""
        self.state.steering = list(lines)
        self.state.paused_by = paused_by
        self.state.updated = self._clock()

    @_locked
    def begin(
        self, pack: str, points: Sequence[Point], asks: bool = False, names: Mapping[str, str] | None = None
    ) -> None:
        """Take note of a pack that is handed out; one whose trials are only asked counts an epoch for each."""
        first = points[0]
        layers = sorted({point.spec.layer for point in points if point.spec.layer is not None})
        layer = "" if not layers else f" L{layers[0]}" + (f"-{layers[-1]}" if len(layers) > 1 else "")
        epochs = 1 if asks else trial_epochs(first.spec)
        state = PackState(f"{first.card.name}{layer}", len(points), epochs, self._clock(), names=dict(names or {}))
        self._packs[pack] = _Running(state, {}, state.since, warm=bool(self.state.ended), asks=asks)
        self._take_in(self._packs[pack], points)
        self._side_by_side = len(self._packs)
        for point in points:
            stage = self._stage_of(point.id, point.spec.stage)
            if stage:
                stage.waits_for = ""
        self.phase("running")

    @_locked
    def join(self, pack: str, points: Sequence[Point], names: Mapping[str, str]) -> None:
        """Take note of trials that join a pack under way."""
        running = self._packs[pack]
        self._take_in(running, points)
        running.state.trials += len(points)
        running.state.names |= names

    def _take_in(self, running: _Running, points: Sequence[Point]) -> None:
        running.points |= {point.id: point for point in points}
        for point in () if running.asks else points:
            work = self._cost.work(point)
            running.epoch_flops[point.id] = work.training / trial_epochs(point.spec)
            running.end_flops[point.id] = work.evaluation

    @_locked
    def report(
        self,
        pack: str,
        epoch: int,
        progress: Mapping[str, Mapping[str, float]],
        where: str,
        epochs: Mapping[str, int] | None = None,
    ) -> None:
        """Take note of a step of a pack.

        Args:
            pack: its id.
            epoch: that is over, of the furthest member.
            progress: metrics of one trial of each training.
            where: host and device.
            epochs: of all trials, where those are not everyone's.
        """
        running = self._packs.get(pack)
        if running is None:
            return
        now, state = self._clock(), running.state
        for trial in running.points:
            reached = epoch if epochs is None else epochs.get(trial, running.epochs.get(trial, 0))
            running.epochs[trial] = min(reached, state.epochs)
        if progress:
            flops = sum(running.epoch_flops[trial] for trial in running.trained)
            flops += sum(running.end_flops[t] for t in running.trained if running.epochs[t] >= state.epochs)
            self._pace.note(now - running.reported, flops, len(progress), state.epoch < 0, running.warm)
        running.reported = now
        state.epoch, state.where = epoch, where
        losses = [found["train/nll"] for found in progress.values() if "train/nll" in found]
        state.loss = sum(losses) / len(losses) if losses else state.loss
        for trial in progress:
            self._set_epochs(running.points.get(trial), running.epochs.get(trial, 0))
        self.state.updated = now

    @_locked
    def finish(self, pack: str, record: Record) -> str:
        """Take note of a trial's result, and return the trial's name."""
        running = self._packs.get(pack)
        point = running.points.pop(record["id"], None) if running else None
        if running is None or point is None:  # it was stopped before it had begun
            epochs = max(1, int(record["identity"].get("epochs", 1)))
        else:
            running.state.trials -= 1
            running.state.names.pop(record["id"], None)
            epochs = 1 if running.asks else trial_epochs(point.spec)
            work = self._cost.work(point)
            self._flops_left -= work.evaluation if running.asks else work.total
        stage = self._stage_of(record["id"], point.spec.stage if point else record["stage"])
        if stage:
            before = self._outcomes.get(record["id"])
            if before:  # it was stopped and has been resumed
                stage.ended[before] -= 1
            stage.ended[record["status"]] = stage.ended.get(record["status"], 0) + 1
            stage.epochs_done += epochs - self._epochs.get(record["id"], 0.0)
            self._ended_epochs[stage.name] = self._ended_epochs.get(stage.name, 0.0) + (0.0 if before else epochs)
            self._epochs[record["id"]], self._outcomes[record["id"]] = epochs, record["status"]
            stage.trials = max(stage.trials, sum(stage.ended.values()))  # one that an earlier run had stopped
        name = self.label(record)
        if self._best and record["status"] == "done":
            self._best.see(record, name)
        return name

    @_locked
    def end(self, pack: str) -> None:
        """Take note that a pack has ended; members without a result may come again."""
        self._packs.pop(pack, None)

    @_locked
    def snapshot(self, trouble: Iterable[str] = ()) -> SweepState:
        """Return the state now."""
        state = self.state
        state.updated = self._clock()
        state.packs = [running.state for running in self._packs.values()]
        state.best = self._best.told if self._best else ""
        state.trouble = list(trouble)
        all_ended = not self._packs and sum(state.ended.values()) >= state.trials
        state.left_s = None if all_ended else self._pace.left_s(self._left(), self._side_by_side)
        return state

    def _left(self) -> WorkLeft:
        """Return what is left, the epochs that packs under way have done taken off."""
        packs = [running for running in self._packs.values() if running.points]
        done = sum(pack.epoch_flops[trial] * pack.epochs.get(trial, 0) for pack in packs for trial in pack.trained)
        epochs = sum(max(0.0, stage.epochs - stage.epochs_done) for stage in self.state.stages)
        begun = sum(self.state.ended.values()) + sum(len(running.points) for running in packs)
        return WorkLeft(max(0.0, self._flops_left - done), epochs, max(0.0, self.state.trials - begun))

    def _stage(self, name: str) -> StageState | None:
        return next((stage for stage in self.state.stages if stage.name == name), None)

    def _stage_of(self, trial: str, own: str) -> StageState | None:
        """Return the stage in which the plan has a trial: those only asked are all in one, whatever their own."""
        return self._stage(self._places.get(trial, own))

    def _set_epochs(self, point: Point | None, epochs: float) -> None:
        """Note how far a trial is; one that starts over goes back."""
        if point is None:
            return
        stage = self._stage_of(point.id, point.spec.stage)
        if stage:
            stage.epochs_done += epochs - self._epochs.get(point.id, 0.0)
            self._epochs[point.id] = epochs


@dataclass
class _Running:
    """A pack under way, with what its steps cost.

    Attributes:
        state: for people.
        points: its members without a result.
        reported: when it last reported.
        epochs: that each of them has done, once it has reported.
        epoch_flops, end_flops: of an epoch of each member that is trained, and of evaluating it at the end.
        warm: whether others have ended, so that its process has probably run a pack before.
        asks: whether its trials are only asked.
    """

    state: PackState
    points: dict[str, Point]
    reported: float
    warm: bool
    asks: bool = False
    epochs: dict[str, int] = field(default_factory=dict)
    epoch_flops: dict[str, float] = field(default_factory=dict)
    end_flops: dict[str, float] = field(default_factory=dict)

    @property
    def trained(self) -> list[str]:
        """The members that are being trained."""
        return [] if self.asks else list(self.points)


@dataclass
class _Best:
    """The best trial by a metric, and what the pretrained model has of it."""

    metric: str
    mode: str
    value: float | None = None
    name: str = ""
    pretrained: float | None = None

    def see(self, record: Record, name: str) -> None:
        value = record["metrics"].get(self.metric)
        if record["identity"].get("method") == "pretrained":
            self.pretrained = value
            return
        before = record["metrics"].get(f"{self.metric}_before")
        self.pretrained = before if before is not None else self.pretrained
        if value is None:
            return
        better = self.value is None or (value < self.value if self.mode == "min" else value > self.value)
        if better:
            self.value, self.name = value, name

    @property
    def told(self) -> str:
        if self.value is None:
            return ""
        beside = "" if self.pretrained is None else f" (pretrained {self.pretrained:.3f})"
        return f"{self.metric} {self.value:.3f}{beside}: {self.name}"
