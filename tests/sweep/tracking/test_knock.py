"""A tracking address that is dead is told in seconds; two first users of one PostgreSQL do not trip over each other."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.running.outcome_text import tracking_options
from sweep.tracking.address import Tracking
from sweep.tracking.client import Runs, TrackingError
from sweep.tracking.knock import knock
from sweep.tracking.live_feed import LiveFeed
from tests.rows import OpenRow

ROOT = Path(__file__).resolve().parents[3]
FIRST = """
import sys
from sweep.tracking.client import Runs
from sweep.tracking.address import Tracking
print(Runs(Tracking(sys.argv[1], "both"), "storage").experiment_id)
"""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word, as a frozen server does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http://", "postgresql+psycopg2://u:hidden@"])
@pytest.mark.parametrize("kind", ["silent", "closed"])
@pytest.mark.thorough(only=("silent-postgresql+psycopg2://u:hidden@",))
def test_what_is_dead_is_told_within_seconds(scheme: str, kind: str, request: pytest.FixtureRequest) -> None:
    if scheme.startswith("postgresql"):
        pytest.importorskip("psycopg2", reason="the database's driver is not installed")
    start = time.monotonic()
    with pytest.raises(TrackingError, match="publish when it answers") as told:
        Runs(Tracking(f"{scheme}127.0.0.1:{request.getfixturevalue(kind)}/x", "e"), "s")
    assert time.monotonic() - start < 15 and "hidden" not in str(told.value) and "No module" not in str(told.value)


def test_files_and_answers_of_any_kind_are_let_through(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Refuses(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Refuses)
    Thread(target=server.serve_forever, daemon=True).start()
    knock(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    knock(f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.thorough(beside="test_what_is_dead_is_told_within_seconds")
def test_publish_and_the_end_of_a_run_wait_15_s_at_most(
    silent: int, storage: SweepStorage, begun, finished, monkeypatch, row: OpenRow
) -> None:
    row("the tracking server takes connections and never answers", 1, "a run's end and publish wait 15 s at most")
    tracking = Tracking(f"http://127.0.0.1:{silent}", "e")
    feed = LiveFeed(storage, "demo", tracking, interval_s=0.1)
    feed.start_trial(begun())
    feed.finish(finished())
    start = time.monotonic()
    feed.close(60.0)
    with pytest.raises(TrackingError):
        Runs(tracking, "s")
    assert time.monotonic() - start < 15


def test_the_hint_to_publish_later_names_the_same_place() -> None:
    assert tracking_options(None, None) == ""
    told = tracking_options("postgresql://me:secret@db/mlflow", "my runs")
    assert told == " --tracking-uri 'postgresql://…@db/mlflow' --experiment 'my runs'"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """An empty database in a server of its own."""
    pytest.importorskip("psycopg2", reason="the database's driver is not installed")
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or next((str(folder / "initdb") for folder in folders[::-1]), "")
    if not found or not Path(found).exists():
        pytest.skip("no PostgreSQL server is installed (initdb)")
    binaries = Path(found).parent
    user = {} if os.geteuid() else {"user": "postgres"}
    home = Path(f"/tmp/mspg-{os.getpid()}")
    home.mkdir()
    if user:
        shutil.chown(home, "postgres")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = {"check": True, "capture_output": True, "timeout": 120, "cwd": "/", **user}
    control = [str(binaries / "pg_ctl"), "-D", str(home / "data"), "-w"]
    try:
        subprocess.run([str(binaries / "initdb"), "-D", str(home / "data"), "-A", "trust", "-U", "postgres"], **flags)
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        subprocess.run([*control, "-l", str(home / "log"), "-o", options, "start"], **flags)
        yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **{**flags, "check": False})
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_first_users_of_an_empty_postgresql_both_succeed(postgres: str, row: OpenRow) -> None:
    row("two first users of an empty PostgreSQL at once", 2, "both succeed")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST, postgres], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert told[0][0].split()[-1] == told[1][0].split()[-1]
