"""Publishing to MLflow servers that ask for a log-in, lie under a path prefix and answer to certain names only."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sweep.report.findings import publish_compared
from sweep.tracking.address import resolve_tracking
from sweep.tracking.client import Runs, TrackingError
from sweep.tracking.link import pages, server_version, view_link
from sweep.tracking.server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PASSWORD = "a-Long-secret-7"
START_LIMIT_S = 300


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own log-in, under `/mlflow`, reached as `localhost` alone; gives the address."""
    pytest.importorskip("flask_wtf", reason="MLflow's log-in needs Flask-WTF, from the dev extra")
    folder, port = tmp_path_factory.mktemp("guarded"), free_port()
    settings = folder / "auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{folder}/auth.db\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = f"{sys.executable} -m mlflow server --workers 1 --host 127.0.0.1 --port {port}".split()
    command += ["--app-name", "basic-auth", "--static-prefix", "/mlflow", "--allowed-hosts", f"localhost:{port}"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "a")]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(server, f"http://localhost:{port}/mlflow/", folder / "log")
            yield f"http://localhost:{port}/mlflow"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it wants a log-in
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the MLflow server did not start")


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No log-in in the environment."""
    for name in ("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD", "TRACKING_TOKEN", "EXPERIMENT_NAME"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    return monkeypatch


@pytest.fixture
def logged_in(clean: pytest.MonkeyPatch) -> None:
    clean.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    clean.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture
def one_trial(storage, finished, save) -> dict:
    record = finished()
    save(record)
    storage.write_json("demo/plan.json", {"space": "demo", "stages": [{"name": "inductive", "ids": [record["id"]]}]})
    return record


def test_a_name_and_password_publish_and_the_links_open_under_the_prefix(
    storage, one_trial, guarded, logged_in
) -> None:
    tracking = resolve_tracking(storage, guarded)
    assert publish_compared(storage, ["demo"], tracking)["created"] == 2
    assert publish_compared(storage, ["demo"], tracking)["unchanged"] == 2
    link = view_link(storage, tracking, "demo")
    assert link.startswith(f"{guarded}/#/experiments/") and "demo-all" in link and PASSWORD not in link
    page, _, _ = link.partition("#")
    login = b64encode(f"admin:{PASSWORD}".encode()).decode()
    asked = urllib.request.Request(page, headers={"Authorization": f"Basic {login}"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert b"MLflow" in answer.read()
    runs = Runs(tracking, storage.storage_id())
    (own,) = [run for run in runs.find("demo") if not run.trial]
    assert "results.parquet" in {file.path for file in runs._client.list_artifacts(own.run)}


def test_a_wrong_password_is_told_in_one_line_that_lacks_it(storage, one_trial, guarded, clean) -> None:
    clean.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    clean.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-Secret-8")
    with pytest.raises(TrackingError) as told:
        publish_compared(storage, ["demo"], resolve_tracking(storage, guarded))
    assert "\n" not in str(told.value) and "wrong-Secret-8" not in str(told.value) and guarded in str(told.value)


def test_a_name_that_the_server_does_not_answer_to_is_told_in_one_line(storage, one_trial, guarded, logged_in) -> None:
    elsewhere = guarded.replace("localhost", "127.0.0.1")
    with pytest.raises(TrackingError) as told:
        publish_compared(storage, ["demo"], resolve_tracking(storage, elsewhere))
    assert "\n" not in str(told.value) and "403" in str(told.value)


@pytest.fixture
def behind_a_token(guarded: str) -> Iterator[str]:
    """A gateway before the same server that lets through who has a token, and logs in there by itself."""
    login = b64encode(f"admin:{PASSWORD}".encode()).decode()

    class Gateway(BaseHTTPRequestHandler):
        def _forward(self) -> None:
            if self.headers.get("Authorization") != "Bearer t0ken":
                self.send_error(401)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
            kept = {"Content-Type": self.headers.get("Content-Type") or "", "Authorization": f"Basic {login}"}
            address = guarded.removesuffix("/mlflow") + self.path
            asked = urllib.request.Request(address, body, kept, method=self.command)  # noqa: S310
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as gateway:
        threading.Thread(target=gateway.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{gateway.server_port}/mlflow"
        gateway.shutdown()


def test_a_token_publishes_through_a_gateway(storage, one_trial, behind_a_token, clean) -> None:
    clean.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    tracking = resolve_tracking(storage, behind_a_token, "by token")
    assert publish_compared(storage, ["demo"], tracking)["created"] == 2
    page = pages(storage, tracking, "demo", server_version(tracking.uri))[0]
    assert page.path.startswith("#/experiments/") and "t0ken" not in view_link(storage, tracking, "demo")
    clean.setenv("MLFLOW_TRACKING_TOKEN", "another")
    with pytest.raises(TrackingError) as told:
        publish_compared(storage, ["demo"], tracking)
    assert "\n" not in str(told.value) and "another" not in str(told.value).replace("choose another", "")
