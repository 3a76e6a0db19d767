"""What a person sees while a sweep runs: one line now and then, or a live one on a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from trainables.errors import OWN_KINDS, Failure


class Display:
    """Prints progress, at most once per `every_s`; stages, choices and failures at once.

    Args:
        total: trials to run, as far as known.
        every_s: seconds between progress lines where the output is no terminal.
        stream: where to print.
    """

    def __init__(self, total: int, every_s: float = 10.0, stream: TextIO | None = None) -> None:
        """Start the clock."""
        self.total = total
        self.finished = 0
        self.failed = 0
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._every_s = 0.5 if self._live else every_s
        self._start = self._last = time.monotonic()
        self._width = 0
        self._seen_errors: dict[str, int] = {}
        self._seen_attempts: set[str] = set()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._clear()
        print(line, file=self._stream, flush=True)

    def finish_trial(self, status: str, error: dict[str, str] | None) -> None:
        """Count a finished trial; show an error's text once, later ones of the kind only counted."""
        self.finished += 1
        if status != "failed" or error is None:
            return
        self.failed += 1
        key = f"{error['class']}: {error['message']}"
        self._seen_errors[key] = self._seen_errors.get(key, 0) + 1
        if self._seen_errors[key] == 1:
            self.say(f"failed ({error['class']}): {error['message']}")
            if error["class"] == "bug" and key not in self._seen_attempts:
                self.say(error.get("traceback", "").rstrip())

    def failed_attempt(self, failure: Failure) -> None:
        """Say that a pack failed and why, once for each cause and machine; a bug's traceback once."""
        if failure.kind in OWN_KINDS and failure.kind != "memory":
            return  # said as a result
        seen = f"{failure.cause} {failure.host}"
        if seen in self._seen_attempts:
            return
        self._seen_attempts |= {seen, f"{failure.kind}: {failure.message}"}
        where = " on " + " ".join(filter(None, (failure.host, failure.device))) if failure.host else ""
        self.say(f"failed attempt{where} ({failure.kind}): {failure.message}")
        if failure.kind == "bug" and failure.traceback:
            self.say(failure.traceback.rstrip())

    def progress(self, running_trials: int, note: str = "") -> None:
        """Print how far the sweep is, if it is time to."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        spent = now - self._start
        left = ""
        if self.finished and self.total > self.finished:
            left = f", about {_duration(spent / self.finished * (self.total - self.finished))} left"
        text = f"{self.finished}/{self.total} trials, {running_trials} running, {_duration(spent)}{left}"
        if self.failed:
            text += f", {self.failed} failed"
        if note:
            text += f"; {note}"
        if self._live:
            self._clear()
            print(text[:160], end="", file=self._stream, flush=True)
            self._width = len(text[:160])
        else:
            print(text, file=self._stream, flush=True)

    def summary(self) -> list[str]:
        """Return one line per kind of failure, with its count."""
        return [f"{count} x {text}" for text, count in self._seen_errors.items()]

    def close(self) -> None:
        """End a live line."""
        self._clear()

    def _clear(self) -> None:
        if self._width:
            print("\r" + " " * self._width + "\r", end="", file=self._stream)
            self._width = 0


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
