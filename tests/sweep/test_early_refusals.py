"""What the command line refuses before anything is read or started."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep import plan, run
from sweep.records import sweep_storage
from sweep.records.sweep_storage import SweepStorage, check_name
from sweep.running.ray_cluster import SOCKET_PATH_BYTES, check_temporary_folder
from sweep.running.run_options import RunOptions
from sweep.tracking.address import check_tracking_uri, resolve_tracking
from trainables.errors import ConfigError
from trainables.node.machine import may_have_gpu


def refused(command, *args: object) -> str:
    done = CliRunner().invoke(command.app, list(map(str, args)))
    assert done.exit_code == 2, (done.output, done.exception)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


@pytest.mark.parametrize("command", [run, plan])
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--select-by", "fever/acc"), "did you mean 'fever/accuracy'?"),
        (("--set", "lr=nan"), "lr=nan: must be a finite number"),
        (("--set", "alpha=inf"), "alpha=inf: must be a finite number"),
        (("--set", "hook_layer=3"), "the field is layer"),
        (("--name", "storage.json"), "name='storage.json': the storage keeps"),
        (("--name", "mlflow.db"), "name='mlflow.db': the storage keeps"),
    ],
)
def test_it_is_said_in_one_line(tmp_path, sample_data, command, args, said):
    assert said in refused(command, "sample", *args, "--storage", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("record.json"))


@pytest.mark.parametrize(
    "name",
    [
        "Storage.JSON",
        "mlflow.db-wal",
        "MLflow.db",
        "mlartifacts",
        "trains",
        "end.",
        "",
        "a" * 101,
        ".hidden",
        "-x",
        "a b",
    ],
)
def test_a_name_that_cannot_be_a_sweeps(name):
    with pytest.raises(ConfigError, match="name="):
        check_name(name)


@pytest.mark.parametrize("name", ["storage", "mlflow", "report", "v1.2", "_x", "a" * 100])
def test_a_name_that_can(name):
    assert check_name(name) == name


@pytest.mark.parametrize("uri", ["foo://bar", "htp://host", "s3://bucket", "http://", "https:///x", "sqlite:mlflow.db"])
def test_an_address_that_mlflow_has_no_store_for(uri, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="tracking-uri="):
        RunOptions(tracking_uri=uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="tracking-uri="):
        resolve_tracking(SweepStorage(str(tmp_path)))
    assert "tracking-uri=" in refused(run, "sample", "--tracking-uri", uri, "--plan", "--storage", tmp_path)


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "https://u:p@host/x", "sqlite:////tmp/x.db", "postgresql+psycopg2://u@h/d", "file:///tmp/m",
     "databricks", "databricks://profile", "mlruns", "/tmp/runs", "mysql://h/d"],
)  # fmt: skip
def test_an_address_that_mlflow_has_a_store_for(uri):
    check_tracking_uri(uri)


def test_a_temporary_folder_too_long_for_sockets(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 60)
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(ConfigError, match=r"RAY_TMPDIR=.*: too long for Ray's sockets \(\d+ bytes where \d+ fit\)"):
        check_temporary_folder()
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", "/tmp/" + "\u00e9" * 40)
    with pytest.raises(ConfigError, match="TMPDIR=.*: too long"):
        check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_temporary_folder()
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", "/proc/x")
    with pytest.raises(ConfigError, match="RAY_TMPDIR='/proc/x': cannot be written"):
        check_temporary_folder()
    assert SOCKET_PATH_BYTES in (103, 107)


def test_a_storage_that_never_answers_is_named_soon(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep_storage, "ANSWER_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        uri = f"s3://KEY:SECRET@bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http"
        began = time.monotonic()
        for command in (run, plan):
            said = refused(command, "sample", "--storage", uri)
            assert "does not answer within 0.5 s" in said and "SECRET" not in said
    assert time.monotonic() - began < 60
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.skipif(may_have_gpu(), reason="there may be a GPU")
@pytest.mark.parametrize("executor", ["ray", "local"])
def test_cuda_where_there_is_none_is_refused_before_anything_is_loaded(tmp_path, executor):
    code = (
        "import sys; from sweep.main import app\n"
        "try: app()\n"
        "except SystemExit as end: print(end.code, sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    args = ["run", "sample", "--device", "cuda", "--executor", executor, "--storage", str(tmp_path / "out")]
    ran = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("2 []\n"), ran.stdout
    assert ran.stderr == "error: device='cuda': no machine here has a CUDA device; choose --device cpu, or auto\n"
    assert not (tmp_path / "out").exists()
