"""Between the ledger and whatever executes packs: hands them out as work, takes in their reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.records.record import Record
from sweep.running.ledger import Ledger
from sweep.running.progress import Display
from sweep.tracking.live_feed import LiveFeed


@dataclass(frozen=True)
class HandedPack:
    """A pack as an executor gets it.

    Attributes:
        id: of the pack.
        job: plain JSON values for `trainables.pack.worker.PackWork`: `trials`, `trunk_layers`, `stop_file`.
        sampled: id of its only trial where that may be stopped early; empty for trials of a grid.
    """

    id: str
    job: dict[str, Any]
    sampled: str


class PackExchange:
    """What an executor sees of a sweep. All of it is called from one thread, the executor's own.

    Args:
        ledger: the sweep's state.
        feed: MLflow, live.
        display: what the user sees.
        trunk_layers: layers of each model (by key) whose hidden states are made in one pass.
    """

    def __init__(
        self, ledger: Ledger, feed: LiveFeed, display: Display, trunk_layers: Mapping[str, Sequence[int]]
    ) -> None:
        """Keep the parts."""
        self._ledger, self._feed, self._display = ledger, feed, display
        self._trunk_layers = trunk_layers

    def next_pack(self) -> HandedPack | None:
        """Return a pack to run now; None while nothing is ready, which a pack's end may change."""
        found = self._ledger.next_pack()
        if found is None:
            return None
        pack, begun = found
        for record in begun.values():
            self._feed.start_trial(record)
        first = pack.points[0]
        job = {
            "trials": [self._ledger.task(point).to_dict() for point in pack.points],
            "trunk_layers": list(self._trunk_layers.get(first.card.key, ())),
            "stop_file": self._ledger.stop_file,
        }
        return HandedPack(pack.id, job, first.id if self._ledger.is_sampled(first.id) else "")

    @property
    def over(self) -> bool:
        """Whether no pack will come any more."""
        return self._ledger.exhausted

    @property
    def stopping(self) -> str:
        """Why the sweep ends early; empty while it goes on."""
        return self._ledger.stopping

    def report(self, pack: str, report: Mapping[str, Any]) -> None:
        """Take in one step of a pack: metrics of its epoch, and the results of trials that it finished.

        Args:
            pack: its id.
            report: `epoch`, `progress` (trial id -> metrics), `results`, `versions` and `node`; maybe `notes`, lines
                for the user.
        """
        for note in report.get("notes", ()):
            self._display.say(f"note: {note}")
        for trial, metrics in report["progress"].items():
            self._feed.epoch(trial, report["epoch"], metrics)
            self._ledger.epoch(trial, report["epoch"], metrics)
        for result in report["results"]:
            told = {"versions": report["versions"], "node": report["node"]}
            self._record(self._ledger.finish(pack, {**result, **told}))

    def falls_behind(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Say whether a sampled trial is to be stopped after this epoch; asked once an epoch."""
        return self._ledger.falls_behind(trial, epoch, metrics)

    def close(self, pack: str, error: Mapping[str, str] | None = None) -> None:
        """Take note that a pack has ended; trials of it without a result fail with `error`, if there is one."""
        for record in self._ledger.end_pack(pack, error):
            self._record(record)

    def show_progress(self) -> None:
        """Show how far the sweep is, if it is time to."""
        self._display.progress(self._ledger.running_trials, self._feed.trouble and f"MLflow: {self._feed.trouble}")

    def _record(self, record: Record | None) -> None:
        if record is not None:
            self._feed.finish(record)
            self._display.finish_trial(record["status"], record["error"])
