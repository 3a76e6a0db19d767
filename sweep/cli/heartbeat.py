"""What a person sees before trials run and after: a line for each step, and dots under it while it takes its time."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

EVERY_S = 2.0
"""Seconds between two dots: nothing is silent for longer than 3 s, also on a machine that is busy (ours)."""
LINE_EVERY_S = 30.0
"""Seconds between two lines that say how far a longer work is, where there is no terminal."""
WIDTH = 60


class Heartbeat:
    """Prints lines; while none comes, a dot now and then says that the last one still holds.

    Dots are plain characters: in a pipe, in a log and on a terminal of any width they look alike, and whatever else
    prints meanwhile (a library, a download) is not disturbed.

    Args:
        shown: whether anything is printed.
        stream: where; None for standard output.
        every_s: seconds between two dots.
    """

    def __init__(self, shown: bool, stream: TextIO | None = None, every_s: float = EVERY_S) -> None:
        """Print nothing yet."""
        self.shown, self._stream, self._every_s = shown, stream, every_s
        self._turn = threading.Lock()
        self._dots, self._last, self._paused = 0, time.monotonic(), False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        """Begin to wait for lines."""
        if self.shown:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Print nothing more."""
        self._over.set()
        with self._turn:
            self._end_dots()

    def say(self, line: str) -> None:
        """Print a line."""
        if not self.shown:
            return
        with self._turn:
            self._end_dots()
            print(line, file=self._stream or sys.stdout, flush=True)
            self._last = time.monotonic()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Print no dots while the block runs: something else shows how far it is."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def pause(self) -> None:
        """Print no dots until `resume`; lines are printed all the same."""
        with self._turn:
            self._end_dots()
            self._paused = True

    def resume(self) -> None:
        """Print dots again."""
        with self._turn:
            self._paused, self._last = False, time.monotonic()

    def _beat(self) -> None:
        while not self._over.wait(self._every_s / 4):
            with self._turn:
                if self._paused or self._over.is_set() or time.monotonic() - self._last < self._every_s:
                    continue
                self._last = time.monotonic()
                self._dots += 1
                self._write("." if self._dots % WIDTH else ".\n")

    def _end_dots(self) -> None:
        if self._dots % WIDTH:
            self._write("\n")
        self._dots = 0

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        try:
            stream.write(text)
            stream.flush()
        except OSError:  # a terminal that was closed: whoever says a line hears of it
            self._over.set()
