"""What a person sees while a sweep runs."""

from __future__ import annotations

import io
import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from sweep.cli.heartbeat import Heartbeat
from sweep.running.display import Display
from sweep.running.progress import SweepProgress
from sweep.running.state import PackState, StageState, SweepState
from sweep.running.state_text import duration, left, one_line, view
from trainables.errors import Failure


def state(**given: Any) -> SweepState:
    stages = [
        StageState("layer_selection", 24, 240.0, 240.0, ended={"done": 23, "failed": 1}),
        StageState("inductive_with_a_long_name", 378, 3780.0, 945.0, ended={"done": 80, "diverged": 3}),
        StageState("document_count", 60, 600.0, 0.0, waits_for="layer_selection"),
    ]
    packs = [
        PackState("EleutherAI/pythia-1.4b L17", 12, 25, 100.0 + n, epoch=7, loss=1.25, where=f"node-{n % 3} GPU {n}")
        for n in range(7)
    ]
    values: dict[str, Any] = {
        "name": "inductive", "phase": "running", "started": 100.0, "updated": 4000.0, "left_s": 7000.0,
        "stages": stages, "packs": packs, "best": "memory/nll 0.412 (pretrained 2.913): a1 part n449 L17 pythia-1.4b",
        "trouble": ["1 x data: wiki-001.jsonl line 7: a very long explanation of what is wrong with this line of it"],
    }  # fmt: skip
    return SweepState(**{**values, **given})


@pytest.mark.parametrize("width", [40, 80, 200])
def test_nothing_wraps(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    lines = console.render_lines(view(state(), "MLflow: " + "x" * 300), pad=False)
    assert len(lines) == 1 + 3 + 5 + 1 + 1 + 1 + 1, "head, stages, packs, best, ended, failed, note"
    for line in lines:
        assert sum(segment.cell_length for segment in line) <= width


def test_the_view_says_what_matters() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(view(state()))
    text = console.export_text()
    assert "inductive  1 h 05 min, about 2 h 00 min left" in text
    assert "25 %" in text and "83/378 trials" in text and "waits for layer_selection" in text
    assert "epoch 7/25  NLL 1.250  on node-0 GPU 0" in text and "and 3 more packs, on 7 devices" in text
    assert "memory/nll 0.412 (pretrained 2.913)" in text and "1 failed, 3 diverged" in text


def test_one_line_for_a_pipe() -> None:
    told = one_line(state(best=""), "MLflow: away")
    assert told == (
        "107/462 trials, 26 % of 4,620 trial-epochs, 84 running, 1 h 05 min, about 2 h 00 min left, 1 failed, "
        "3 diverged; MLflow: away"
    )


def test_times_are_rounded_as_people_say_them() -> None:
    assert [duration(s) for s in (7.4, 61, 3720, 200_000)] == ["7 s", "1 min 01 s", "1 h 02 min", "2 days 7 h"]
    assert left(state(left_s=None)) == "" and left(state(left_s=3.0)) == "about 5 s left"
    assert left(state(left_s=95.0)) == "about 2 min 00 s left"


def shown(display: Display, stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_pipe_gets_a_line_now_and_then_and_events_at_once() -> None:
    stream = io.StringIO()
    display = Display(SweepProgress("s"), stream, every_s=3600.0)
    with display:
        display.show()
        display.say("chosen: layer")
        display.show()
    assert shown(display, stream) == ["chosen: layer"]
    often = Display(SweepProgress("s"), stream, every_s=0.0)
    often.show("MLflow: away")
    assert "0/0 trials" in shown(often, stream)[-1] and "MLflow: away" in shown(often, stream)[-1]


def test_a_pipe_hears_when_trials_begin_and_when_the_first_step_is_done_with_dots_between(wait_until) -> None:
    stream = io.StringIO()
    with Heartbeat(True, stream, every_s=0.02) as beat:
        display = Display(SweepProgress("s"), stream, live=False, every_s=3600.0, beat=beat)
        with display:
            for _ in range(2):
                display.begin()
                display.show()
            wait_until(lambda: stream.getvalue().count(".") >= 3)
            for _ in range(2):
                display.step()
            before = stream.getvalue()
            threading.Event().wait(0.2)
            assert stream.getvalue() == before, "no dots between lines that say how far it is"
            display.say("chosen: layer")
        wait_until(lambda: stream.getvalue().endswith("."))
    begun, dots, first, chosen, more, *_ = stream.getvalue().splitlines()
    assert begun.startswith("trials begin") and "0/0 trials" in first and chosen == "chosen: layer"
    assert set(dots) == set(more) == {"."}


def test_a_terminal_has_no_dots_while_its_view_is_shown() -> None:
    stream, seen = io.StringIO(), io.StringIO()
    with Heartbeat(True, seen, every_s=0.02) as beat, Display(SweepProgress("s"), stream, live=True, beat=beat) as view:
        before = seen.getvalue()
        view.begin()
        view.step()
        threading.Event().wait(0.2)
        assert seen.getvalue() == before and "trials begin" not in stream.getvalue()


def test_a_failure_is_said_once_and_counted() -> None:
    stream = io.StringIO()
    display = Display(SweepProgress("s"), stream)
    error = {"class": "bug", "message": "broken", "traceback": "Traceback: here"}
    for _ in range(3):
        display.end_trial("failed", error)
    assert shown(display, stream) == ["failed (bug): broken", "Traceback: here"]
    assert display.summary() == ["3 x bug: broken"]
    for _ in range(2):
        display.failed_attempt(Failure(kind="device", message="CUDA error", host="n1", device="GPU 0"))
    assert shown(display, stream)[2:] == ["failed attempt on n1 GPU 0 (device): CUDA error"]


def test_verbose_says_every_one() -> None:
    stream = io.StringIO()
    display = Display(SweepProgress("s"), stream, verbose=True)
    for number in range(2):
        display.end_trial("failed", {"class": "bug", "message": "broken", "traceback": "T"}, f"trial {number}")
        display.end_trial("done", None, f"trial {number}")
    told = shown(display, stream)
    assert told.count("T") == 2 and "done: trial 0" in told and "done: trial 1" in told


def test_a_terminal_has_a_view_that_changes_and_lines_that_stay() -> None:
    stream = io.StringIO()
    display = Display(SweepProgress("sweep-of-mine"), stream, live=True)
    with display:
        display.say("chosen: [layer] 3")
        display.show()
    assert "chosen: [layer] 3" in stream.getvalue() and "sweep-of-mine" in stream.getvalue()
    display.say("after")
    assert stream.getvalue().endswith("after\n")


def test_a_pipe_hears_of_the_sweep_also_while_nothing_reports(wait_until) -> None:
    told = io.StringIO()
    display = Display(Mock(snapshot=lambda failures: state()), told, live=False, every_s=0.1)
    with display:
        time.sleep(0.3)
        assert not told.getvalue(), "until a first step is done there are dots instead"
        display.step()
        wait_until(lambda: told.getvalue().count("107/462 trials") >= 3)
    lines = told.getvalue()
    time.sleep(0.3)
    assert told.getvalue() == lines
