"""Sweeps of different names on one storage: no trial twice, none lost, also when one of them dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.plan_of import plan_of
from sweep.records import lease
from sweep.records.sweep_storage import SweepStorage
from sweep.running import other_sweeps
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.space import ALL, Space, Stage, checked
from tests.rows import OpenRow

ROOT = Path(__file__).resolve().parents[3]
SPACE = checked(
    Space(
        name="flat",
        title="flat",
        axes={"lr": [1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 6e-4]},
        fixed={"model": "sample-llama", "allocation": "partitioned", "num_documents": 2, "layer": 1},
        stages=(Stage(name="all", axes={"lr": ALL}),),
    )
)
HELD = """
import sys, time
from sweep.records.sweep_storage import SweepStorage
storage = SweepStorage(sys.argv[1])
with storage.lock("dying"):
    print(repr(storage.claims("dying").take(sys.argv[2])), flush=True)
    time.sleep(60)
"""
FILE = """
from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="flat", title="two trials", axes={"layer": [0, 2]},
    fixed={"model": %(model)r, "data": %(data)r, "memory_dim": 16, "epochs": 3, "segment_tokens": 32,
           "num_documents": 2, "claims_per_page": 1},
    stages=(Stage(name="all", axes={"layer": ALL}),),
)
"""


@pytest.fixture(params=["folder", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "out")
    return f"s3://bucket/{uuid.uuid4().hex}?{request.getfixturevalue('s3_options')}"


@pytest.fixture(autouse=True)
def _ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_sweeps, "ASK_AGAIN_S", 0.0)


class Run:
    """A run of the space under a name, which it has locked, with packs of so many trials."""

    def __init__(self, address: str, name: str, size: int = 1, retry_failed: bool = False) -> None:
        self.storage, self.said = SweepStorage(address), []
        self.lock = self.storage.lock(name)
        self.lock.__enter__()
        index = self.storage.index()
        plan = plan_of(SPACE, index, {}, self.storage, name, retry_failed=retry_failed)
        packing = Packing(lambda point: size, 1)
        self.ledger = Ledger(plan, self.storage, name, index, {}, packing, retry_failed, self.said.append)

    def take(self) -> tuple[str, list[str]] | None:
        found = self.ledger.next_pack()
        return None if found is None else (found[0].id, list(found[1]))

    def finish(self, taken: tuple[str, list[str]], status: str = "done") -> None:
        error = {"class": "bug", "message": "broken"} if status == "failed" else None
        for trial in taken[1]:
            self.ledger.finish(
                taken[0], {"id": trial, "status": status, "metrics": {"memory/nll": 1.0}, "error": error}
            )
        self.ledger.end_pack(taken[0])

    def end(self) -> None:
        self.ledger.release_all()
        self.lock.__exit__(None, None, None)


def records(address: str) -> dict[str, list[str]]:
    """Trial id -> the sweeps that have a record of it."""
    storage, found = SweepStorage(address), {}
    for name in storage.folders():
        for path in storage.find(f"{name}/trains", "record.json"):
            if "/probes/" not in path:
                found.setdefault(path.split("/")[-2], []).append(name)
    return found


def test_two_sweeps_take_turns_and_run_every_trial_once(address: str) -> None:
    one, two = Run(address, "one"), Run(address, "two")
    pairs = [(one, one.take()), (two, two.take())]
    assert pairs[0][1][1] != pairs[1][1][1]
    ran: dict[str, list[str]] = {"one": [], "two": []}
    while pairs:
        run, taken = pairs.pop(0)
        assert taken
        run.finish(taken)
        ran[run.ledger.name] += taken[1]
        if (more := run.take()) is not None:
            pairs.append((run, more))
    assert one.take() is None and two.take() is None and one.ledger.exhausted and two.ledger.exhausted
    assert len(ran["one"]) >= 2 and len(ran["two"]) >= 2 and not set(ran["one"]) & set(ran["two"])
    found = records(address)
    assert len(found) == 6 and all(len(names) == 1 for names in found.values())
    for run in (one, two):
        assert run.ledger.outcome() == {"done": 6, "stopped": 0, "diverged": 0, "failed": 0, "missing": 0}
        run.end()
    assert SweepStorage(address).find(".claims", "record.json") == [] and not any(
        SweepStorage(address).exists(f".claims/{trial}.json") for trial in found
    )


def test_what_another_sweep_is_running_is_waited_for_and_a_pack_goes_without_it(address: str) -> None:
    one, two = Run(address, "one"), Run(address, "two", size=6)
    first = one.take()
    rest = two.take()
    assert first and rest and len(rest[1]) == 5 and not set(first[1]) & set(rest[1])
    two.finish(rest)
    assert two.take() is None and not two.ledger.exhausted
    assert [line for line in two.said if "sweep one is running trials" in line] == two.said
    one.finish(first)
    assert two.take() is None and two.ledger.exhausted and two.ledger.outcome()["done"] == 6
    one.end()
    two.end()


def test_a_trial_that_ends_without_a_record_is_run_by_who_waits_for_it(address: str) -> None:
    one, two = Run(address, "one", size=6), Run(address, "two", size=6)
    first = one.take()
    assert first and two.take() is None
    one.ledger.stop("interrupted")
    one.ledger.end_pack(first[0])
    assert len((two.take() or ("", []))[1]) > 0
    one.end()
    two.end()


def test_claims_of_a_run_that_ends_in_the_middle_are_given_back(address: str) -> None:
    one, two = Run(address, "one", size=6), Run(address, "two")
    assert one.take() and two.take() is None
    one.end()
    assert two.take()
    two.end()


def test_a_failed_trial_of_another_sweep_is_run_again_only_when_asked(address: str) -> None:
    one, two, three = (Run(address, name, size=6, retry_failed=name == "three") for name in ("one", "two", "three"))
    first = one.take()
    assert first
    one.finish(first, "failed")
    assert two.take() is None and two.ledger.outcome()["failed"] == 6
    assert three.take()
    for run in (one, two, three):
        run.end()


def test_the_claim_of_a_dead_run_is_taken_over(address: str, row: OpenRow) -> None:
    row("a sweep that others wait for is dead", 1, "its claims are taken over")
    run = Run(address, "one")
    trial = run.ledger.backlog.queue.packs[0].points[0].id
    with subprocess.Popen(
        [sys.executable, "-c", HELD, address, trial], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as dying:
        assert dying.stdout and dying.stdout.readline() == "''\n"
        claims = run.storage.claims("one")
        assert claims and claims.take(trial) == "dying"
        dying.kill()
        dying.wait(10)
        assert claims.take(trial) == "" and claims.take(trial) == ""
    for left in (b"not a claim", b""):  # a machine that lost power leaves an empty file
        run.storage.write(f".claims/{trial}.json", left)
        assert claims.take(trial) == ""
    run.end()


def test_a_claim_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, flushed = Run(str(tmp_path), "one"), list[int]()
    claims = run.storage.claims("one")
    monkeypatch.setattr(os, "fsync", flushed.append)
    assert claims and claims.take("x") == "" and not flushed
    run.storage.write("one/record.json", b"{}")
    assert flushed
    run.end()


def test_of_two_that_take_over_a_dead_runs_claim_one_has_it(address: str) -> None:
    one, two = Run(address, "one"), Run(address, "two")
    one.storage.write(".claims/x.json", json.dumps({"sweep": "gone", "token": "t"}).encode())
    first, second = one.storage.claims("one"), two.storage.claims("two")
    assert first and second and [first.take("x"), second.take("x")] == ["", "one"]
    one.end()
    two.end()


@pytest.mark.thorough(
    beside="tests/sweep/records/test_locks.py::test_a_take_over_between_reading_a_version_and_writing_is_noticed"
)
def test_a_run_that_has_lost_its_lock_gets_no_more_packs(s3_options: str) -> None:
    run = Run(f"s3://bucket/{uuid.uuid4().hex}?{s3_options}", "one")
    taken = run.take()
    assert taken
    found = json.loads(run.storage.read("one/.lease.json"))
    other = {**found, "holder": {**found["holder"], "token": "another", "host": "elsewhere"}}
    SweepStorage(run.storage.uri).write("one/.lease.json", json.dumps(other).encode())
    run.storage._holds["one"]._sure_until = 0.0
    with pytest.raises(lease.LockLost, match="elsewhere"):
        run.take()
    with pytest.raises(lease.LockLost):
        run.finish(taken)
    assert records(run.storage.uri) == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_commands_at_once_record_every_trial_once(
    tmp_path: Path, tiny_models: Any, sample_data: Path, row: OpenRow
) -> None:
    row("two sweeps of different names on one storage at once", 2, "every trial is recorded once")
    space = tmp_path / "space.py"
    space.write_text(FILE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    run = [sys.executable, "-m", "sweep.run", str(space), "--executor", "local", "--device", "cpu", "--cpus-per-trial",
           "1", "--no-report", "--storage", str(tmp_path / "out"),
           "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]  # fmt: skip
    both = []
    for name in ("one", "two"):
        both.append(subprocess.Popen([*run, "--name", name], cwd=ROOT, stdout=subprocess.PIPE, text=True))
        time.sleep(0.2)
    out = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], out
    found = records(str(tmp_path / "out"))
    assert len(found) == 2 and all(len(names) == 1 for names in found.values()), out
