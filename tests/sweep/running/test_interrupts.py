"""Signals: what the first and the second do, before, during and after the trials; and folders left by the killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sweep.running import scratch
from sweep.running.interrupts import INTERRUPTED, handled_signals

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", SIGNALS)
def test_before_trials_run_the_first_signal_ends_the_command(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), handled_signals():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", SIGNALS)
def test_while_trials_run_the_first_is_acted_on_by_a_thread_and_the_second_ends_at_once(number: signal.Signals) -> None:
    told: list[tuple[str, str]] = []

    def note(reason: str) -> None:
        told.append((reason, threading.current_thread().name))

    with handled_signals() as interrupts, interrupts.graceful(note, lambda: told.append(("act", ""))):
        os.kill(os.getpid(), number)
        start = time.monotonic()
        while len(told) < 2 and time.monotonic() - start < 5:
            time.sleep(0.01)
        assert told == [(INTERRUPTED, "interrupts"), ("act", "")]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(5)
    assert len(told) == 2


def test_a_signal_during_the_closing_does_not_disturb_it() -> None:
    with handled_signals() as interrupts:
        with interrupts.graceful(lambda reason: None, lambda: None):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


def test_handlers_that_another_library_put_in_their_place_are_replaced_when_trials_run() -> None:
    told: list[str] = []
    with handled_signals() as interrupts:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray does when it starts, with handlers of its own
        with interrupts.graceful(told.append, lambda: told.append("acted")):
            os.kill(os.getpid(), signal.SIGTERM)
            start = time.monotonic()
            while len(told) < 2 and time.monotonic() - start < 5:
                time.sleep(0.01)
    assert told == [INTERRUPTED, "acted"]


def test_what_was_ignored_before_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_folders_of_processes_that_are_gone_are_cleared_and_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    gone, alive, other = (
        tmp_path / name
        for name in (
            f"{scratch._mine()}{ended.pid}-x",
            f"{scratch._mine()}{os.getppid()}-x",
            f"{scratch.PREFIX}else-1-9-x",
        )
    )
    for folder in (gone, alive, other):
        (folder / "inside").mkdir(parents=True)
    with scratch.scratch_folder() as mine:
        assert Path(mine).is_dir() and not gone.exists() and alive.exists() and other.exists()
    assert not Path(mine).exists()
