"""A sweep on a cluster of two raylets, one of which dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.stand_ins import model_files

ROOT = Path(__file__).resolve().parents[3]
PORT = 26390
ADDRESS = f"127.0.0.1:{PORT}"
OVER = {"RAY_AUTH_MODE": "disabled", "RAY_DISABLE_IMPORT_WARNING": "1", "MLFLOW_TRACKING_URI": ""}
ENV = {**os.environ, **OVER}
MARK = "MEMORY_SWEEP_TEST_CLUSTER"
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    name="wide",
    title="a flat grid",
    axes={"layer": [0, 1, 2, 3], "lr": [1e-3, 3e-3], "num_documents": [2, 3]},
    fixed={"model": %(model)r, "data": %(data)r, "memory_dim": 16, "epochs": %(epochs)d, "segment_tokens": 32,
           "claims_per_page": 1, "checkpoint_every_s": 0},
    stages=(Stage(name="all", axes={"layer": ALL, "lr": ALL, "num_documents": ALL}),),
)
"""


def ours(mark: str, name: str = "") -> set[int]:
    """Processes whose environment has this cluster's mark, which they inherit, and whose command has that name."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and any(name in part for part in process.cmdline()):
                found.add(process.pid)
    return found


@pytest.fixture
def cluster(tmp_path):
    """A head and a second node, each a raylet of its own with one CPU; gives the second raylet's process id."""
    mark = uuid.uuid4().hex
    env = {**ENV, MARK: mark}
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--num-cpus=1", "--disable-usage-stats"]
    short = Path(f"/tmp/ms-{os.getpid()}")
    head = [*ray, "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={short}"]
    try:
        subprocess.run(head, check=True, capture_output=True, env=env, timeout=90)
        first = ours(mark, "raylet/raylet")
        subprocess.run([*ray, f"--address={ADDRESS}"], check=True, capture_output=True, env=env, timeout=90)
        (second,) = ours(mark, "raylet/raylet") - first
        yield second
    finally:
        for pid in ours(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_both_nodes_work_and_the_death_of_one_costs_nothing(cluster, tmp_path, tiny_models, sample_data):
    space = tmp_path / "wide.py"
    space.write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data), "epochs": 60})
    storage = tmp_path / "out"
    away = tmp_path / "elsewhere"
    away.mkdir()
    driver = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "sweep.run",
            str(space),
            "--address",
            ADDRESS,
            "--storage",
            str(storage),
            "--pack-size",
            "1",
        ],
        cwd=ROOT,
        env=ENV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len({json.loads(p.read_text())["node"] for p in storage.rglob("record.json")}) < 2:
        assert driver.poll() is None, "one node did all the work"
        time.sleep(0.5)
    os.kill(cluster, signal.SIGKILL)
    out, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, out
    found = [json.loads(p.read_text()) for p in storage.rglob("record.json")]
    assert len(found) == 16 and {r["status"] for r in found} == {"done"}
    assert "Traceback" not in out


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_every_node_has_data_and_models_before_its_first_trial(cluster, hub, official, tmp_path, tiny_models):
    hub.add("models", "someone/tiny").commit(model_files(tiny_models["llama"]))
    space = tmp_path / "wide.py"
    space.write_text(SPACE % {"model": "someone/tiny", "data": "fever", "epochs": 1})
    run = [sys.executable, "-m", "sweep.run", str(space), "--address", ADDRESS, "--storage", str(tmp_path / "out"),
           "--set", "lr=0.001", "--set", "layer=0", "--set", "num_documents=2"]  # fmt: skip
    done = subprocess.run(run, cwd=ROOT, env={**os.environ, **OVER}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "making sure that 2 node(s) have them" in done.stdout
    hub.repos.clear()
    gone = {**os.environ, **OVER, "HF_HOME": str(tmp_path / "empty"), "MEMORY_SWEEP_DATA_CACHE": str(tmp_path / "none")}
    refused = subprocess.run([*run[:-1], "num_documents=3"], cwd=ROOT, env=gone, capture_output=True, text=True)
    (line,) = refused.stderr.strip().splitlines()
    assert refused.returncode == 2 and "has no repository someone/tiny" in line
