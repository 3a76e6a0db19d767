"""What follows from a failure: which trials are tried again, which machine is left out, when a sweep stops.

A failure of a machine never becomes a result. `FailurePolicy` only counts and decides; the ledger acts on it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from trainables.errors import OWN_KINDS, Failure

ALIKE = 3
"""Packs that must fail alike, one after the other, for the sweep to stop or a machine to be left out."""
BUDGET = {"memory": 2, "bug": 2, "io": 4, "device": 4, "process": 5}
"""Times a trial may fail in each way, without progress in between, before this run stops trying it (`memory`: alone in
its pack, its process killed). Losing a node (`preemption`) is not counted."""
RECORDED = OWN_KINDS | {"bug"}
"""Failures that are recorded once their budget is spent; a trial with any other waits for the next run."""

Verdict = Literal["again", "halves", "result", "later"]


@dataclass
class _Attempts:
    """What has happened to one trial: failures by kind since it last got further, and where it began."""

    failures: dict[str, int] = field(default_factory=dict)
    first_epoch: int = 0
    reported: bool = False
    nodes: set[str] = field(default_factory=set)


@dataclass
class _Row:
    """Failures alike, one after the other, in one place or in all."""

    cause: str = ""
    groups: list[frozenset[str]] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)

    def add(self, failure: Failure, group: frozenset[str]) -> None:
        if failure.cause != self.cause:
            self.cause, self.groups, self.nodes = failure.cause, [], set()
        if failure.kind == "io" or not any(group & other for other in self.groups):
            self.groups.append(group)
        self.nodes.add(failure.node)

    @property
    def length(self) -> int:
        """How many failures count: of a disk or storage each one, otherwise one of the same trials once."""
        return len(self.groups)


class FailurePolicy:
    """Counts failures by trial, by machine and by cause, and says what follows.

    Attributes:
        stop: why the sweep should end; empty while it should go on.
        left_out: nodes that only fail, by id, with what a person is told.
    """

    def __init__(self) -> None:
        """Begin without failures."""
        self.stop = ""
        self.left_out: dict[str, str] = {}
        self._trials: dict[str, _Attempts] = {}
        self._row = _Row()
        self._places: dict[tuple[str, str], _Row] = {}
        self._any_result = False

    def epoch(self, trial: str, epoch: int) -> None:
        """Take note that a trial reported an epoch.

        An attempt that begins at a later epoch than the one before found a checkpoint: the failures up to there do not
        count any more.
        """
        attempts = self._trials.setdefault(trial, _Attempts())
        if attempts.reported:
            return
        attempts.reported = True
        if epoch > attempts.first_epoch:
            attempts.first_epoch = epoch
            attempts.failures.pop("process", None)

    def has_failed(self, trial: str) -> bool:
        """Whether a trial has failed here without a result: it may take others of its pack with it."""
        attempts = self._trials.get(trial)
        return attempts is not None and bool(attempts.failures)

    def forget(self, trial: str) -> None:
        """Take note that a trial has its record."""
        self._trials.pop(trial, None)

    def succeed(self, node: str, device: str) -> None:
        """Take note of a trial that ran to a result: its device works, and so does the sweep.

        Failures of the node's other devices still count: one broken GPU among good ones would not be noticed otherwise.
        """
        self._any_result = True
        self._row = _Row()
        for place in ((node, device), (node, "")):  # what is told without a device is the node's own
            self._places.pop(place, None)

    def avoid(self, trials: Collection[str]) -> frozenset[str]:
        """Return the nodes where trials should not be tried: left out, or where they failed before."""
        failed = {node for trial in trials for node in self._trials.get(trial, _Attempts()).nodes}
        return frozenset(failed | self.left_out.keys())

    def judge(self, trials: Sequence[str], failure: Failure, elsewhere: bool = False) -> Verdict:
        """Say what becomes of the trials of a pack that failed, and update `stop` and `left_out`.

        Args:
            trials: those without a result.
            failure: what happened.
            elsewhere: whether there is a node to run on that is neither left out nor the one that failed.
        """
        progress = any(self._trials.get(trial, _Attempts()).reported for trial in trials)
        if failure.kind not in OWN_KINDS:
            self._count_row(frozenset(trials), failure, elsewhere, progress)
        for trial in trials:
            self._trials.setdefault(trial, _Attempts()).reported = False
        if failure.kind in ("config", "data"):
            return "result"
        if failure.kind == "memory" and len(trials) > 1:
            return "halves"
        if failure.kind == "preemption":
            return "again"
        spent = False
        for trial in trials:
            attempts = self._trials[trial]
            attempts.failures[failure.kind] = attempts.failures.get(failure.kind, 0) + 1
            spent |= attempts.failures[failure.kind] >= BUDGET[failure.kind]
            if failure.node and failure.kind != "memory":
                attempts.nodes.add(failure.node)
        if not spent:
            return "again"
        if len(trials) > 1:
            return "halves"  # one of them may take the others with it
        return "result" if failure.kind in RECORDED else "later"

    def note_result(self, pack: str, failure: Failure) -> None:
        """Count a failure that is its trial's result: when nothing but these come from the start, the sweep stops.

        Those of one pack count once.
        """
        self._count_row(frozenset({pack}), failure, elsewhere=False, progress=False)

    def _count_row(self, group: frozenset[str], failure: Failure, elsewhere: bool, progress: bool) -> None:
        """Count failures that follow on each other alike, and draw the conclusions."""
        if failure.kind == "preemption" or (failure.kind == "process" and progress):
            return
        if failure.kind in OWN_KINDS and self._any_result:
            return  # results of their trials; others had results, so that the sweep as a whole works
        if not self.stop:
            self._row.add(failure, group)
        place = self._places.setdefault((failure.node, failure.device), _Row())
        place.add(failure, group)
        where = " ".join(filter(None, (failure.device.replace("cpu", ""), failure.host)))
        told = f"{failure.kind}: {failure.message[:200]}"
        alone = len(self._row.nodes) <= 1
        if place.length >= ALIKE and failure.node and elsewhere and alone and failure.kind not in OWN_KINDS:
            name = f"node {failure.host or failure.node[:8]} is left out"
            of = f" on {failure.device}" if failure.device not in ("", "cpu") else ""
            told_all = f"{name}: {place.length} packs in a row failed there{of} alike ({told})"
            self.left_out.setdefault(failure.node, told_all)
            self._row = _Row()
        elif self._row.length >= ALIKE:
            count = "the first" if not self._any_result else "the last"
            self.stop = self.stop or f"{count} {self._row.length} packs all failed alike ({told})"
        elif place.length >= ALIKE and failure.kind == "device":
            self.stop = self.stop or f"{where}: {place.length} packs in a row failed there alike ({told})"
