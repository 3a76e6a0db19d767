"""Ctrl-C, SIGTERM and a closed terminal: the first stops a sweep after the running epochs, the second at once.

A signal handler sets a flag, or ends a process beside; a thread acts on the flag. Before trials run and after them
there is nothing to wait for: the first signal ends what is being prepared, and does not disturb the closing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = "interrupted"
POLL_S = 0.1
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """What the signals of a run lead to; made by `handled_signals`."""

    def __init__(self) -> None:
        """No signal yet; the first one raises KeyboardInterrupt."""
        self._count = 0
        self._hung_up = False
        self._terminals = [stream for stream in (1, 2) if _is_terminal(stream)]
        self._stop: Callable[[str], None] | None = None
        self._closing = False
        self._first: Callable[[], bool] | None = None
        self._handled: list[int] = []

    def install(self) -> dict[int, Any]:
        """Take the signals over, but for those that are ignored (`nohup` means it); return what was there."""
        old = {}
        for number in self._handled or _SIGNALS:
            if self._handled or signal.getsignal(number) != signal.SIG_IGN:
                old[number] = signal.signal(number, self.handler)
        self._handled = list(old)
        return old

    def handler(self, number: int, frame: FrameType | None) -> None:
        """Count a signal, unless something takes it; raise when it is to end things at once."""
        if self._first is not None and self._first():
            self._first = None
            return
        self._count += 1
        self._hung_up |= number == getattr(signal, "SIGHUP", None)
        at_once = 1 if self._stop is None else 2
        if self._closing:
            at_once = 3
        if self._count >= at_once:
            raise KeyboardInterrupt

    @contextmanager
    def graceful(self, flag: Callable[[str], None], act: Callable[[], None]) -> Iterator[None]:
        """Let the first signal stop a sweep while the block runs.

        Args:
            flag: notes in memory that the sweep is to stop; called by a thread, soon after the signal.
            act: tells the workers and the user; called by the same thread, after it.
        """
        over = threading.Event()
        if self._handled:
            self.install()  # Ray puts handlers of its own in their place when it starts

        def watch() -> None:
            while not over.wait(POLL_S):
                if self._count:
                    self._leave_terminal()
                    flag(INTERRUPTED)
                    act()
                    return

        self._stop = flag
        thread = threading.Thread(target=watch, name="interrupts", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closing = True
            over.set()
            thread.join(timeout=5)
            self._leave_terminal()

    @contextmanager
    def skippable(self) -> Iterator[None]:
        """Let the first signal raise KeyboardInterrupt while the block runs; afterwards all is as it was before."""
        before = self._stop, self._closing, self._count, self._first
        self._stop, self._closing, self._count, self._first = None, False, 0, None
        try:
            yield
        finally:
            self._stop, self._closing, self._count, self._first = before

    @contextmanager
    def first_to(self, take: Callable[[], bool]) -> Iterator[None]:
        """Let the first signal go to something beside the block, which goes on; later ones do what they did before.

        Args:
            take: called by the signal's handler; False leaves the signal to what it would do otherwise.
        """
        self._first = take
        try:
            yield
        finally:
            self._first = None

    def _leave_terminal(self) -> None:
        """Print to nowhere from now on where a terminal was closed: a write to it would fail."""
        if not self._hung_up:
            return
        sink = os.open(os.devnull, os.O_WRONLY)
        for stream in self._terminals:
            os.dup2(sink, stream)
        os.close(sink)


def _is_terminal(stream: int) -> bool:
    try:
        return os.isatty(stream)
    except OSError:
        return False


@contextmanager
def handled_signals() -> Iterator[Interrupts]:
    """Handle the signals for the time of a `with` block; outside the main thread, where none arrive, do nothing."""
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    old = interrupts.install()
    try:
        yield interrupts
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
