"""What a person sees while a sweep runs: a live view on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from sweep.cli.heartbeat import LINE_EVERY_S, Heartbeat
from sweep.running.progress import SweepProgress
from sweep.running.state import SweepState
from sweep.running.state_text import one_line, view
from trainables.errors import OWN_KINDS, Failure

REFRESHES_PER_S = 2.0


class Display:
    """Shows how far a sweep is; stages, choices and failures at once, each as a line that stays.

    Args:
        progress: what is shown.
        stream: where to print.
        live: show a view that changes, rather than a line now and then; None where `stream` is a terminal.
        every_s: seconds between two such lines.
        verbose: say every failure, with its traceback, and every trial that ends.
        on_failure: hears of each new kind of failure, in a line.
        beat: prints what is not the live view, and dots until a first step is done.
    """

    def __init__(
        self,
        progress: SweepProgress,
        stream: TextIO | None = None,
        live: bool | None = None,
        every_s: float = LINE_EVERY_S,
        verbose: bool = False,
        on_failure: Callable[[str], None] = lambda line: None,
        beat: Heartbeat | None = None,
    ) -> None:
        """Show nothing yet."""
        self._beat, self._has_begun, self._has_stepped = beat, False, False
        self._turn, self._over = threading.Lock(), threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="progress", daemon=True)
        self._on_failure = on_failure
        self.progress = progress
        self._stream = stream or sys.stdout
        self._every_s, self._verbose = every_s, verbose
        self._note = ""
        self._last = time.monotonic()
        self._seen_errors: dict[str, int] = {}
        self._seen_attempts: set[str] = set()
        self._live: Live | None = None
        if self._stream.isatty() if live is None else live:
            self._live = Live(
                get_renderable=self._view,
                console=Console(file=self._stream, highlight=False, force_terminal=True),
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )

    def __enter__(self) -> Display:
        """Begin to show the live view."""
        if self._live:
            if self._beat:
                self._beat.pause()
            self._live.start()
        else:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the live view away; print no more lines."""
        self._over.set()
        if self._live:
            self._live.stop()
        if self._beat:
            self._beat.resume()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        if self._live and self._live.is_started:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif self._beat:
            self._beat.say(line)
        else:
            print(line, file=self._stream, flush=True)

    def end_trial(self, status: str, error: dict[str, str] | None, name: str = "") -> None:
        """Say an error's text once, later ones of the kind are only counted."""
        if self._verbose:
            self.say(f"{status}: {name}")
        if status != "failed" or error is None:
            return
        key = f"{error['class']}: {error['message']}"
        self._seen_errors[key] = self._seen_errors.get(key, 0) + 1
        if self._seen_errors[key] == 1:
            self._on_failure(f"failed ({error['class']}): {error['message']}")
        if self._seen_errors[key] == 1 or self._verbose:
            self.say(f"failed ({error['class']}): {error['message']}")
            if error["class"] == "bug" and (key not in self._seen_attempts or self._verbose):
                self.say(error.get("traceback", "").rstrip())

    def failed_attempt(self, failure: Failure) -> None:
        """Say that a pack failed and why, once for each cause and machine; a bug's traceback once."""
        if failure.kind in OWN_KINDS and failure.kind != "memory":
            return  # said as a result
        seen = f"{failure.cause} {failure.host}"
        is_new = seen not in self._seen_attempts
        if not is_new and not self._verbose:
            return
        self._seen_attempts |= {seen, f"{failure.kind}: {failure.message}"}
        where = " on " + " ".join(filter(None, (failure.host, failure.device))) if failure.host else ""
        line = f"failed attempt{where} ({failure.kind}): {failure.message}"
        self.say(line)
        if is_new:
            self._on_failure(line)
        if failure.traceback and (failure.kind == "bug" or self._verbose):
            self.say(failure.traceback.rstrip())

    def begin(self) -> None:
        """Say that trials begin, where there is no view that shows it; once."""
        if not self._live and not self._has_begun:
            self._has_begun = True
            self.say("trials begin: workers start, load the model and compute its hidden states")

    def step(self) -> None:
        """Show at once that a first step is done; from then on there is a line now and then, and no dots."""
        if self._live or self._has_stepped:
            return
        self._has_stepped = True
        if self._beat:
            self._beat.pause()
        self._last = time.monotonic()
        self.say(one_line(self.state))

    def show(self, note: str = "") -> None:
        """Print how far the sweep is, if it is time to; the live view changes by itself."""
        self._note = note
        with self._turn:
            now = time.monotonic()
            if self._live or now - self._last < self._every_s:
                return
            self._last = now
        self.say(one_line(self.state, note))

    def _tick(self) -> None:
        """Print a line in time also where nothing reports for long: one trial in this process, or questions."""
        while not self._over.wait(self._every_s / 10):
            if self._has_stepped:
                self.show(self._note)

    @property
    def state(self) -> SweepState:
        """The sweep's state now."""
        return self.progress.snapshot(self.summary())

    def summary(self) -> list[str]:
        """Return one line per kind of failure, with its count."""
        return [f"{count} x {text}" for text, count in self._seen_errors.items()]

    def _view(self) -> RenderableType:
        return view(self.state, self._note)
