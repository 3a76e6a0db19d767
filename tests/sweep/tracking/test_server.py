"""The live feed and publish against a real MLflow server that dies, and one that never answers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.report.findings import publish_compared
from sweep.tracking.address import resolve_tracking
from sweep.tracking.client import Runs
from sweep.tracking.layout import metric_values
from sweep.tracking.live_feed import LiveFeed
from tests.rows import OpenRow


class Server:
    """An MLflow server of this test, on a free port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = f"{sys.executable} -m mlflow server --workers 1 --host 127.0.0.1 --port {self.port}"
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        stores += ["--artifacts-destination", str(self.folder / "artifacts")]
        env = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.process = subprocess.Popen(
            [*command.split(), *stores],
            env=env,
            cwd=self.folder,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 90
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError("the MLflow server did not start")

    def kill(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path, storage, tracking) -> Iterator[Server]:
    server = Server(Path(storage.uri))
    yield server
    server.kill()


def timed(calls: list[float], action, *args) -> None:
    begin = time.perf_counter()
    action(*args)
    calls.append(time.perf_counter() - begin)


def assert_whole(runs: Runs, records: list[dict]) -> None:
    """Each record has exactly one run, whose histories hold each of its values exactly once."""
    trials = [head for head in runs.find() if head.trial]
    assert sorted(head.trial for head in trials) == sorted(record["id"] for record in records)
    heads = {head.trial: head for head in trials}
    for record in records:
        head = heads[record["id"]]
        assert head.complete and not head.running
        names = {point.name for point in metric_values(record)}
        stored = Counter((n, m.step, m.value) for n in names for m in runs._client.get_metric_history(head.run, n))
        assert stored == Counter((p.name, p.step, p.value) for p in metric_values(record))


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_costs_the_sweep_nothing(
    server, storage, begun, finished, save, wait_until, row: OpenRow
) -> None:
    row("the MLflow server dies in the middle", 1, "all trials done; published later")
    records = [finished(seed=seed) for seed in range(6)]
    for record in records:
        save(record)
    tracking = resolve_tracking(storage, server.uri)
    server.start()
    feed, calls = LiveFeed(storage, "demo", tracking, interval_s=0.2), []
    runs = Runs(tracking, storage.storage_id())

    def live(some: list[dict], epoch: int) -> None:
        for record in some:
            at = {name: dict(map(tuple, curve))[epoch] for name, curve in record["curves"].items()}
            timed(calls, feed.epoch, record["id"], epoch, at)

    for record in records[:4]:
        timed(calls, feed.start_trial, begun(seed=record["seed"]))
    live(records[:4], 1)
    timed(calls, feed.finish, records[0])
    wait_until(lambda: len(runs.find()) == 4)

    server.kill()
    live(records[1:4], 2)
    timed(calls, feed.finish, records[1])
    wait_until(lambda: bool(feed.trouble))

    server.start()  # the feed catches up by itself
    live(records[2:4], 3)
    timed(calls, feed.finish, records[2])
    wait_until(lambda: sum(bool(head.complete) for head in runs.find()) == 3)
    wait_until(lambda: not feed.trouble)

    server.kill()  # and stays away
    for record in records[4:]:
        timed(calls, feed.start_trial, begun(seed=record["seed"]))
    for record in records[3:]:
        timed(calls, feed.finish, record)
    begin = time.monotonic()
    report = feed.close(timeout_s=5)
    assert time.monotonic() - begin < 7
    assert (report.complete, report.left) == (3, 3) and report.trouble
    assert max(calls) < 0.1

    server.start()
    counts = publish_compared(storage, ["demo"], tracking)
    assert (counts["updated"], counts["completed"], counts["created"]) == (3, 1, 3)
    assert_whole(runs, records)
    assert publish_compared(storage, ["demo"], tracking)["unchanged"] == 7
    assert_whole(runs, records)


def test_a_server_that_never_answers_holds_nobody_up(storage, tracking, begun, finished, monkeypatch) -> None:
    connecting: set[str] = set()
    connect = socket.socket.connect

    def told(self: socket.socket, address: object) -> None:
        connecting.add(threading.current_thread().name)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", told)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        feed = LiveFeed(storage, "demo", resolve_tracking(storage, uri), interval_s=0.05)
        for seed in range(50):
            feed.start_trial(begun(seed=seed))
            feed.epoch(begun(seed=seed)["id"], 1, {"train/loss": 3.0})  # as in the record
            feed.finish(finished(seed=seed))
        silent.settimeout(15)
        waiting, _ = silent.accept()  # kept open: the feed waits for an answer
        report = feed.close(timeout_s=0.5)
        assert feed._thread.is_alive()  # it waits still; whoever closed it does not
        assert report.complete == 0 and report.left >= 50
        assert connecting == {feed._thread.name}
        waiting.close()
