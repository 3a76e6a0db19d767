"""Between the ledger and whatever executes packs: hands them out as work, takes in their reports."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.planning.plan import Plan
from sweep.records.record import Record
from sweep.running.display import Display
from sweep.running.ledger import Ledger
from sweep.running.state import STATE_FILE
from sweep.running.wishes import Wishes
from sweep.tracking.live_feed import LiveFeed
from trainables.errors import Failure

STATE_EVERY_S = 10.0
"""Seconds between two writes of the sweep's state, so that `memory-sweep status` is never older (ours)."""
SILENT_S = 600.0
"""After how long without a report a pack is named. Ours: longer than nearly every epoch; it is only said."""
_REPORTED = ("versions", "host", "pid", "node", "device")


def trunk_layers(plan: Plan) -> dict[str, list[int]]:
    """Return the layers that the trials of each model (by key) ask for, stage by stage the same trunk pass."""
    layers: dict[str, set[int]] = {}
    for stage in plan.stages:
        for point in stage.points:
            if point.spec.layer is not None and not stage.waits_for:
                layers.setdefault(point.card.key, set()).add(point.spec.layer)
    return {key: sorted(found) for key, found in layers.items()}


@dataclass(frozen=True)
class HandedPack:
    """A pack as an executor gets it.

    Attributes:
        id: of the pack.
        job: plain JSON values for `trainables.pack.worker.PackWork`: `trials`, `trunk_layers`, `pack`, `stop_file`,
            `orders_file`; and `plan_file`, which a process on another machine sees where it shares the storage.
        avoid: nodes where it is not to run while there are others: they only fail, or failed on these trials.
    """

    id: str
    job: dict[str, Any]
    avoid: frozenset[str] = frozenset()


class PackExchange:
    """What an executor sees of a sweep. All of it is called from one thread, the executor's own.

    Args:
        ledger: the sweep's state.
        feed: MLflow, live.
        display: what the user sees.
        trunk_layers: layers of each model (by key) whose hidden states are made in one pass.
        wishes: what people ask of the sweep while it runs; None where nobody is heard.
    """

    def __init__(
        self,
        ledger: Ledger,
        feed: LiveFeed,
        display: Display,
        trunk_layers: Mapping[str, Sequence[int]],
        wishes: Wishes | None = None,
    ) -> None:
        """Keep the parts."""
        self._wishes = wishes
        self._ledger, self._feed, self._display = ledger, feed, display
        self._trunk_layers = trunk_layers
        self._started: set[str] = set()
        self._notes: set[str] = set()
        self._told: dict[str, dict[str, Any]] = {}
        self._state_written = 0.0
        self._is_steering_told = False
        self._heard: dict[str, float] = {}

    def next_pack(self) -> HandedPack | None:
        """Return a pack to run now; None while nothing is ready, which a pack's end may change."""
        found = self._ledger.next_pack()
        if found is None:
            return None
        pack, begun = found
        if not pack.asks:  # what is only asked has its run already, or gets it whole when the sweep is published
            self._start(begun)
        first = pack.points[0]
        job = {
            "trials": [self._ledger.task(point).to_dict() for point in pack.points],
            "trunk_layers": list(self._trunk_layers.get(first.card.key, ())),
            "stop_file": self._ledger.stop_file.path,
            "orders_file": self._ledger.orders_file(pack),
            "plan_file": self._ledger.plan_file,
            "pack": pack.id,
        }
        names = {trial: self._display.progress.label(record) for trial, record in begun.items()}
        self._display.progress.begin(pack.id, self._ledger.backlog.jobs.points_of(pack), pack.asks, names)
        self._display.begin()
        self._heard[pack.id] = time.monotonic()
        trainings = [point.training for point in pack.points]
        return HandedPack(pack.id, job, self._ledger.policy.avoid(trainings))

    def _start(self, begun: Mapping[str, Record]) -> None:
        """Open the runs in MLflow of trials that begin; one that is tried again has its own already."""
        for trial in begun.keys() - self._started:
            self._feed.start_trial(begun[trial])
        self._started |= begun.keys()

    @property
    def over(self) -> bool:
        """Whether no pack will come any more; before it says so, it hears what was asked in the last moment."""
        if self._ledger.exhausted and not self._ledger.stopping:
            self._hear(at_once=True)
        return self._ledger.exhausted

    def _hear(self, at_once: bool = False) -> None:
        """Do what people asked of the sweep meanwhile."""
        if self._wishes is None:
            return
        progress, before = self._display.progress, self._ledger.plan
        if self._wishes.hear(at_once) or not self._is_steering_told:
            if self._ledger.plan is not before:
                self._trunk_layers = trunk_layers(self._ledger.plan)
                progress.replan(self._ledger.plan)
            steering = self._ledger.steering
            progress.steered([wish.line for wish in steering.wishes], steering.paused.by if steering.paused else "")
            self._is_steering_told = True
            self._state_written = 0.0
        for record in self._ledger.backlog.taken_unbegun():
            self._record("", [record])

    @property
    def stopping(self) -> str:
        """Why the sweep ends early; empty while it goes on."""
        return self._ledger.stopping

    def report(self, pack: str, report: Mapping[str, Any]) -> None:
        """Take in one step of a pack: metrics of its epoch, and the results of trials that it finished.

        Of a pack that goes on it is then decided who leaves it and who joins it, and its orders file is written.

        Args:
            pack: its id.
            report: `epoch`, `progress` (training id -> metrics), `results`, `versions`, `host`, `pid`, `node`,
                `device`; maybe `epochs` (training id -> its epoch, where that is not everyone's), `curves` (training
                id -> what it came to before, where it goes on from a checkpoint), `notes`, lines for the user, each
                said once, and `done`, whether it was the pack's last step.
        """
        told = self._told[pack] = {part: report[part] for part in _REPORTED}
        self._heard[pack] = time.monotonic()
        for note in report.get("notes", ()):
            if note in self._notes:
                continue
            self._notes.add(note)
            self._display.say(f"note: {note}")
        where = f"{told['host']} {told['device']}".strip()
        epochs = {**dict.fromkeys(report["progress"], report["epoch"]), **report.get("epochs", {})}
        of_trials = {trial: epoch for training, epoch in epochs.items() for trial in self._ledger.trials_of(training)}
        self._display.progress.report(pack, report["epoch"], self._by_trial(report["progress"]), where, of_trials)
        self._display.step()
        for training, curves in report.get("curves", {}).items():
            self._ledger.go_on(training, curves)
        for training, metrics in report["progress"].items():
            for trial in self._ledger.trials_of(training):
                self._feed.epoch(trial, epochs[training], metrics)
            self._ledger.epoch(training, epochs[training], metrics)
        for result in report["results"]:
            self._record(pack, self._ledger.finish(pack, {**result, **told}))
        if report["progress"] and not report.get("done") and not report.get("failure"):
            self._regroup(pack, {training: epochs[training] for training in report["progress"]}, told)

    def _regroup(self, pack: str, epochs: Mapping[str, int], told: Mapping[str, Any]) -> None:
        """Have trials leave and join a pack that goes on."""
        left, joined = self._ledger.regroup(pack, epochs, told)
        self._record(pack, left)
        if joined:
            self._start(joined)
            names = {trial: self._display.progress.label(record) for trial, record in joined.items()}
            self._display.progress.join(pack, [self._ledger.point(trial) for trial in joined], names)

    def close(self, pack: str) -> None:
        """Take note that a pack has ended."""
        self._heard.pop(pack, None)
        self._record(pack, self._ledger.end_pack(pack, self._told.pop(pack, None)))
        self._display.progress.end(pack)

    def fail(self, pack: str, failure: Failure, elsewhere: bool = False) -> None:
        """Take note that a pack has ended by a failure; its trials without a result may be handed out again.

        Args:
            pack: its id.
            failure: what happened.
            elsewhere: whether there is a node to run on that is not left out, besides the one that failed.
        """
        self._told.pop(pack, None)
        self._heard.pop(pack, None)
        self._display.failed_attempt(failure)
        self._record(pack, self._ledger.fail_pack(pack, failure, elsewhere))
        self._display.progress.end(pack)

    def give_up(self, reason: str) -> None:
        """Take note that nothing can run any more: the sweep ends."""
        self._ledger.stop(reason)

    @property
    def left_out(self) -> frozenset[str]:
        """Ids of nodes that only fail: nothing is to run there."""
        return frozenset(self._ledger.policy.left_out)

    def show_progress(self) -> None:
        """Show how far the sweep is, if it is time to.

        Raises:
            LockLost: another run has taken the sweep over.
        """
        self._ledger.check_lock()
        self._hear()
        trouble = self._feed.trouble and f"MLflow: {self._feed.trouble}"
        now = time.monotonic()
        if now - self._state_written >= STATE_EVERY_S:
            self._state_written = now
            try:
                self.write_state()
            except OSError as error:  # what matters is written elsewhere, and fails there if the storage does
                trouble = trouble or str(error)
        self._name_silent()
        self._display.show(trouble)

    def write_state(self) -> None:
        """Write the sweep's state into its folder, for `memory-sweep status`.

        Raises:
            StorageError: it cannot be written.
            LockLost: another run has taken the sweep over.
        """
        self._ledger.storage.write_json(f"{self._ledger.name}/{STATE_FILE}", self._display.state.to_dict())

    def _name_silent(self) -> None:
        """Say once of each silence that a process may hang: none is ended for it, since a first step may take long."""
        now = time.monotonic()
        for pack in [pack for pack, heard in self._heard.items() if now - heard > SILENT_S]:
            self._heard[pack] = float("inf")
            told = self._told.get(pack)
            where = "which has no process yet; is there a node for it?"
            if told:
                where = f"on {told['host']}, process {told['pid']}; should it hang, end it there, and its trials go on"
            self._display.say(f"note: no report for {SILENT_S / 60:.0f} min from pack {pack[:8]}, {where}")

    def _by_trial(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Return a report's progress by the first trial of each training, which is the one in its pack."""
        leads = ((self._ledger.trials_of(training)[:1], metrics) for training, metrics in progress.items())
        return {trial: metrics for trials, metrics in leads for trial in trials}

    def _record(self, pack: str, records: Iterable[Record]) -> None:
        for record in records:
            if record["id"] in self._started:
                self._feed.finish(record)
            name = self._display.progress.finish(pack, record)
            self._display.end_trial(record["status"], record["error"], name)
