"""A cluster whose nodes have addresses of their own, in network namespaces; the storage is an S3 server among them.

Needs root and `ip` (iproute2). What no namespace can stand for: a file system that is not shared, clocks that differ.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.sweeps import NOISE
from tests.rows import OpenRow

ROOT = Path(__file__).resolve().parents[3]
MARK = "MEMORY_SWEEP_TEST_NETWORK"
NET = "10.213.77"
HEAD, S3 = f"{NET}.1:6379", f"{NET}.9:9000"
HOSTS = {"head": 1, "first": 2, "late": 3, "s3": 9}
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="far",
    title="a flat grid",
    axes={"layer": [0, 1, 2, 3], "lr": [k * 1e-3 for k in range(1, 13)], "num_documents": [2, 3]},
    fixed={"model": %(model)r, "data": %(data)r, "memory_dim": 16, "epochs": 20, "segment_tokens": 32,
           "claims_per_page": 1, "checkpoint_every_s": 0},
    stages=(Stage(name="all", axes={"layer": ALL, "lr": ALL, "num_documents": ALL}),),
)
"""
SERVE = """
import logging, sys, threading
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
ThreadedMotoServer(ip_address=sys.argv[1], port=int(sys.argv[2]), verbose=False).start()
import boto3
keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
boto3.client("s3", endpoint_url=f"http://{sys.argv[1]}:{sys.argv[2]}", **keys).create_bucket(Bucket="bucket")
print("ready", flush=True)
threading.Event().wait()
"""
COUNT = """
import collections, json, sys
from sweep.records.sweep_storage import SweepStorage
heads = SweepStorage(sys.argv[1]).index(False).values()
print(json.dumps(collections.Counter(head.record()["node"] for head in heads)))
"""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


class Network:
    """Hosts on one switch, each a namespace with an address."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.name = f"ms{os.getpid()}"
        self.temporary = Path(f"/tmp/mn-{os.getpid()}")
        names = [name for name in os.environ if name.startswith(("RAY_AUTH", "AWS_"))]
        self.env = {name: value for name, value in os.environ.items() if name not in names}
        self.env |= {MARK: self.mark, "RAY_DISABLE_IMPORT_WARNING": "1"}
        self.env["RAY_worker_niceness"] = "0"  # Ray's 15 would let workers hardly run beside other work

    def up(self) -> None:
        """Make the switch and the hosts."""
        _ip("netns", "add", f"{self.name}-switch")
        _ip("-n", f"{self.name}-switch", "link", "add", "br0", "type", "bridge")
        _ip("-n", f"{self.name}-switch", "link", "set", "br0", "up")
        for host, number in HOSTS.items():
            space = f"{self.name}-{host}"
            _ip("netns", "add", space)
            _ip("-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", f"v{number}")
            _ip("-n", space, "link", "set", f"v{number}", "netns", f"{self.name}-switch")
            _ip("-n", f"{self.name}-switch", "link", "set", f"v{number}", "master", "br0", "up")
            _ip("-n", space, "addr", "add", f"{NET}.{number}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
            _ip("-n", space, "link", "set", "lo", "up")
            _ip("-n", space, "route", "add", "default", "via", f"{NET}.254")

    def plugged(self, host: str, there: bool) -> None:
        """Pull a host's cable, or put it back."""
        _ip("-n", f"{self.name}-switch", "link", "set", f"v{HOSTS[host]}", "up" if there else "down")

    def start(self, host: str, *command: str, told: Any = subprocess.PIPE, **env: str) -> subprocess.Popen[str]:
        """Start a command on a host; what it prints goes to `told`."""
        inside = ["ip", "netns", "exec", f"{self.name}-{host}", *command]
        return subprocess.Popen(
            inside, cwd=ROOT, env={**self.env, **env}, stdout=told, stderr=subprocess.STDOUT, text=True
        )

    def ray(self, host: str, *options: str, **env: str) -> None:
        """Start a raylet on a host."""
        own = ["--disable-usage-stats", "--num-cpus=1", f"--node-ip-address={NET}.{HOSTS[host]}"]
        process = self.start(host, str(Path(sys.executable).parent / "ray"), "start", *own, *options, **env)
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0, out

    def ours(self) -> list[psutil.Process]:
        """Processes that were started here, and theirs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def down(self) -> None:
        """End everything."""
        for process in self.ours():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        for host in (*HOSTS, "switch"):
            subprocess.run(["ip", "netns", "del", f"{self.name}-{host}"], capture_output=True, timeout=60)
        shutil.rmtree(self.temporary, ignore_errors=True)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    found = Network()
    try:
        try:
            found.up()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        server = found.start("s3", sys.executable, "-c", SERVE, *S3.split(":"))
        assert server.stdout and server.stdout.readline() == "ready\n"
        found.env["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
        (tmp_path / "token").write_text(uuid.uuid4().hex * 2)
        found.ray("head", "--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={found.temporary}")
        found.ray("first", f"--address={HEAD}", RAY_AUTH_MODE="token")
        yield found
    finally:
        found.down()


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nodes_with_addresses_of_their_own_a_partition_and_a_node_that_joins_late(
    network: Network, tmp_path: Path, tiny_models: dict[str, Path], sample_data: Path, row: OpenRow
) -> None:
    row(
        "hosts of their own, S3; one is cut off for 60 s, another joins meanwhile",
        1,
        "all trials done; all three worked",
    )
    space = tmp_path / "space.py"
    space.write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    storage = f"s3://bucket/out?endpoint_override={S3}&scheme=http&region=us-east-1"
    run = [sys.executable, "-m", "sweep.run", str(space), "--address", HEAD, "--storage", storage, "--pack-size", "1",
           "--no-report", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]  # fmt: skip
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": uuid.uuid4().hex}
    told = tmp_path / "output.txt"
    with told.open("w") as output:
        driver = network.start("head", *run, told=output, **keys)

    def nodes() -> dict[str, int]:
        """Records by the node that made them."""
        asked = network.start("s3", sys.executable, "-c", COUNT, storage, **keys)
        said = asked.communicate(timeout=200)[0]
        assert asked.returncode == 0, said
        return dict(json.loads(said.strip().splitlines()[-1]))

    def wait_for(number: int, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while len(found := nodes()) < number:
            assert driver.poll() is None, f"{found} after its end: {told.read_text()}"
            assert time.monotonic() < end, f"{number} nodes did not work within {limit_s} s: {found} {told.read_text()}"

    wait_for(2, 400)
    network.plugged("first", False)
    cut = time.monotonic()
    network.ray("late", f"--address={HEAD}", RAY_AUTH_MODE="token")
    wait_for(3, 400)
    time.sleep(max(0.0, 60 - (time.monotonic() - cut)))
    network.plugged("first", True)
    driver.wait(timeout=500)
    out = told.read_text()
    assert driver.returncode == 0 and not NOISE.search(out), out
    assert sum(nodes().values()) == 96
    logs = [path for path in network.temporary.rglob("*") if path.is_file() and not path.is_symlink()]
    for secret in ((tmp_path / "token").read_text(), keys["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in out and not [path.name for path in logs if secret.encode() in path.read_bytes()]
