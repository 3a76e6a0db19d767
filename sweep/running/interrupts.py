"""Ctrl-C and SIGTERM: the first stops a sweep after the running epochs, the second at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sweep.running.ledger import Ledger

INTERRUPTED = "interrupted"


@contextmanager
def graceful_interrupts(ledger: Ledger, say: Callable[[str], None]) -> Iterator[None]:
    """Handle the two signals for the time of a `with` block; outside the main thread, where none arrive, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: Any) -> None:
        if ledger.stopping:
            raise KeyboardInterrupt
        ledger.stop(INTERRUPTED)
        say("stopping: running trials finish their epoch and keep a checkpoint (again to end at once)")

    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
