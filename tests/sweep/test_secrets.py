"""A whole sweep with a secret in each address: nothing that is said, recorded, tagged or sent has it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep import plan, publish, run
from sweep.records.sweep_storage import SweepStorage
from sweep.report.__main__ import app as report
from sweep.running import ray_environment
from sweep.tracking.address import Tracking
from sweep.tracking.client import Runs, TrackingError
from sweep.tracking.link import view_link
from trainables.node.addresses import KEYS_VARIABLE

SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="tiny", title="", axes={"model": [%(model)r], "layer": [0, 2]},
    fixed={"data": %(data)r, "memory_dim": 8, "epochs": 1, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1},
    stages=(Stage(name="all", axes={"model": ALL, "layer": ALL}),),
)
"""
SECRET = re.compile(r"HU?SH|HU/SH", re.IGNORECASE)


def said(app: object, *args: str) -> tuple[int, str]:
    """Call a command; return its exit status and all that it said."""
    done = CliRunner().invoke(app, list(args))  # type: ignore[arg-type]
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.thorough(beside="test_no_command_or_error_about_mlflow_shows_a_password")
def test_no_secret_of_an_address_leaves_a_sweep(
    tmp_path: Path, tiny_models, sample_data, s3_options: str, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setenv(KEYS_VARIABLE, "{}")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("space.py").write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    where = s3_options.partition("&access_key_id")[0]
    address = f"s3://HUSHKEY:HU/SH@HUSH@bucket/secrets?{where}&session_token=HUSH"
    code, first = said(run.app, "space.py", "--storage", address, "--executor", "local")
    assert code == 0 and "s3://bucket/secrets/tiny" in first, first
    told = [first]
    for app, args in (
        (plan.app, ["space.py", "--storage", address]),
        (report, [f"s3://HUSHKEY:HU/SH@HUSH@bucket/secrets/tiny?{where}&session_token=HUSH", "--resamples", "100"]),
        (publish.app, [address]),
    ):
        code, text = said(app, *args)
        assert code == 0, text
        told.append(text)
    for server in (
        "http://me:HUSH@127.0.0.1:9",
        "http://127.0.0.1:9/?access_key=HUSH&secret_key=HUSH",
    ):
        for app, args in (
            (run.app, ["space.py", "--storage", address, "--executor", "local"]),
            (publish.app, [address]),
            (report, [address]),
        ):
            told.append(said(app, *args, "--tracking-uri", server)[1])
    out, err = capfd.readouterr()
    for text in (*told, out, err):
        assert not SECRET.search(text), text
    storage = SweepStorage(address)
    files = [path for name in ("record.json", "plan.json", "storage.json", "answers.parquet", "report.html")
             for folder in ("", "tiny") for path in storage.find(folder, name)]  # fmt: skip
    assert len(files) >= 6
    for content in (*map(storage.read, files), Path("mlflow.db").read_bytes()):
        assert not re.search(rb"HU/?SH", content)


def test_a_broken_address_of_a_storage_is_refused_without_its_secret(tmp_path: Path) -> None:
    for storage in ("nowhere://me:HUSH@x/y", "s3://bucket/x?no_such_option=1&secret_key=HUSH", "gs://a:HUSH@x"):
        code, text = said(publish.app, storage)
        assert code == 2 and not SECRET.search(text) and "error: storage=" in text, text


def test_no_command_or_error_about_mlflow_shows_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.store.db.utils.time.sleep", lambda seconds: None)  # it tries a database many times
    for uri in (
        "postgresql://me:HU/SH@HUSH@127.0.0.1:9/x",
        "http://me:HUSH@127.0.0.1:9",
        "mysql://me:HUSH@127.0.0.1:9/x",
    ):
        assert not SECRET.search(view_link(SweepStorage(tmp_path), Tracking(uri, "x"), "tiny"))
        with pytest.raises(TrackingError) as caught:
            Runs(Tracking(uri, "x"), "none")
        assert not SECRET.search(str(caught.value))


def test_what_ray_tells_of_a_job_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import utils

    monkeypatch.setattr(utils, "get_entrypoint_name", utils.get_entrypoint_name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "HUSH")
    monkeypatch.setenv("HF_TOKEN", "HUSH")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:HUSH@mirror")
    monkeypatch.setenv(KEYS_VARIABLE, '{"s3://bucket": {"secret_access_key": "HUSH"}}')
    monkeypatch.setattr(utils, "list2cmdline", lambda args: f"{sys.executable} --storage s3://KEY:HUSH@bucket/x", False)
    ray_environment.hide_command_line()
    assert utils.get_entrypoint_name().endswith("--storage s3://…@bucket/x")
    assert "HUSH" not in str(ray_environment.runtime_env())
    assert set(ray_environment.secrets_of_workers()) == {
        "AWS_SECRET_ACCESS_KEY",
        "HF_TOKEN",
        "HF_ENDPOINT",
        KEYS_VARIABLE,
    }
