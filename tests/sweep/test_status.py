"""`memory-sweep status`: what a storage tells of its sweeps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweep.records.sweep_storage import SweepStorage
from sweep.running.state import STATE_FILE, StageState, SweepState
from sweep.status import app


@pytest.fixture
def storage(tmp_path: Path) -> SweepStorage:
    storage = SweepStorage(str(tmp_path / "out"))
    storage.write_json("mine/plan.json", {"stages": [{"name": "grid", "ids": ["a", "b"], "points": 2}]})
    return storage


def told(storage: SweepStorage, *words: str) -> str:
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, done.output
    return done.output


def running(updated: float) -> dict[str, Any]:
    state = SweepState("mine", "running", updated - 90, updated, left_s=600.0)
    state.stages = [StageState("grid", 2, 20.0, 5.0, ended={"done": 1})]
    return state.to_dict()


def test_a_sweep_that_runs(storage: SweepStorage) -> None:
    storage.write_json(f"mine/{STATE_FILE}", running(time.time()))
    with storage.lock("mine"):
        text = told(storage, f"{storage.uri}/mine")
    assert "1 min 30 s, about 10 min 00 s left" in text and "1/2 trials" in text and "25 %" in text
    assert "run by pid" in text and "ago" not in text


def test_a_driver_that_is_silent_or_gone_is_said(storage: SweepStorage) -> None:
    storage.write_json(f"mine/{STATE_FILE}", running(time.time() - 700))
    with storage.lock("mine"):
        assert "it said this 11 min" in " ".join(told(storage, f"{storage.uri}/mine").split())
    assert "no run works on it now" in told(storage, f"{storage.uri}/mine")


def test_without_a_state_the_records_are_counted(storage: SweepStorage) -> None:
    for broken in (None, b"", b"{", b'{"stages": 3}', b'{"name": "mine"}', b"[1]"):
        if broken is not None:
            storage.write(f"mine/{STATE_FILE}", broken)
        assert "0/2 trials" in told(storage, f"{storage.uri}/mine")


def test_all_sweeps_of_a_storage_a_line_each_and_as_json(storage: SweepStorage) -> None:
    storage.write_json("other/plan.json", {"stages": []})
    assert [line.partition(":")[0] for line in told(storage, storage.uri).splitlines()] == ["mine", "other"]
    found = json.loads(told(storage, storage.uri, "--json"))
    assert [one["name"] for one in found] == ["mine", "other"] and found[0]["run_by"] == ""
    assert json.loads(told(storage, f"{storage.uri}/mine", "--json"))["stages"][0]["trials"] == 2


def test_lines_in_a_pipe_are_whole(storage: SweepStorage) -> None:
    storage.write_json("other/plan.json", {"stages": []})
    state = {**running(time.time()), "best": "memory/nll 1.377 (pretrained 2.741): " + "a" * 200}
    storage.write_json(f"mine/{STATE_FILE}", state)
    assert any(line.startswith("mine: ") and "a" * 200 in line for line in told(storage, storage.uri).splitlines())


def test_nothing_is_written(storage: SweepStorage, tmp_path: Path) -> None:
    storage.write("mine/trains/lm_x/record.json", b"broken")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    told(storage, storage.uri)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_no_sweep_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [str(tmp_path)])
    assert done.exit_code == 2 and "no sweep there" in done.stderr
