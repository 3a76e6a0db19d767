"""Workers and nodes that fail, in real processes; each test is a row of `make test-faults`."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from sweep.running.failures import ALIKE
from tests.faults.sweeps import Sweep
from tests.rows import OpenRow
from tests.sweep.running.faults import applied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_one_of_two_workers_has_a_dead_gpu_context(sweep: Sweep, row: OpenRow) -> None:
    row("a worker's CUDA context is dead after its first epoch", 2, "process replaced; all trials done")
    faults = sweep.faults({"kind": "poison", "after": 1, "times": 2})
    ended = sweep.run("--max-concurrent", "2", trials=8, epochs=2, limit_s=400)
    assert ended.code == 0 and sweep.statuses() == ["done"] * 8 and len(applied(faults)) == 2, ended
    assert "failed attempt" in ended.output and "illegal memory access" in ended.output


def test_a_worker_is_killed_again_and_again_with_progress(sweep: Sweep, row: OpenRow) -> None:
    row("a worker is killed (SIGKILL), each time after further epochs", 6, "goes on from its checkpoint; done")
    sweep.faults(*({"kind": "kill", "after": epoch} for epoch in (2, 4, 6, 8, 10, 12)))
    ended = sweep.run("--max-concurrent", "1", trials=1, epochs=14, limit_s=600)
    assert ended.code == 0 and sweep.statuses() == ["done"] and sweep.checkpoints() == [], ended


def test_a_worker_is_killed_again_and_again_without_progress(sweep: Sweep, row: OpenRow) -> None:
    row("a worker is killed (SIGKILL) before it gets anywhere", 5, "missing, exit 1, done by the same command")
    sweep.faults({"kind": "kill", "times": 5})
    ended = sweep.run("--max-concurrent", "1", trials=1, epochs=2, limit_s=600)
    assert ended.code == 1 and sweep.statuses() == [] and "the same command tries again" in ended.output, ended
    sweep.faults()
    assert sweep.run(trials=1, epochs=2).code == 0 and sweep.statuses() == ["done"]


def test_rays_memory_monitor_ends_a_worker(sweep: Sweep, row: OpenRow) -> None:
    row("Ray's memory monitor ends every worker", 2, "fails as memory, in words of memory")
    sweep.environment |= {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    ended = sweep.run("--max-concurrent", "1", trials=1, epochs=300, limit_s=500)
    assert ended.code == 1, ended
    (record,) = sweep.records().values()
    assert record["error"]["class"] == "memory" and "out of memory" in record["error"]["message"], record["error"]


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


def test_everything_fails_on_one_node_of_two(sweep: Sweep, row: OpenRow) -> None:
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
    opened["times"] = len(applied(faults))
    assert opened["times"] >= 1
    if opened["times"] >= ALIKE:  # the other node may have done all before
        assert "is left out" in ended.output, ended.output
        opened["outcome"] = "that node is left out and named; all trials done"


@pytest.mark.parametrize("name", ["gcs_server", "raylet/raylet"])
def test_a_process_of_rays_own_dies(sweep: Sweep, row: OpenRow, name: str) -> None:
    row(f"Ray's {name.partition('/')[0]} is killed (SIGKILL)", 1, "ends within two minutes; the same command goes on")
    process = sweep.start("--max-concurrent", "1", trials=2, epochs=300)
    sweep.wait_for(process, lambda: bool(sweep.checkpoints()))
    for child in psutil.Process(process.pid).children():
        if any(name in word for word in child.cmdline()[:2]):
            child.kill()
    ended = sweep.end(process, limit_s=150)
    assert ended.code != 0 and "failed" not in sweep.statuses(), ended
    if name != "gcs_server":  # without it Ray ends this process within a minute, by itself
        assert ended.code == 1 and "stopped: process: the Ray that this run started has died" in ended.output, ended
    again = sweep.run("--max-concurrent", "1", trials=2, epochs=300, limit_s=400)
    assert again.code == 0 and sweep.statuses() == ["done"] * 2, again
