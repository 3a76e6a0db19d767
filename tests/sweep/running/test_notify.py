"""`--notify`: what the command is told, and that nothing it does touches the sweep."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep import run_sweep
from sweep.running.notify import CHOICE, END, FAILURE, MOST_WAITING, Notifier

WRITE = 'printf "%s|%s|%s|%s\\n" "$MEMORY_SWEEP_EVENT" "$MEMORY_SWEEP_SWEEP" "$MEMORY_SWEEP_MESSAGE" '
WRITE += '"$MEMORY_SWEEP_STATUS" >> "$NOTES"'


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path / "notes"


def test_the_command_is_told_in_order_what_happened(notes: Path) -> None:
    said: list[str] = []
    notifier = Notifier(WRITE, "mine", "/out/mine", said.append)
    notifier.tell(CHOICE, "layer is 3")
    notifier.tell(FAILURE, 'two\nlines; $(touch never) "quoted" \0')
    notifier.tell(END, "4 done", status="ok")
    notifier.close()
    assert notes.read_text().splitlines() == [
        "choice|mine|layer is 3|",
        'failure|mine|two lines; $(touch never) "quoted"|',
        "end|mine|4 done|ok",
    ]
    assert said == [] and not Path("never").exists()


@pytest.mark.parametrize("command", ["exit 3", "no-such-command-at-all", "kill -9 $$"])
def test_a_command_that_fails_is_said_once(command: str) -> None:
    said: list[str] = []
    notifier = Notifier(command, "mine", "/out/mine", said.append)
    for _ in range(3):
        notifier.tell(END, "over")
    notifier.close()
    (line,) = said
    assert line.startswith("note: --notify: exit status") and "\n" not in line


def test_a_command_that_hangs_is_ended_with_what_it_started(
    tmp_path: Path, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    said: list[str] = []
    hangs = 'trap "" TERM; sleep 1000 & echo $! >> "$PIDS"; sleep 1000'
    notifier = Notifier(hangs, "mine", "/out/mine", said.append, limit_s=0.5)
    begun = time.monotonic()
    for _ in range(3 * MOST_WAITING):
        notifier.tell(FAILURE, "again")
    told_s = time.monotonic() - begun
    notifier.close()
    assert told_s < 0.5, "telling waits for nothing"
    assert len(said) == 1 and "note: --notify:" in said[0]
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]

    def gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    wait_until(lambda: all(map(gone, pids)), 10.0)
    assert pids and os.getpid() not in pids


def test_nothing_runs_without_a_command() -> None:
    notifier = Notifier("", "mine", "/out/mine", print)
    notifier.tell(END, "over")
    notifier.close()
    assert notifier._thread is None


@pytest.mark.slow
def test_a_sweep_tells_its_choices_its_failures_and_its_end(notes: Path, tmp_path: Path) -> None:
    settings = ("model=sample-llama", "epochs=1", "depth=0.5,1.0", "alpha=0,1", "allocation=simset2")
    results = run_sweep(
        "sample", tmp_path / "out", executor="local", settings=settings, device="cpu", baseline=False, notify=WRITE
    )
    lines = notes.read_text().splitlines()
    assert results.exit_code == 0 and [line.split("|")[0] for line in lines] == ["choice", "end"]
    assert "layer for model=sample-llama is" in lines[0] and lines[1].endswith("|ok") and "done" in lines[1]
