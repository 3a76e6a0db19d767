"""The end of a run: the results table, the report and MLflow are made from the records, and what is there is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sweep.planning.plan import Plan
from sweep.records.results_table import RESULTS
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.report.kept import PAGE_FILE, REPORT_FOLDER, SweepReport, kept_report
from sweep.running.end_report import EndReport
from sweep.running.interrupts import INTERRUPTED, Interrupts
from sweep.running.made import Made
from sweep.running.results import EXIT_FAILED, EXIT_INTERRUPTED, Results
from sweep.running.run_options import RunOptions
from sweep.running.voice import Voice
from sweep.tracking.address import Tracking
from trainables.errors import SweepError, failure_kind

T = TypeVar("T")


@dataclass
class Ended:
    """What a run came to.

    Attributes:
        counts: trials by status.
        stopped: why it ended early; empty if it did not.
        num_ended: trials that ended in it.
        failures: a line for each kind of failure.
    """

    counts: Mapping[str, int]
    stopped: str = ""
    num_ended: int = 0
    failures: list[str] = field(default_factory=list)


def why_ended(error: OSError | SweepError) -> str:
    """Return what ended a run after trials had run: then it is no mistake in the call, whatever its class.

    Raises:
        OSError: the error itself, if it is no failure of a disk, a storage or a network.
    """
    kind = failure_kind(error)
    if not isinstance(error, SweepError) and kind != "io":
        raise error
    return f"{kind}: {error}"


class Closing:
    """Writes what is left to write at the end of a run.

    Args:
        storage: of the sweep.
        name: of the sweep.
        index: the records there are.
        options: of the run.
        tracking: MLflow's place.
        interrupts: heard meanwhile.
        voice: tells people.
        started: when the run began, in seconds of the monotonic clock.

    Attributes:
        trouble: why something could not be written; empty while all could.
    """

    def __init__(
        self,
        storage: SweepStorage,
        name: str,
        index: RecordIndex,
        options: RunOptions,
        tracking: Tracking,
        interrupts: Interrupts,
        voice: Voice,
        started: float,
    ) -> None:
        """Begin without trouble."""
        self.trouble = ""
        self._storage, self._name, self._index, self._options = storage, name, index, options
        self._tracking, self._interrupts, self._voice = tracking, interrupts, voice
        self._started = started
        self._report = EndReport(storage, name, index, interrupts, voice.say)
        self._ending: Future[None] | None = None

    def storing(self, call: Callable[[], T]) -> T | None:
        """Write something at the end; a storage that fails then ends the run as it would have before."""
        try:
            return call()
        except (OSError, SweepError) as error:
            self.trouble = self.trouble or why_ended(error)
            return None

    def close(self, plan: Plan, choices: Mapping[str, Any], ended: Ended) -> Results:
        """Write the table and the report, bring MLflow up to date, unless all that is there as the last run left it.

        Args:
            plan: of the run.
            choices: made by now, by key.
            ended: what it came to.
        """
        report, report_trouble, trouble = None, "", ""
        files = (RESULTS, *((f"{REPORT_FOLDER}/{PAGE_FILE}",) if self._options.report else ()))
        made = Made(self._storage, self._name, self._index, self._tracking, files)
        has_run = bool(plan.num_left or ended.num_ended)
        if not has_run and made.is_there():
            report = kept_report(self._storage, self._name) if self._options.report else None
        else:
            report, report_trouble, trouble = self._make_all(ended.stopped, has_run)
            if not (ended.stopped or self.trouble or report_trouble or trouble):
                self.storing(made.note)
        stopped, counts = ended.stopped or self.trouble, ended.counts
        code = EXIT_FAILED if stopped or counts["missing"] or counts["failed"] else 0
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        self._voice.tell_end(
            f"{told}; {stopped}" if stopped else told, "stopped" if stopped else "ok" if not code else "failed"
        )
        full = self._storage.full
        return Results(
            name=self._name,
            exit_code=EXIT_INTERRUPTED if stopped == INTERRUPTED else code,
            counts=counts,
            num_run=plan.num_to_run or (0 if plan.num_to_ask else ended.num_ended),
            num_asked=plan.num_to_ask,
            stopped=stopped,
            choices=choices,
            failures=tuple(ended.failures),
            notes=tuple(self._voice.notes),
            paths={
                "folder": full(self._name),
                "results": full(f"{self._name}/{RESULTS}"),
                "plan": full(f"{self._name}/plan.json"),
                "choices": full(f"{self._name}/choices.json"),
                **({"report": report.page} if report else {}),
            },
            tracking_uri=self._tracking.uri,
            tracking_trouble=trouble,
            on_sample_world=any(point.card.is_sample for stage in plan.stages for point in stage.points),
            seconds=time.monotonic() - self._started,
            storage=self._storage,
            conclusions=report.conclusions if report else {},
            report_trouble=report_trouble,
        )

    def __enter__(self) -> Closing:
        """Begin nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind, however the run has ended."""
        self._report.dismiss()
        if self._ending is not None:
            self._ending.result()

    def end_beside(self, end: Callable[[], None]) -> None:
        """Begin to end what has run the trials, in a thread: Ray takes a second for it, most of which it waits."""
        pool = ThreadPoolExecutor(1)
        self._ending = pool.submit(end)
        pool.shutdown(wait=False)

    def expect_report(self) -> None:
        """Get ready for the report while the trials do: what the end needs is imported at the start, here as there.

        Sources may be updated while a long run goes on.
        """
        if self._options.report:
            self._report.get_ready()

    def _make_all(self, stopped: str, has_run: bool) -> tuple[SweepReport | None, str, str]:
        """Make what is made from records; return the report, why there is none, and what MLflow lacks."""
        from sweep.records.results_table import write_results
        from sweep.report.findings import publish_compared
        from sweep.tracking.client import TrackingError

        if has_run:
            self._voice.say("writing the results table")
        self.storing(lambda: write_results(self._storage, self._name, self._index))
        report, trouble = self._report, ""
        if not self._options.report or not self._index:
            made: AbstractContextManager[None] = nullcontext()
        elif stopped == INTERRUPTED:
            made, report.trouble = nullcontext(), "the run was interrupted"
        else:
            made = report.beside()
        with made:
            if has_run:
                self._voice.say("bringing MLflow up to date")
            try:
                publish_compared(
                    self._storage,
                    [self._name],
                    self._tracking,
                    index=self._index,
                    report=report.wait if report.under_way else None,
                )
            except TrackingError as error:
                trouble = str(error)
        return report.made, report.trouble, trouble
