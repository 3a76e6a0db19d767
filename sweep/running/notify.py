"""`--notify CMD`: a command of the user's that runs at the end of a run, at a new kind of failure, and at a choice.

It runs in a shell of its own, beside the sweep, and is told by its environment what happened. Whatever it does, the
sweep goes on: it gets `LIMIT_S`, then it is ended with all that it started, and its trouble is one line, said once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from queue import Empty, Full, Queue
from typing import Any

END, FAILURE, CHOICE = "end", "failure", "choice"
LIMIT_S = 30.0
"""What a command gets (ours): more than a message takes by any way, and no run waits longer for it at its end."""
MOST_WAITING = 20
"""Commands that wait for their turn; beyond, what happens is not told (ours)."""
PREFIX = "MEMORY_SWEEP_"


class Notifier:
    """Runs a command for what happens, one after the other, in the background.

    Args:
        command: for `sh -c`; empty for none.
        sweep: its name.
        folder: where it lies.
        say: prints a line for the user.
        limit_s: seconds for each command.
    """

    def __init__(
        self, command: str, sweep: str, folder: str, say: Callable[[str], None], limit_s: float = LIMIT_S
    ) -> None:
        """Keep the parts; the thread starts with the first thing that happens."""
        self._command, self._say, self._limit_s = command, say, limit_s
        self._told = {"SWEEP": sweep, "FOLDER": folder}
        self._queue: Queue[dict[str, str] | None] = Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._trouble = ""

    def tell(self, event: str, message: str, **more: Any) -> None:
        """Have the command run for something that happened.

        Args:
            event: `end`, `failure` or `choice`.
            message: a line on it.
            **more: further variables.
        """
        if not self._command:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
            self._thread.start()
        told = {**self._told, "EVENT": event, "MESSAGE": message, **{k.upper(): str(v) for k, v in more.items()}}
        try:
            self._queue.put_nowait(told)
        except Full:
            self._note(f"more than {MOST_WAITING} waiting, the rest is left out")

    def close(self) -> None:
        """Wait for what was told, in all no longer than one command may take."""
        if self._thread is None:
            return
        until = time.monotonic() + self._limit_s + 1.0
        while self._queue.full() and time.monotonic() < until:  # what is left over is not worth a wait
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._queue.put(None)
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive() and self._process is not None:
            _end(self._process)

    def _work(self) -> None:
        while (told := self._queue.get()) is not None:
            try:
                self._run({PREFIX + name: _one_line(value) for name, value in told.items()})
            except OSError as error:
                self._note(str(error))

    def _run(self, told: dict[str, str]) -> None:
        """Run the command once; it and all that it starts are ended when its time is over."""
        env, null = {**os.environ, **told}, subprocess.DEVNULL
        self._process = process = subprocess.Popen(
            ["sh", "-c", self._command], env=env, stdin=null, stdout=null, stderr=null, start_new_session=True
        )
        try:
            status = process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            _end(process)
            self._note(f"not done after {self._limit_s:g} s, ended")
        else:
            if status:
                self._note(f"exit status {status}")

    def _note(self, trouble: str) -> None:
        if not self._trouble:
            self._trouble = trouble
            self._say(f"note: --notify: {trouble}; the sweep is not touched by it, and further trouble is not said")


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _one_line(text: str) -> str:
    """Return a text that an environment can hold."""
    return " ".join(text.replace("\0", "").split())[:2000]
