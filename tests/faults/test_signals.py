"""Signals, closed terminals and the death of the driver; each test is a row of `make test-faults`."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import termios

import psutil
import pytest

from tests.faults.sweeps import NOISE, Sweep
from tests.rows import OpenRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
EPOCHS = 300


def ended_well(sweep: Sweep) -> None:
    """Nothing is left behind but checkpoints."""
    assert sweep.checkpoints() and not sweep.records()
    assert not (sweep.out / "stop").exists() and not (sweep.out / ".holder.json").exists()
    assert not list(sweep.folder.glob("memory-sweep-tune-*"))


def left_of(process: int) -> list[str]:
    """Processes of a session that is over."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == process and other.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(other.cmdline())[:120])
        except (ProcessLookupError, psutil.Error):
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_whole_process_group(sweep: Sweep, row: OpenRow, number: signal.Signals) -> None:
    row(f"{number.name} to the process group, Ray's own processes too", 1, "checkpoints kept, exit 130, goes on")
    process = sweep.start("--max-concurrent", "1", trials=2, epochs=EPOCHS)
    sweep.wait_for(process, lambda: bool(sweep.checkpoints()))
    os.killpg(process.pid, number)
    ended = sweep.end(process, limit_s=90)
    assert ended.code == 130 and ended.seconds < 60, ended
    assert not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    assert "stopping:" in ended.output
    ended_well(sweep)
    if number == signal.SIGTERM:
        again = sweep.run(trials=2, epochs=EPOCHS, limit_s=400)
        assert again.code == 0 and sweep.statuses() == ["done"] * 2 and not sweep.checkpoints(), again


def test_a_second_signal_to_the_group_ends_it_at_once(sweep: Sweep, row: OpenRow) -> None:
    row("SIGTERM to the process group twice, half a second apart", 2, "ends at once, exit 130, nothing left running")
    faults = sweep.faults({"kind": "sleep", "after": 2})
    process = sweep.start("--max-concurrent", "1", trials=1, epochs=EPOCHS)
    sweep.wait_for(process, lambda: bool(list(faults.glob("used-*"))))  # in an epoch of ten minutes
    os.killpg(process.pid, signal.SIGTERM)
    sweep.wait_for(process, lambda: "stopping:" in sweep.output())
    os.killpg(process.pid, signal.SIGTERM)
    ended = sweep.end(process, limit_s=90)
    assert ended.code == 130 and not NOISE.search(ended.errors + ended.output), ended
    ended_well(sweep)
    sweep.gone(lambda: not left_of(process.pid))


def test_the_terminal_is_closed(sweep: Sweep, row: OpenRow) -> None:
    row("the terminal in which the command runs is closed", 1, "checkpoints kept, exit 130")
    master, slave = pty.openpty()
    process = sweep.start(
        "--max-concurrent", "1", trials=2, epochs=EPOCHS, terminal=slave,
        before=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(slave)
    os.set_blocking(master, False)

    def going() -> bool:
        try:
            os.read(master, 65536)  # or the command would wait for its terminal
        except BlockingIOError:
            pass
        return bool(sweep.checkpoints())

    sweep.wait_for(process, going)
    os.close(master)
    ended = sweep.end(process, limit_s=90)
    assert ended.code == 130, ended
    ended_well(sweep)


def test_the_driver_is_killed_again_and_again(sweep: Sweep, row: OpenRow) -> None:
    row("the driver is killed (SIGKILL), each time after further epochs", 5, "goes on; what it left is cleared; done")
    for kill in range(6):
        process = sweep.start("--max-concurrent", "1", trials=1, epochs=EPOCHS)
        if kill == 5:
            break
        before = sweep.written()
        sweep.wait_for(process, lambda before=before: sweep.written() > before)  # type: ignore[misc]
        process.kill()
        process.wait()
        assert sweep.statuses() == [] and list(sweep.folder.glob("memory-sweep-tune-*"))
    ended = sweep.end(process, limit_s=400)
    assert ended.code == 0 and sweep.statuses() == ["done"] and sweep.checkpoints() == [], ended
    assert not list(sweep.folder.glob("memory-sweep-tune-*"))


def test_the_driver_is_killed_again_and_again_before_it_gets_anywhere(sweep: Sweep, row: OpenRow) -> None:
    row("the driver is killed (SIGKILL) before it gets anywhere", 5, "done by the same command")
    for _ in range(5):
        process = sweep.start("--executor", "local", trials=1, epochs=2)
        sweep.wait_for(process, lambda: "1 trials to run" in sweep.output())
        process.kill()
        process.wait()
        assert not sweep.records() and not sweep.checkpoints()
    ended = sweep.run("--executor", "local", trials=1, epochs=2)
    assert ended.code == 0 and sweep.statuses() == ["done"], ended
