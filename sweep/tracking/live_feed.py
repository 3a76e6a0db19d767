"""MLflow fed live from the driver, in the background, at nobody's expense.

The sweep's thread only puts items into a queue. One background thread sends them, in batches, and rests
between rounds; when the server is slow or away it waits, longer each time, and tries again. What it cannot send
in the end it leaves to `sweep.publish`, which makes runs from records: nothing is lost but the live view.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sweep.records.record import Record
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import Tracking
from sweep.tracking.client import RunHead, Runs
from sweep.tracking.layout import epoch_values, metric_values, run_params
from sweep.tracking.run_content import Added, MetricValue
from sweep.tracking.run_names import Naming
from trainables.node.addresses import hidden

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 120.0
_SILENCE_S = 10.0
_REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST", "INVALID_STATE")
MOST_WAITING = 500
"""Finished trials held while the server is away or slow (a record is 28 KB); further ones are left to publish."""
_Key = tuple[str, int]


@dataclass(frozen=True)
class FeedReport:
    """How a feed ended.

    Attributes:
        complete: trials whose runs hold all of their records.
        left: trials begun or finished whose runs lack something; `sweep.publish` completes them.
        trouble: the last error, one line; empty if there was none.
    """

    complete: int
    left: int
    trouble: str


@dataclass
class _Live:
    """A trial on its way to MLflow."""

    begun: Record
    run: str = ""
    create_tried: bool = False
    params_sent: bool = False
    final: Record | None = None
    values: dict[_Key, MetricValue] = field(default_factory=dict)
    sent: set[_Key] = field(default_factory=set)

    def unsent(self) -> list[MetricValue]:
        """Return what can be sent: while a trial runs, a metric with one value so far may yet be no curve."""
        counts = Counter(name for name, _ in self.values)
        ready = [value for key, value in self.values.items() if key not in self.sent]
        return ready if self.final else [value for value in ready if counts[value.name] > 1]

    @property
    def has_work(self) -> bool:
        return not self.run or bool(self.final) or bool(self.unsent())


class LiveFeed:
    """Feeds the trials of one sweep, whose lock the caller holds. No method blocks for long or raises."""

    def __init__(
        self,
        storage: SweepStorage,
        sweep: str,
        tracking: Tracking,
        naming: Naming | None = None,
        *,
        interval_s: float = 3.0,
        capacity: int = 50_000,
    ) -> None:
        """Start the background thread.

        Args:
            storage: the sweep's storage.
            sweep: name of the sweep.
            tracking: where runs go.
            naming: how runs are named for the time being; `publish` has the last word.
            interval_s: time between two rounds of sending, at least.
            capacity: most metric values held while the server is away; beyond, trials are left to publish.
        """
        self._storage, self._sweep, self._tracking, self._naming = storage, sweep, tracking, naming
        self._interval_s, self._capacity = interval_s, capacity
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(maxsize=capacity)
        self._lossy: set[str] = set()
        self._trials: dict[str, _Live] = {}
        self._left: dict[str, str] = {}  # trials left to publish, each with the run that it has already, if any
        self._earlier: dict[str, list[RunHead]] = {}
        self._runs: Runs | None = None
        self._held = self._complete = 0
        self._trouble = ""
        self._pause_s, self._retry_at = _FIRST_PAUSE_S, 0.0
        self._closing = threading.Event()
        self._deadline, self._sent_at = math.inf, 0.0
        self._thread = threading.Thread(target=self._loop, name="mlflow-feed", daemon=True)
        self._thread.start()

    def start_trial(self, begun: Record) -> None:
        """Announce a trial that starts, or goes on from its checkpoint, with its record as begun."""
        self._put(begun["id"], lambda: self._begin(begun))

    def epoch(self, trial: str, epoch: float, metrics: Mapping[str, float]) -> None:
        """Hand over the metrics of one epoch, under the names that its record's curves will have."""
        values = epoch_values(epoch, metrics, round(time.time() * 1000))
        self._put(trial, lambda: self._add(trial, values))

    def finish(self, record: Record) -> None:
        """Hand over a trial's complete record."""
        self._put(record["id"], lambda: self._finish(record))

    @property
    def trouble(self) -> str:
        """What keeps the feed from sending, in one line; empty while all is well."""
        return self._trouble if self._retry_at else ""

    def close(self, timeout_s: float = 30.0) -> FeedReport:
        """Send what can still be sent to open runs, end those of unfinished trials as KILLED, and stop.

        No further run is opened: `publish` makes those of trials that are over whole, with what they are compared with.

        Args:
            timeout_s: after so long the rest is left to publish; sooner where nothing gets through for `_SILENCE_S`.
        """
        self._sent_at = time.monotonic()
        self._deadline = self._sent_at + timeout_s
        self._closing.set()
        with suppress(queue.Full):
            self._queue.put_nowait(lambda: None)  # wakes the thread
        while self._thread.is_alive() and time.monotonic() < min(self._deadline + 1.0, self._sent_at + _SILENCE_S):
            self._thread.join(0.05)
        left = len(self._trials) + len(self._left) + self._queue.qsize()
        return FeedReport(self._complete, left, self._trouble)

    def _put(self, trial: str, action: Callable[[], None]) -> None:
        try:
            self._queue.put_nowait(action)
        except queue.Full:
            self._lossy.add(trial)

    # What follows runs in the background thread only.

    def _loop(self) -> None:
        wait_s = self._interval_s
        while not self._closing.is_set():
            self._take(wait_s)
            if time.monotonic() >= self._retry_at and not self._closing.is_set():
                begun = time.monotonic()
                self._send()
                rest_s = 4 * (time.monotonic() - begun)
                wait_s = min(max(self._interval_s, rest_s), 4 * self._interval_s)
        self._take(0)
        for trial in [trial for trial, live in self._trials.items() if not live.run]:
            self._abandon(trial)
        self._send()
        self._end_open()

    def _take(self, wait_s: float) -> None:
        """Apply what comes into the queue within `wait_s`."""
        until = time.monotonic() + wait_s
        while True:
            try:
                rest = 0 if self._closing.is_set() else until - time.monotonic()
                action = self._queue.get(timeout=rest) if rest > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            try:
                action()
            except Exception as error:
                self._note(error)
        while self._lossy:
            self._abandon(self._lossy.pop())

    def _begin(self, begun: Record) -> None:
        if begun["id"] not in self._left:
            self._trials.setdefault(begun["id"], _Live(begun))

    def _add(self, trial: str, values: list[MetricValue]) -> None:
        live = self._trials.get(trial)
        if live is None:
            return
        for value in values:
            if (value.name, value.step) not in live.values:  # an epoch repeated from a checkpoint is the same
                live.values[value.name, value.step] = value
                self._held += 1
        if self._held > self._capacity:
            self._abandon(trial)

    def _finish(self, record: Record) -> None:
        self._begin(record)
        live = self._trials.get(record["id"])
        if live is None:
            return
        if self._waiting >= MOST_WAITING:
            self._abandon(record["id"])
            return
        values = metric_values(record)
        for value in values:
            before = live.values.get((value.name, value.step))
            if before and not math.isclose(before.value, value.value, rel_tol=1e-9, abs_tol=1e-12):
                self._abandon(record["id"])
                return
        final = {(value.name, value.step) for value in values}
        passing = live.values.keys() - final  # single values, held back so far, that are no curve in the record
        if passing & live.sent:
            self._abandon(record["id"])
            return
        for key in passing:
            del live.values[key]
        self._held -= len(passing)
        live.final = record
        self._add(record["id"], values)

    @property
    def _waiting(self) -> int:
        return sum(live.final is not None for live in self._trials.values())

    def _abandon(self, trial: str) -> None:
        """Leave a trial to publish."""
        live = self._trials.pop(trial, None)
        if live:
            self._held -= len(live.values) - len(live.sent)
        self._left.setdefault(trial, live.run if live else "")

    def _send(self) -> None:
        """Send what every trial has to send, until the server fails or time is up.

        A round is short, so that the rest after it is: sending computes in the driver's process.
        """
        end = math.inf if self._closing.is_set() else time.monotonic() + self._interval_s
        for trial, live in list(self._trials.items()):
            if not live.has_work:
                continue
            if time.monotonic() > self._deadline:
                return
            if time.monotonic() > end:
                break
            try:
                self._send_one(self._connection(), trial, live)
                self._sent_at = time.monotonic()
            except Exception as error:
                self._note(error)
                if getattr(error, "error_code", "") in _REFUSALS:
                    self._abandon(trial)
                    continue
                self._retry_at = time.monotonic() + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
                return
        self._pause_s, self._retry_at = _FIRST_PAUSE_S, 0.0

    def _send_one(self, runs: Runs, trial: str, live: _Live) -> None:
        if not live.run:
            earlier = self._earlier.pop(trial, [])
            if live.final and not live.create_tried:
                live.create_tried = True
                runs.delete(earlier)
                name = (self._naming or Naming()).of_record(live.final)
                runs.build(live.final, self._members(live), Added({"mlflow.runName": name}))
                self._over(trial, len(live.values))
                return
            if live.create_tried:  # the first attempt may have made a run without our hearing of it
                earlier = runs.find(self._sweep, trial)
            live.create_tried = True
            runs.delete(earlier)
            live.run = runs.create(live.begun, self._members(live), self._naming)
        values, params = live.unsent(), {} if live.params_sent else run_params(live.begun)
        if live.final:
            runs.complete(live.run, live.final, values, params, self._members(live))
            self._over(trial, len(values))
        else:
            runs.log(live.run, values, params)
            live.params_sent = True
            live.sent.update((p.name, p.step) for p in values)
            self._held -= len(values)

    def _over(self, trial: str, num_values: int) -> None:
        """Forget a trial whose run is complete."""
        del self._trials[trial]
        self._held -= num_values
        self._complete += 1

    def _members(self, live: _Live) -> dict[str, str]:
        return {self._sweep: live.begun["stage"]}

    def _connection(self) -> Runs:
        """Open the connection once, and end what a killed run of this sweep has left open."""
        if self._runs is None:
            runs = Runs(self._tracking, self._storage.storage_id())
            for head in runs.find(self._sweep, unfinished=True):
                if head.running:
                    runs.end(head.run, "KILLED")
                if head.trial:
                    self._earlier.setdefault(head.trial, []).append(head)
            self._runs = runs
        return self._runs

    def _end_open(self) -> None:
        for run in [*(live.run for live in self._trials.values()), *self._left.values()]:
            if not run or self._runs is None or time.monotonic() > self._deadline:
                continue
            try:
                self._runs.end(run, "KILLED")
            except Exception as error:
                self._note(error)
                return

    def _note(self, error: Exception) -> None:
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        text = hidden(told, self._tracking.uri)
        if text != self._trouble:
            log.debug("MLflow feed: %s", text)
        self._trouble = text
