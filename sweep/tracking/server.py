"""An MLflow server on this machine for a storage's database, as long as somebody looks at it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from sweep.tracking.address import Tracking
from sweep.tracking.client import TrackingError
from trainables.node.addresses import shown

START_LIMIT_S = 120
"""A server takes 7 s to start on an idle machine (MLflow 3.17, one worker), several times that on a busy one."""
_STOP_LIMIT_S = 10
_LOG_LINES = 3


@contextmanager
def ui_server(tracking: Tracking, port: int | None = None) -> Iterator[str]:
    """Run a server for a database while the context lasts; gives its address once it answers.

    It listens on the loopback address alone and does without MLflow's background jobs.

    Args:
        tracking: where the runs are: a database that is there, not a server.
        port: to listen on; None for a free one.

    Raises:
        TrackingError: the port is taken, or the server does not start.
    """
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env["MLFLOW_BACKEND_STORE_URI"] = tracking.uri  # not on the command line: it may hold a password
    if tracking.artifacts:
        env["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = tracking.artifacts
    env.pop("MLFLOW_TRACKING_URI", None)
    with TemporaryDirectory() as folder, open(Path(folder) / "log", "w+b") as log:
        server = subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait(server, address, Path(folder) / "log")
            yield address
        finally:
            _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    """End the server with the workers that it has started: all are in a session of their own."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            server.wait(_STOP_LIMIT_S)
            return


def free_port() -> int:
    """Return a port of the loopback address that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if server.poll() is not None:
            said = " / ".join(log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:])
            raise TrackingError(f"the MLflow server at {address} ended at once: {shown(said)[-400:]}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TrackingError(f"the MLflow server at {address} did not answer within {START_LIMIT_S} s")
