"""Lines and dots before trials run and after."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable

from sweep.cli.heartbeat import Heartbeat


def test_dots_come_while_nothing_is_said_and_never_stand_in_a_line(wait_until: Callable[..., None]) -> None:
    shown = io.StringIO()
    with Heartbeat(True, shown, every_s=0.02) as beat:
        beat.say("starting")
        wait_until(lambda: shown.getvalue().count(".") >= 3)
        beat.say("started")
        with beat.paused():
            before = shown.getvalue()
            threading.Event().wait(0.2)
            assert shown.getvalue() == before
        wait_until(lambda: shown.getvalue() != before)
    dots = r"\.[.\n]*\n"  # on a busy machine some lines of them
    assert re.fullmatch(rf"starting\n{dots}started\n{dots}", shown.getvalue())
    after = shown.getvalue()
    threading.Event().wait(0.1)
    assert shown.getvalue() == after, "nothing comes when it is over"


def test_a_long_wait_wraps_nowhere_and_quiet_is_quiet(wait_until: Callable[..., None]) -> None:
    shown, quiet = io.StringIO(), io.StringIO()
    with Heartbeat(True, shown, every_s=0.002), Heartbeat(False, quiet, every_s=0.002) as silent:
        silent.say("no")
        wait_until(lambda: shown.getvalue().count(".") > 130)
    assert max(map(len, shown.getvalue().split("\n"))) == 60 and quiet.getvalue() == ""


def test_a_terminal_that_was_closed_ends_the_dots_and_nothing_else(wait_until: Callable[..., None]) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    with Heartbeat(True, Closed(), every_s=0.01) as beat:
        wait_until(lambda: not beat._thread.is_alive())
