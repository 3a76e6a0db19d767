"""A sweep whose storage is a bucket: driver and workers, each a process of its own, on a real S3 server."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sweep.ctl import app
from sweep.records.sweep_storage import SweepStorage
from sweep.running.state import SweepState, read_state

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="tiny",
    title="two trials",
    axes={"model": [%(model)r], "layer": [0, 2]},
    fixed={"data": %(data)r, "memory_dim": 16, "epochs": 2, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "checkpoint_every_s": 0},
    stages=(Stage(name="all", axes={"model": ALL, "layer": ALL}),),
)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_sweep_in_a_bucket_runs_to_its_end_and_again(tmp_path, tiny_models, sample_data, s3_options):
    def run() -> str:
        command = [sys.executable, "-m", "sweep.run", str(tmp_path / "space.py"), "--storage", storage.uri]
        env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "space.py").write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    storage = SweepStorage(f"s3://bucket/sweeps?{s3_options}")
    assert "2 trials to run" in run()
    index = storage.index()
    assert {head.status for head in index.values()} == {"done"} and len(index) == 2
    for head in index.values():
        answers = pq.read_table(io.BytesIO(storage.read(head.record()["answers"]["fever"])))
        assert answers.num_rows == head.record()["counts"]["n_trunc"]
        assert storage.exists(f"{head.folder}/memory.safetensors")
    assert storage.find("tiny/checkpoints", f"{next(iter(index))}.safetensors") == []
    before = {head.folder: storage.read_version(f"{head.folder}/record.json") for head in index.values()}
    assert "0 trials to run" in run()
    assert {folder: storage.read_version(f"{folder}/record.json") for folder in before} == before
    assert json.loads(storage.read("tiny/plan.json"))["stages"][0]["points"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_that_was_paused_while_another_took_over_ends_and_changes_nothing(
    tmp_path, tiny_models, sample_data, s3_options, row, request
):
    row("a run on S3 is paused (SIGSTOP) while another takes over", 1, "exit 1, one line, changes nothing")
    space = tmp_path / "space.py"
    text = SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)}
    space.write_text(text.replace('"epochs": 2', '"epochs": 30'))
    storage = SweepStorage(f"s3://bucket/taken?{s3_options}")
    code = "import sys; from sweep.records import lease; lease.LEASE_S = 4.0\nfrom sweep.run import app; app()"
    command = [
        sys.executable,
        "-c",
        code,
        str(space),
        "--storage",
        storage.uri,
        "--executor",
        "local",
        "--cpus-per-trial",
    ]
    command += ["1", "--pack-size", "1", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    request.addfinalizer(first.kill)
    end = time.monotonic() + 500
    while not storage.exists("tiny/plan.json"):
        assert first.poll() is None and time.monotonic() < end, first.communicate()
        time.sleep(0.1)
    first.send_signal(signal.SIGSTOP)
    time.sleep(7)
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert second.returncode == 0, second.stdout + second.stderr
    files = {path: storage.read_version(f"tiny/{path}") for path in ("plan.json", "results.parquet", ".lease.json")}
    files |= {head.folder: storage.read_version(f"{head.folder}/record.json") for head in storage.index().values()}
    first.send_signal(signal.SIGCONT)
    told = "".join(first.communicate(timeout=120))
    (line,) = [line for line in told.splitlines() if line.startswith(("stopped:", "error:"))]
    assert first.returncode == 1 and "writes nothing more" in line and "Traceback" not in told, told
    now = {path: storage.read_version(f"tiny/{path}") for path in ("plan.json", "results.parquet", ".lease.json")}
    now |= {head.folder: storage.read_version(f"{head.folder}/record.json") for head in storage.index().values()}
    assert now == files and len(now) >= 5


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_sweep_in_a_bucket_is_paused_added_to_stopped_in_part_and_resumed(
    tmp_path, tiny_models, sample_data, s3_options, request
):
    """All through files in the bucket, as from another machine; the run looks for them every five seconds."""
    space = tmp_path / "space.py"
    text = SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)}
    space.write_text(text.replace('"epochs": 2', '"epochs": 300'))
    storage = SweepStorage(f"s3://bucket/steered?{s3_options}")

    def ctl(*words: str) -> str:
        done = CliRunner().invoke(app, [storage.full("tiny"), *words, "--wait", "300"])
        assert done.exit_code == 0, done.output
        return done.output

    command = [sys.executable, "-m", "sweep.run", str(space), "--storage", storage.uri, "--executor", "local"]
    command += ["--pack-size", "1", "--no-report", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    with (tmp_path / "told").open("w") as told:
        driver = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=subprocess.STDOUT)
    request.addfinalizer(driver.kill)

    def wait_for(condition: Callable[[SweepState], bool]) -> SweepState:
        end = time.monotonic() + 600
        while (state := read_state(storage, "tiny")) is None or not condition(state):
            assert driver.poll() is None and time.monotonic() < end, (tmp_path / "told").read_text()
            time.sleep(0.2)
        return state

    state = wait_for(lambda state: any(pack.epoch > 0 for pack in state.packs))
    (begun,) = [trial for pack in state.packs for trial in pack.names]
    assert "keep a checkpoint" in ctl("pause")
    state = wait_for(lambda state: bool(state.paused_by) and not state.packs)
    assert not state.ended and len(storage.files("tiny/checkpoints")) == 1, "it was paused in the midst"
    planned = json.loads(storage.read("tiny/plan.json"))["stages"][0]["ids"]
    (waiting,) = [trial for trial in planned if trial != begun]
    assert "more" in ctl("add", "--set", "layer=1")
    ctl("stop", waiting)
    assert driver.poll() is None and not read_state(storage, "tiny").packs, "still paused"
    ctl("resume")
    assert driver.wait(900) == 0, (tmp_path / "told").read_text()
    records = {head.id: head.record() for head in storage.index().values()}
    added = [record for record in records.values() if record["labels"].get("added_as", "").startswith("add --set")]
    assert [record["identity"]["layer"] for record in added] == [1] and added[0]["status"] == "done"
    assert (records[begun]["status"], records[waiting]["status"]) == ("done", "stopped") and len(records) == 3
    epochs = [epoch for epoch, _ in records[begun]["curves"]["train/nll"]]
    assert epochs == list(range(1, 301)), "it went on from its checkpoint: none twice, none lost"
