"""A sweep on a cluster of two raylets, one of which dies on the way."""

from __future__ import annotations

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

from sweep.records.sweep_storage import SweepStorage
from tests.stand_ins import model_files

ROOT = Path(__file__).resolve().parents[3]
PORT = 26390
ADDRESS = f"127.0.0.1:{PORT}"
OVER = {"RAY_DISABLE_IMPORT_WARNING": "1", "MLFLOW_TRACKING_URI": ""}
MARK = "MEMORY_SWEEP_TEST_CLUSTER"
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="wide",
    title="a flat grid",
    axes={"layer": [0, 1, 2, 3], "lr": [1e-3, 3e-3], "num_documents": [2, 3]},
    fixed={"model": %(model)r, "data": %(data)r, "memory_dim": 16, "epochs": %(epochs)d, "segment_tokens": 32,
           "claims_per_page": 1, "checkpoint_every_s": 0},
    stages=(Stage(name="all", axes={"layer": ALL, "lr": ALL, "num_documents": ALL}),),
)
"""


def recorded(storage: Path) -> list[dict]:
    """The records of all trials so far."""
    return [head.record() for head in SweepStorage(str(storage)).index(set_aside=False).values()]


def env(**more: str) -> dict[str, str]:
    """This process's environment without a word on authentication and with the Hub, and something more."""
    left_out = ("RAY_AUTH", "HF_HUB_OFFLINE", "HF_HUB_CACHE")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)} | OVER | more


def ours(mark: str, name: str = "") -> set[int]:
    """Processes whose environment has this cluster's mark, which they inherit, and whose command has that name."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and any(name in part for part in process.cmdline()):
                found.add(process.pid)
    return found


@pytest.fixture
def token(tmp_path, monkeypatch) -> str:
    """The cluster's token, in a file that the driver is told of; nothing else is set for it."""
    value = uuid.uuid4().hex + uuid.uuid4().hex
    (tmp_path / "token").write_text(value)
    monkeypatch.setitem(OVER, "RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    return value


@pytest.fixture(scope="module")
def head_only(tmp_path_factory):
    """A head that wants a token."""
    mark, path = uuid.uuid4().hex, tmp_path_factory.mktemp("head") / "token"
    path.write_text(uuid.uuid4().hex * 2)
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--port=26480", "--num-cpus=1"]
    command += ["--disable-usage-stats", "--include-dashboard=false", f"--temp-dir=/tmp/mh-{os.getpid()}"]
    marked = env(**{MARK: mark, "RAY_AUTH_TOKEN_PATH": str(path)})
    try:
        subprocess.run(command, check=True, capture_output=True, env=marked, timeout=90)
        yield
    finally:
        for pid in ours(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(f"/tmp/mh-{os.getpid()}", ignore_errors=True)


@pytest.fixture
def cluster(tmp_path, token):
    """A head and a second node, each a raylet of its own with one CPU; gives the second raylet's process id.

    Tokens are on, as Ray has it where there is one. `ray start --address` has to be told so.
    """
    mark = uuid.uuid4().hex
    marked = env(**{MARK: mark})
    ray = [str(Path(sys.executable).parent / "ray"), "start", "--num-cpus=1", "--disable-usage-stats"]
    short = Path(f"/tmp/ms-{os.getpid()}")
    head = [*ray, "--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={short}"]
    try:
        subprocess.run(head, check=True, capture_output=True, env=marked, timeout=90)
        first = ours(mark, "raylet/raylet")
        marked["RAY_AUTH_MODE"] = "token"
        subprocess.run([*ray, f"--address={ADDRESS}"], check=True, capture_output=True, env=marked, timeout=90)
        (second,) = ours(mark, "raylet/raylet") - first
        yield second
    finally:
        for pid in ours(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(short, ignore_errors=True)


def holds(path: Path, text: str) -> bool:
    """Whether a file has this text in it."""
    return path.is_file() and not path.is_symlink() and text.encode() in path.read_bytes()


@pytest.mark.cluster
@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("over", "why"),
    [
        ({"RAY_AUTH_TOKEN": "0" * 64}, "refuses the token"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "wants a token, and is given none"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere", "RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE is token, but there is none"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants a token, and is given none"),
    ],
    ids=["wrong", "missing", "missing in token mode", "switched off"],
)
def test_a_wrong_or_missing_token_is_one_line_at_once(head_only, over, why, tmp_path, row):
    row(f"the cluster's token: {why}", 1, "one line within 10 s, exit 2")
    code = "import sys; from sweep.cli.options import user_errors\n"
    code += "from sweep.running import ray_cluster, ray_environment\n"
    code += "with user_errors(): ray_environment.set_environment(sys.argv[1]); ray_cluster.check_reachable(sys.argv[1])"
    start = time.monotonic()
    home = env(HOME=str(tmp_path), **over)
    call = [sys.executable, "-c", code, "127.0.0.1:26480"]
    done = subprocess.run(call, cwd=ROOT, env=home, capture_output=True, text=True)
    assert done.returncode == 2 and why in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr and "0" * 64 not in done.stderr
    assert time.monotonic() - start < 10


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_both_nodes_work_and_the_death_of_one_costs_nothing(cluster, token, tmp_path, tiny_models, sample_data, row):
    row("a raylet of two is killed (SIGKILL)", 1, "all trials done")
    space = tmp_path / "wide.py"
    space.write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data), "epochs": 30})
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
        env=env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len({r["node"] for r in recorded(storage)}) < 2:
        assert driver.poll() is None, "one node did all the work"
        time.sleep(0.5)
    os.kill(cluster, signal.SIGKILL)
    out, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, out
    found = recorded(storage)
    assert len(found) == 16 and {r["status"] for r in found} == {"done"}
    assert "Traceback" not in out
    told = [p for root in (storage, Path(f"/tmp/ms-{os.getpid()}")) for p in root.rglob("*") if holds(p, token)]
    assert not told and token not in out


@pytest.mark.cluster
@pytest.mark.timeout(400)
def test_every_node_has_data_and_models_before_its_first_trial(cluster, hub, official, tmp_path, tiny_models):
    hub.add("models", "someone/tiny").commit(model_files(tiny_models["llama"]))
    space = tmp_path / "wide.py"
    space.write_text(SPACE % {"model": "someone/tiny", "data": "fever", "epochs": 1})
    run = [sys.executable, "-m", "sweep.run", str(space), "--address", ADDRESS, "--storage", str(tmp_path / "out"),
           "--set", "lr=0.001", "--set", "layer=0", "--set", "num_documents=2"]  # fmt: skip
    done = subprocess.run(run, cwd=ROOT, env=env(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "making sure that 2 node(s) have them" in done.stdout
    hub.repos.clear()
    gone = {**env(), "HF_HOME": str(tmp_path / "empty"), "MEMORY_SWEEP_DATA_CACHE": str(tmp_path / "none")}
    refused = subprocess.run([*run[:-1], "num_documents=3"], cwd=ROOT, env=gone, capture_output=True, text=True)
    (line,) = refused.stderr.strip().splitlines()
    assert refused.returncode == 2 and "has no repository someone/tiny" in line
