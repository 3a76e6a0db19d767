"""The main command, on a real local Ray: to the end, again, killed, interrupted, twice at once, with bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sweep.records.sweep_storage import SweepStorage
from trainables.trial.identity import training_id

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
from sweep.space import ALL, LARGEST, OTHERS, Best, Space, Stage

best = Best(field="layer", stage="select", per=("model",))
both = {"model": ALL, "alpha": ALL, "allocation": ALL}
space = Space(
    baseline=False,
    name="tiny",
    title="a tiny staged study",
    axes={"model": %(models)r, "layer": [0, 2], "alpha": [0, 1.0], "allocation": ["partitioned", "simset2"],
          "num_documents": [2, 3]},
    fixed={"data": %(data)r, "memory_dim": 16, "epochs": %(epochs)d, "segment_tokens": 32, "claims_per_page": 1,
           "checkpoint_every_s": 0},
    stages=(
        Stage(name="select", axes={"model": ALL, "layer": ALL, "num_documents": LARGEST}, fixed={"alpha": 0}),
        Stage(name="inductive", axes=both | {"num_documents": LARGEST}, take=best),
        Stage(name="count", axes=both | {"num_documents": OTHERS}, take=best),
    ),
)
"""
TRIALS = 2 * (2 + 2 + 3)


def write_space(folder: Path, tiny_models, sample_data, epochs: int = 2, text: str = SPACE) -> Path:
    path = folder / "space.py"
    path.write_text(
        text % {"models": [str(p) for p in tiny_models.values()], "data": str(sample_data), "epochs": epochs}
    )
    return path


ONE_PACK = [sys.executable, "-m", "sweep.run", "--max-concurrent", "1", "--no-report"]


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "sweep.run", *map(str, args), "--max-concurrent", "2"]


def run(*args: object, timeout: int = 240, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "MLFLOW_TRACKING_URI": "", **env},
    )


def train_points(storage: Path) -> int:
    """Epochs that have reached MLflow."""
    import sqlite3

    try:
        with sqlite3.connect(f"file:{storage / 'mlflow.db'}?mode=ro", uri=True) as database:
            return int(database.execute("select count(*) from metrics where key = 'train/nll'").fetchone()[0])
    except sqlite3.Error:
        return 0


def records(storage: Path) -> dict[str, dict]:
    return {trial: head.record() for trial, head in SweepStorage(str(storage)).index(set_aside=False).items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_models, sample_data):
    """A sweep that ran to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    space = write_space(folder, tiny_models, sample_data)
    return space, folder / "out", run(space, "--storage", folder / "out")


@pytest.mark.thorough(beside="tests/sweep/test_faces.py::test_a_sweep_is_planned_run_and_read_without_printing")
def test_a_staged_sweep_runs_to_its_end(finished):
    _, storage, done = finished
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(storage)
    assert len(found) == TRIALS
    assert {r["status"] for r in found.values()} == {"done"}
    assert "Traceback" not in done.stdout + done.stderr
    told = json.loads((storage / "tiny" / "report" / "conclusions.json").read_text())["conclusions"]
    answer = next(iter(told.values()))
    printed = done.stdout.splitlines()
    place = printed.index(f"answer:   {answer[0]}")
    assert [line.strip() for line in printed[place + 1 : place + len(answer[:2])]] == answer[1:2]
    assert f"report:   {storage}/tiny/report/report.html" in printed and any("MLflow:" in line for line in printed)
    page = (storage / "tiny" / "report" / "report.html").read_text()
    assert all(part in page for part in ("Does memorising help?", answer[0].split(":")[0]))
    table = pq.read_table(storage / "tiny" / "results.parquet")
    assert table.num_rows == TRIALS
    choices = json.loads((storage / "tiny" / "choices.json").read_text())
    assert len(choices) == 2
    for choice in choices.values():
        metrics = {c["value"]: c["metric"] for c in choice["runners_up"]} | {choice["value"]: choice["metric"]}
        assert set(metrics) == {0, 2} and choice["metric"] == min(metrics.values())
    for record in found.values():
        folder = next(storage.rglob(training_id(record["identity"])))
        assert (folder / "memory.safetensors").is_file()
        assert pq.read_table(storage / record["answers"]["fever"]).num_rows == record["counts"]["n_trunc"]
        assert record["versions"]["torch"] and record["timings"]["pack_size"] >= 1


@pytest.mark.thorough(beside="tests/sweep/test_publish.py::test_every_record_gets_one_whole_run_and_the_sweep_another")
def test_the_mlflow_store_has_one_complete_flat_run_per_trial(finished):
    from mlflow import MlflowClient

    _, storage, _ = finished
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "memory-sweep"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert len(runs) == TRIALS + 1
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert not any("mlflow.parentRunId" in r.data.tags for r in runs)


@pytest.mark.thorough(beside="tests/sweep/running/test_executors.py::test_what_is_recorded_is_not_run_again")
def test_the_same_command_again_runs_nothing_and_changes_nothing(finished):
    space, storage, _ = finished
    before = {p: p.read_bytes() for p in storage.rglob("record.json")}
    again = run(space, "--storage", storage)
    assert again.returncode == 0 and "0 trials to run" in again.stdout, again.stdout + again.stderr
    assert {p: p.read_bytes() for p in storage.rglob("record.json")} == before


@pytest.mark.thorough(beside="tests/sweep/running/test_claims.py::test_two_sweeps_take_turns_and_run_every_trial_once")
def test_another_space_with_the_same_points_reuses_their_records(finished):
    space, storage, _ = finished
    other = run(space, "--storage", storage, "--name", "other", "--plan", "--json")
    assert json.loads(other.stdout)["trials_to_run"] == 0


@pytest.mark.thorough(
    beside="tests/sweep/running/test_executors.py::test_an_interrupted_run_keeps_checkpoints_and_the_next_one_goes_on_from_them"
)
def test_a_killed_driver_loses_nothing_and_the_next_run_finishes(tmp_path, tiny_models, sample_data):
    space = write_space(tmp_path, tiny_models, sample_data, epochs=6)
    storage = tmp_path / "out"
    few = ("--storage", storage, "--no-report", "--set", f"model={tiny_models['llama']}")
    driver = subprocess.Popen(
        command(space, *few),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not records(storage):
        assert driver.poll() is None, "it ended without a record"
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    kept = records(storage)
    assert 0 < len(kept) < TRIALS // 2
    done = run(space, *few)
    assert done.returncode == 0, done.stdout + done.stderr
    found = records(storage)
    assert len(found) == TRIALS // 2
    assert all(found[key] == record for key, record in kept.items())
    assert not list((storage / "tiny" / "checkpoints").glob("*"))


@pytest.mark.parametrize("executor", [pytest.param("ray", marks=pytest.mark.slow), "local"])
@pytest.mark.thorough(
    beside="tests/sweep/running/test_executors.py::test_an_interrupted_run_keeps_checkpoints_and_the_next_one_goes_on_from_them"
)
def test_ctrl_c_keeps_checkpoints_and_what_is_recorded(tmp_path, tiny_models, sample_data, executor):
    space = write_space(tmp_path, tiny_models, sample_data, epochs=4000)
    storage = tmp_path / "out"
    driver = subprocess.Popen(
        [*ONE_PACK, space, "--executor", executor, "--storage", storage, "--set", "checkpoint_every_s=1000"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    while not train_points(storage):
        assert driver.poll() is None, "it ended before an epoch reached MLflow"
        time.sleep(0.1)
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=90)
    assert driver.returncode == 130, out
    assert "Traceback" not in out, out
    assert list((storage / "tiny" / "checkpoints").glob("*.safetensors")), out


def test_two_runs_at_once_on_one_name_the_second_says_so(tmp_path, tiny_models, sample_data):
    space = write_space(tmp_path, tiny_models, sample_data)
    from sweep.records.sweep_storage import SweepStorage

    with SweepStorage(str(tmp_path / "out")).lock("tiny"):
        second = run(space, "--storage", tmp_path / "out")
    assert second.returncode == 2
    assert str(os.getpid()) in second.stderr and len(second.stderr.strip().splitlines()) == 1


def test_an_unreachable_cluster_is_said_before_anything_is_prepared(tmp_path, tiny_models, sample_data):
    space = write_space(tmp_path, tiny_models, sample_data)
    cache = tmp_path / "cache"
    done = run(space, "--storage", tmp_path / "out", "--address", "127.0.0.1:1", MEMORY_SWEEP_CACHE=str(cache))
    assert done.returncode == 2 and "127.0.0.1:1" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not cache.exists() and not records(tmp_path / "out")
