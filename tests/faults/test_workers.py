"""Faults of workers, disks and signals, in real processes; each test is a row of `make test-faults`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweep.running.failures import ALIKE
from tests.faults.sweeps import Sweep
from tests.sweep.running.faults import applied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
Open = Callable[..., Any]
NOISE = re.compile(r"Traceback|Check failed|\*\*\* SIG|sqlalchemy|core_worker", re.IGNORECASE)


def test_one_of_two_workers_has_a_dead_gpu_context(sweep: Sweep, row: Open) -> None:
    row("a worker's CUDA context is dead after its first epoch", 2, "process replaced; all trials done")
    faults = sweep.faults({"kind": "poison", "after": 1, "times": 2})
    ended = sweep.run("--max-concurrent", "2", trials=8, epochs=2, limit_s=400)
    assert ended.code == 0 and sweep.statuses() == ["done"] * 8 and len(applied(faults)) == 2, ended
    assert "failed attempt" in ended.output and "illegal memory access" in ended.output


def test_a_worker_is_killed_again_and_again_with_progress(sweep: Sweep, row: Open) -> None:
    row("a worker is killed (SIGKILL), each time after further epochs", 6, "goes on from its checkpoint; done")
    sweep.faults(*({"kind": "kill", "after": epoch} for epoch in (2, 4, 6, 8, 10, 12)))
    ended = sweep.run("--max-concurrent", "1", trials=1, epochs=14, limit_s=600)
    assert ended.code == 0 and sweep.statuses() == ["done"] and sweep.checkpoints() == [], ended


def test_a_worker_is_killed_again_and_again_without_progress(sweep: Sweep, row: Open) -> None:
    row("a worker is killed (SIGKILL) before it gets anywhere", 5, "missing, exit 1, done by the same command")
    sweep.faults({"kind": "kill", "times": 5})
    ended = sweep.run("--max-concurrent", "1", trials=1, epochs=2, limit_s=600)
    assert ended.code == 1 and sweep.statuses() == [] and "the same command tries again" in ended.output, ended
    sweep.faults()
    assert sweep.run(trials=1, epochs=2).code == 0 and sweep.statuses() == ["done"]


def test_rays_memory_monitor_ends_a_worker(sweep: Sweep, row: Open) -> None:
    row("Ray's memory monitor ends every worker", 2, "fails as memory, in words of memory")
    sweep.environment |= {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    ended = sweep.run("--max-concurrent", "1", trials=1, epochs=300, limit_s=500)
    assert ended.code == 1, ended
    (record,) = sweep.records().values()
    assert record["error"]["class"] == "memory" and "out of memory" in record["error"]["message"], record["error"]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB, to be filled or made read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_the_storage_takes_nothing_any_more(sweep: Sweep, disk: Path, row: Open, fault: str, executor: str) -> None:
    row(f"the storage is {fault} in the middle of a sweep ({executor})", 1, "exit 1, one line, goes on when mended")
    sweep.storage = disk
    process = sweep.start("--executor", executor, trials=4, epochs=25)
    sweep.wait_for(process, lambda: len(sweep.records()) >= 1 and bool(sweep.checkpoints()))
    filler = disk / "filler"
    if fault == "full":
        subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4096"], capture_output=True)
    else:
        shut = str(sweep.out)  # what is open there stays open, as on a disk that the kernel turns read-only
        subprocess.run(["mount", "--bind", shut, shut], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", shut], check=True)
    ended = sweep.end(process)
    assert ended.code == 1 and not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    (line,) = [line for line in ended.output.splitlines() if line.startswith("stopped:")]
    assert "No space left" in line or "Read-only" in line
    kept = sweep.checkpoints()
    assert kept and "failed" not in sweep.statuses()
    if fault == "full":
        filler.unlink()
    else:
        subprocess.run(["umount", "-l", str(sweep.out)], check=True)
    again = sweep.run("--executor", executor, trials=4, epochs=25)
    assert again.code == 0 and sweep.statuses() == ["done"] * 4 and not sweep.checkpoints(), again


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_to_the_whole_process_group(sweep: Sweep, row: Open, number: signal.Signals) -> None:
    row(f"{number.name} to the process group, Ray's own processes too", 1, "checkpoints kept, exit 130, goes on")
    process = sweep.start("--max-concurrent", "1", trials=2, epochs=400)
    sweep.wait_for(process, lambda: bool(sweep.checkpoints()))
    os.killpg(process.pid, number)
    ended = sweep.end(process, limit_s=90)
    assert ended.code == 130 and ended.seconds < 60, ended
    assert not NOISE.search(ended.errors + ended.output), (ended.output, ended.errors)
    assert "stopping:" in ended.output and sweep.checkpoints()
    assert not (sweep.out / "stop").exists() and not (sweep.out / ".holder.json").exists()
    assert not list(sweep.folder.glob("memory-sweep-tune-*"))


def test_the_driver_is_killed(sweep: Sweep, row: Open) -> None:
    row("the driver is killed (SIGKILL)", 1, "goes on; what it left behind is cleared")
    process = sweep.start("--max-concurrent", "1", trials=2, epochs=400)
    sweep.wait_for(process, lambda: bool(sweep.checkpoints()))
    process.kill()
    process.wait()
    assert list(sweep.folder.glob("memory-sweep-tune-*"))
    again = sweep.run("--max-concurrent", "1", trials=1, epochs=2)
    assert again.code == 0, again
    assert not list(sweep.folder.glob("memory-sweep-tune-*"))


BROKEN_NODE = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "disabled"
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1, env_vars={"MEMORY_SWEEP_TEST_BROKEN": "1"})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_everything_fails_on_one_node_of_two(sweep: Sweep, row: Open) -> None:
    opened = row("every pack fails at once on one node of two", 0, "its trials run on the other; all trials done")
    faults = sweep.faults({"kind": "device", "times": 100, "where": "MEMORY_SWEEP_TEST_BROKEN"})
    sweep.environment["RAY_AUTH_MODE"] = "disabled"
    env = {**os.environ, **sweep.environment, "PYTHONPATH": os.getcwd(), "MEMORY_SWEEP_IO_PATIENCE_S": "1"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", BROKEN_NODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        ended = sweep.run("--address", address, trials=8, epochs=40, limit_s=500)
    finally:
        for child in psutil.Process(cluster.pid).children(recursive=True):
            child.kill()
        cluster.kill()
        cluster.wait()
    assert ended.code == 0 and sweep.statuses() == ["done"] * 8, ended
    opened.times = len(applied(faults))
    assert opened.times >= 1
    if opened.times >= ALIKE:  # the other node may have done all before
        assert "is left out" in ended.output, ended.output
        opened.outcome = "that node is left out and named; all trials done"
