"""`memory-sweep ctl`: what it refuses, what it writes, and what a run makes of it, also after a driver was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweep import run_sweep
from sweep.ctl import app
from sweep.planning.kept_space import keep_space, kept_space, plain_space
from sweep.planning.load import load_space, shipped_spaces
from sweep.planning.plan_of import plan_of
from sweep.records.steering import (
    ADD,
    CLONE,
    NOTHING_ASKED,
    PAUSE,
    RESUME,
    STOP,
    Wish,
    new_wish,
    read_steering,
    remove_wish,
    waiting_wishes,
    write_steering,
    write_wish,
)
from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.running.wishes import Wishes
from tests.sweep.running.test_ledger import SPACE, give, open_ledger, take

ROOT = Path(__file__).resolve().parents[2]


def said(place: str, *words: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, [place, *words])
    assert done.exit_code == status, done.output
    return done.output


@pytest.fixture
def staged(tmp_path: Path) -> str:
    """A planned sweep, no trial of it run."""
    open_ledger(tmp_path)
    keep_space(SweepStorage(str(tmp_path)), "staged", SPACE, None)
    return f"{tmp_path}/staged"


def first_trial(place: str) -> str:
    return str(json.loads(Path(place, "plan.json").read_text())["stages"][0]["ids"][0])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("paus",), "no command 'paus', did you mean 'pause'?"),
        (("pause", "abcd"), "pause is for the whole sweep"),
        (("pause", "--set", "alpha=1"), "has no use for --set"),
        (("stop", "abcd", "--stage", "most"), "has no use for --stage"),
        (("add",), "say what is to be different"),
        (("clone", "--set", "alpha=1"), "say which trial"),
        (("stop", "zz"), "at least 4 characters"),
        (("stop", "zzzzzz"), "trial 'zzzzzz': none of"),
        (("resume",), "is not paused"),
        (("finish-early",), "no run works on it"),
        (("add", "--set", "alhpa=1"), "alpha"),
        (("add", "--set", "alpha=minus"), "alpha='minus'"),
        (("add", "--set", "alpha=-1"), "alpha=-1"),
        (("add", "--set", "layer=99"), "layer=99"),
        (("add", "--set", "alpha"), "must be FIELD=VALUE"),
        (("add", "--set", "alpha=0,1.0"), "in the sweep already"),
        (("add", "--set", "alpha=3", "--stage", "mots"), "stage 'mots'"),
        (("add", "--set", "num_documents=5000", "--set", "memory_dim=8000"), "num_documents=5000: the data has 60"),
        (("add", "--set", "model=no/such/folder"), "no/such/folder"),
    ],
)
def test_a_mistake_is_a_line_and_asks_nothing(staged: str, words: tuple[str, ...], told: str) -> None:
    text = " ".join(said(staged, *words, status=2).split())
    assert told in text and text.startswith("error:") and "Traceback" not in text
    assert not list(Path(staged).glob("wishes/*"))


def test_what_is_asked_while_nothing_runs_waits_for_the_next_run(staged: str) -> None:
    trial = first_trial(staged)
    assert "the next one will do it: pause" in said(staged, "pause")
    assert "is paused already" in said(staged, "pause")
    said(staged, "stop", trial[:8])
    said(staged, "add", "--set", "alpha=2", "--stage", "most")
    assert "means nothing to this trial" in said(staged, "clone", trial, "--set", "alpha=7", status=2)
    said(staged, "clone", trial, "--set", "alpha=7", "--set", "allocation=partitioned", "--set", "memory_dim=8,16")
    storage = SweepStorage(str(Path(staged).parent))
    pause, stop, add, clone = waiting_wishes(storage, "staged")
    assert (pause.command, stop.trial, add.settings, clone.trial) == (PAUSE, trial, ("alpha=2",), trial)
    assert [point["memory_dim"] for point in clone.points] == [8, 16] and "@" in add.by
    said(staged, "resume")
    ledger, lines = steered(Path(staged).parent)
    taken = take(ledger)
    assert not waiting_wishes(storage, "staged") and len(read_steering(storage, "staged").wishes) == 5
    begun = [record for _, record in taken]
    assert trial not in {record["id"] for record in begun} and ledger.backlog.known.statuses[trial] == "stopped"
    clones = [record for record in begun if record["stage"] == "clones"]
    assert {(r["identity"]["alpha"], r["identity"]["memory_dim"]) for r in clones} == {(7.0, 8), (7.0, 16)}
    assert all(record["labels"]["cloned_from"] == trial for record in clones)
    for pack, record in taken:
        give(ledger, pack, record, **{"memory/nll": 1.0})
    later = [record for _, record in take(ledger)]
    added = [record for record in later if record["identity"]["alpha"] == 2.0]
    assert len(added) == 2 and {record["stage"] for record in added} == {"most"}
    assert all(record["labels"]["added_as"] == "add --set alpha=2 --stage most" for record in added)
    assert not any(record["labels"] for record in later if record["identity"]["alpha"] != 2.0)


def steered(folder: Path) -> tuple[Any, list[str]]:
    """A ledger of the space that has heard what was asked."""
    ledger, lines = open_ledger(folder)
    ledger.steering = read_steering(ledger.storage, "staged")

    def more(steering: Any) -> Any:
        return plan_of(
            SPACE,
            ledger.backlog.known.index,
            ledger.backlog.choosing.choices,
            ledger.storage,
            "staged",
            steering=steering,
        )

    Wishes(ledger, lines.append, more).hear(at_once=True)
    return ledger, lines


def test_a_run_refuses_in_words_what_it_cannot_do_and_goes_on(staged: str) -> None:
    storage = SweepStorage(str(Path(staged).parent))
    for wish in (new_wish(ADD, settings=("layer=99",)), new_wish(RESUME, trial="nobody"), new_wish(STOP, trial="x")):
        write_wish(storage, "staged", wish)
    write_wish(storage, "staged", replace(new_wish(CLONE, trial="x", settings=("lr=1",)), points=({"model": ["?"]},)))
    write_wish(storage, "staged", replace(new_wish(CLONE, trial="x", settings=("lr=1",)), points=({"nothing": 1},)))
    storage.write("staged/wishes/0-broken.json", b"{half")
    storage.write("staged/wishes/1-strange.json", json.dumps({"command": "explode", "by": "x", "at": "y"}).encode())
    ledger, lines = steered(Path(staged).parent)
    assert not waiting_wishes(storage, "staged") and take(ledger)
    told = [(wish.command, wish.refused) for wish in read_steering(storage, "staged").wishes]
    assert told == [("?", True)] * 2 + [(ADD, True), (RESUME, True), (STOP, False), (CLONE, True), (CLONE, True)]
    assert any("layer=99" in line and "refused" in line for line in lines)


def test_a_wish_is_done_once_though_its_file_comes_back(staged: str) -> None:
    storage = SweepStorage(str(Path(staged).parent))
    write_wish(storage, "staged", new_wish(PAUSE))
    (file,) = Path(staged).glob("wishes/*.json")
    content = file.read_bytes()
    ledger, _ = steered(Path(staged).parent)
    assert take(ledger) == [] and not ledger.exhausted
    write_wish(storage, "staged", new_wish(RESUME))
    steered(Path(staged).parent)
    file.write_bytes(content)
    ledger, _ = steered(Path(staged).parent)
    assert take(ledger) and len(read_steering(storage, "staged").wishes) == 2 and not file.exists()


def test_what_was_added_is_there_in_the_next_plan_and_a_broken_list_is_refused(staged: str) -> None:
    storage = SweepStorage(str(Path(staged).parent))
    wish = Wish("1", ADD, "me@here", "2026-01-01T00:00:00+00:00", settings=("alpha=2",), taken_at="x")
    before = plan_of(SPACE, storage.index(), {}, storage, "staged")
    write_steering(storage, "staged", NOTHING_ASKED.having(wish))
    after = plan_of(SPACE, storage.index(), {}, storage, "staged")
    assert sum(s.num_points for s in after.stages) == sum(s.num_points for s in before.stages) + 2 * 2
    assert {stage.name for stage in after.stages} == {stage.name for stage in before.stages}
    Path(staged, "steering.json").write_text("{half")
    done = CliRunner().invoke(app, [staged, "add", "--set", "alpha=2"])
    assert done.exit_code in (0, 2) and "Traceback" not in done.output


def test_wishes_travel_through_an_object_store_too(s3_options: str) -> None:
    storage = SweepStorage(f"s3://bucket/steered?{s3_options}")
    write_wish(storage, "mine", new_wish(ADD, settings=("alpha=2",), stage="most"))
    with storage.lock("mine"):
        (wish,) = waiting_wishes(storage, "mine")
        for outcome in ("2 trials more", "2 trials more, again"):
            write_steering(storage, "mine", NOTHING_ASKED.having(replace(wish, taken_at="now", outcome=outcome)))
        (taken,) = read_steering(storage, "mine").wishes
        assert (taken.settings, taken.stage, taken.outcome) == (("alpha=2",), "most", "2 trials more, again")
        assert waiting_wishes(storage, "mine", {wish.id}) == []
        remove_wish(storage, "mine", wish)
        assert waiting_wishes(storage, "mine") == []


def test_every_shipped_space_is_kept_as_it_is(tmp_path: Path) -> None:
    storage = SweepStorage(str(tmp_path))
    for name, file in shipped_spaces().items():
        space = load_space(file)
        keep_space(storage, name, space, None)
        again, until = kept_space(storage, name)
        assert until is None and plain_space(again) == plain_space(space)
        assert [stage.take for stage in again.stages] == [stage.take for stage in space.stages]


SWEEP = ("--executor", "local", "--device", "cpu", "--pack-size", "1", "--no-baseline", "--quiet")
FIELDS = ("model=sample-llama", "depth=0.5,1.0", "alpha=0", "allocation=partitioned", "num_documents=12", "epochs=20")


@pytest.mark.slow
def test_what_is_asked_after_the_end_is_done_by_the_next_run_though_nothing_else_is_left(tmp_path: Path) -> None:
    def run() -> Any:
        settings = ("model=sample-llama", "depth=0.5", "num_documents=4", "epochs=1")
        more = {"executor": "local", "device": "cpu", "baseline": False, "stage": "layer_selection"}
        return run_sweep("sample", tmp_path, settings=settings, **more)

    assert run().num_run == 1 and run().num_run == 0
    said(f"{tmp_path}/sample", "add", "--set", "lr=0.01,0.02")
    results = run()
    assert results.num_run == 2 and len(results.rows) == 3 and results.exit_code == 0
    assert run().num_run == 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_driver_that_is_killed_leaves_what_was_asked_to_the_next(
    tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    out, place = tmp_path / "out", f"{tmp_path}/out/sample"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    sets = [word for field in FIELDS for word in ("--set", field)]
    command = [sys.executable, "-m", "sweep.run", "sample", "--storage", str(out), "--stage", "layer_selection"]
    storage = SweepStorage(str(out))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen([*command, *SWEEP, *sets], env=env, text=True, stdout=-1, stderr=subprocess.STDOUT)

    def running() -> list[str]:
        return [line.split()[0] for line in said(place, "stop").splitlines() if "no trial" not in line]

    run = start()
    try:
        wait_until(lambda: storage.is_sweep("sample") and bool(running()), 120.0)
        (trial,) = running()
        assert "keep a checkpoint" in said(place, "pause", "--wait", "60")
        wait_until(lambda: storage.files("sample/checkpoints") != [], 60.0)
        refused = subprocess.run([*command, *SWEEP], env=env, text=True, capture_output=True, timeout=120)
        assert refused.returncode == 2 and "ctl" in refused.stderr and "add --set" in refused.stderr
        assert "2 trials more" in said(place, "add", "--set", "lr=0.001", "--wait", "60")
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert "the next one will do it" in said(place, "stop", trial)
        run = start()
        wait_until(lambda: bool(read_steering(storage, "sample").stopped), 120.0)
        time.sleep(1.0)
        assert read_steering(storage, "sample").paused and not running(), "still paused, by what was asked of the first"
        assert "goes on" in said(place, "resume", "--wait", "60")
        told, _ = run.communicate(timeout=900)
    finally:
        run.kill()
    heads = {head.id: head for head in storage.index().values()}
    assert heads[trial].status == "stopped" and len(heads) == 4, told
    assert sum(head.status == "done" for head in heads.values()) == 3
    labels = [head.record()["labels"] for head in heads.values()]
    assert sum(bool(label) for label in labels) == 2 and run.returncode == 0
    choices = read_sweep_file(storage, "sample", CHOICES) or {}
    assert not choices, "the run was for one stage only"
