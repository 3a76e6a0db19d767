"""The end of a run: what ran its trials ends beside what is still to be written, unless trials may still be running."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.running import sweep as sweep_module
from sweep.running.closing import Closing
from sweep.running.exchange import PackExchange
from sweep.running.executor import Capacity, WorkerSettings
from sweep.running.in_process import InProcess
from sweep.running.run_sweep import run_sweep
from sweep.space import ALL, Space, Stage

SPACE = Space(
    name="tiny",
    title="One trial that trains nothing",
    axes={"num_documents": [2]},
    fixed={"model": "sample-llama", "data": "sample", "method": "allocate", "memory_dim": 8, "segment_tokens": 32},
    stages=(Stage(name="all", axes={"num_documents": ALL}),),
    baseline=False,
)
LONG_S = 20.0


class Ends(InProcess):
    """Runs packs in this process; its session ends when it may, and notes in which thread."""

    def __init__(self, ends_beside: bool) -> None:
        super().__init__(WorkerSettings("cpu"), 1)
        self.ends_beside = ends_beside  # type: ignore[misc]
        self.may_end, self.ended_in = threading.Event(), ""
        self.stops = False

    @contextmanager
    def session(self, storage: SweepStorage) -> Iterator[Capacity]:
        with super().session(storage) as capacity:
            yield capacity
        if self.ends_beside and not self.stops:
            assert self.may_end.wait(LONG_S), "nothing is written while the session ends"
        self.ended_in = threading.current_thread().name

    def run(self, exchange: PackExchange) -> None:
        super().run(exchange)
        if self.stops:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("ends_beside", "stops"), [(True, False), (False, False), (True, True)])
def test_a_session_ends_beside_what_is_written_where_it_can_and_no_pack_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_beside: bool, stops: bool
) -> None:
    executor = Ends(ends_beside)
    executor.stops = stops
    had_ended = []
    make_all = Closing._make_all

    def made(closing: Closing, stopped: str, has_run: bool) -> object:
        had_ended.append(bool(executor.ended_in))
        executor.may_end.set()
        return make_all(closing, stopped, has_run)

    monkeypatch.setattr(sweep_module, "executor_for", lambda options: executor)
    monkeypatch.setattr(Closing, "_make_all", made)
    results = run_sweep(SPACE, tmp_path)
    beside = ends_beside and not stops
    assert results.counts["done"] == 1 and had_ended == [not beside]
    assert executor.ended_in and (executor.ended_in != threading.current_thread().name) is beside


def test_what_goes_wrong_at_the_end_of_a_session_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Ends(True)
    monkeypatch.setattr(executor.may_end, "wait", lambda seconds: 1 / 0)
    monkeypatch.setattr(sweep_module, "executor_for", lambda options: executor)
    with pytest.raises(ZeroDivisionError):
        run_sweep(SPACE, tmp_path)
