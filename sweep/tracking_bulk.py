"""Many runs built from records at once, by worker processes.

Whatever one asks of it, MLflow's client computes for tens of milliseconds on every run, so thousands of runs want
every core. A worker (`python -m sweep.tracking_bulk`) is given one record at a time as a line of JSON and answers with
a line when the run is whole. It ends with its input, so that a killed publish leaves at most one half-made run per
worker, and the next publish replaces it.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, TextIO

from sweep.records import Record
from sweep.tracking import Tracking
from sweep.tracking_runs import Runs, TrackingError, told_in_one_line
from trainables.machine import usable_cores

FEW = 100
"""Up to so many runs are built without workers, which take seconds to start."""
MOST_WORKERS = 4
"""More only wait for one another at the database."""

Todo = tuple[Record, Mapping[str, str]]


def build_runs(runs: Runs, todo: Sequence[Todo], done: Callable[[], None]) -> None:
    """Build the runs of some records.

    Args:
        runs: the connection.
        todo: records, each with the sweeps and stages it belongs to.
        done: called after each.

    Raises:
        TrackingError: MLflow does not answer or refuses; what was built so far stays.
    """
    if len(todo) <= FEW:
        for record, members in todo:
            runs.build(record, members)
            done()
        return
    number = min(MOST_WORKERS, usable_cores())
    idle: queue.Queue[_Worker] = queue.Queue()

    def build(item: Todo) -> None:
        worker = idle.get()
        try:
            worker.build(item)
        finally:
            idle.put(worker)

    with ExitStack() as stack:
        for _ in range(number):
            worker = _Worker(runs.tracking, runs.storage)
            stack.callback(worker.close)
            idle.put(worker)
        threads = stack.enter_context(ThreadPoolExecutor(number))
        for _ in threads.map(build, todo):
            done()
    _flush(runs.tracking)


class _Worker:
    """One worker process, seen from here."""

    def __init__(self, tracking: Tracking, storage: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweep.tracking_bulk"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._tell({"tracking": asdict(tracking), "storage": storage})

    def build(self, item: Todo) -> None:
        self._tell(item)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise TrackingError(
                f"a worker process that fills MLflow ended with status {self._process.wait()}; "
                "nothing is lost, publish again"
            )
        problem = json.loads(answer)
        if problem:
            raise TrackingError(problem)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        self._process.wait()
        self._process.stdout.close()

    def _tell(self, value: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # told when the answer is missing


def _flush(tracking: Tracking) -> None:
    """Bring to the disk what the workers have left to the operating system."""
    if tracking.ours:
        with open(tracking.uri.removeprefix("sqlite:///"), "rb+") as file:
            os.fsync(file.fileno())


def _work(lines: TextIO, answers: TextIO) -> None:
    """Build runs, one per line of input after the first, until there are no more."""
    begin = json.loads(lines.readline())
    tracking, problem, runs = Tracking(**begin["tracking"]), "", None
    if tracking.ours:
        _leave_flushing_to_the_system()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # MLflow makes many short-lived objects
    for line in lines:
        try:
            with told_in_one_line(tracking.uri):
                runs = runs or Runs(tracking, begin["storage"])
                runs.build(*json.loads(line))
        except TrackingError as error:
            problem = str(error)
        print(json.dumps(problem), file=answers, flush=True)
        if problem:
            return


def _leave_flushing_to_the_system() -> None:
    """Have this process's SQLite connections not wait for the disk, which takes longer than all the rest.

    A killed process does no harm then, a power failure may; done only to the storage's own database, all of which
    can be made again from the records.
    """
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    def relax(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Pool, "connect", relax)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted publish closes the input
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # whatever a library prints is no answer
        _work(sys.stdin, out)
