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

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[3]
MARK = "MEMORY_SWEEP_TEST_NETWORK"
NET = "10.213.77"
HEAD, S3 = f"{NET}.1:6379", f"{NET}.9:9000"
HOSTS = {"head": 1, "first": 2, "late": 3, "s3": 9}
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    name="far",
    title="a flat grid",
    axes={"layer": [0, 1, 2, 3], "lr": [1e-3, 3e-3, 4e-3], "num_documents": [2, 3]},
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


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


class Network:
    """Hosts on one switch, each a namespace with an address."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.name = f"ms{os.getpid()}"
        names = [name for name in os.environ if name.startswith(("RAY_AUTH", "AWS_"))]
        self.env = {name: value for name, value in os.environ.items() if name not in names}
        self.env |= {MARK: self.mark, "RAY_DISABLE_IMPORT_WARNING": "1"}

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

    def start(self, host: str, *command: str, **env: str) -> subprocess.Popen[str]:
        """Start a command on a host."""
        inside = ["ip", "netns", "exec", f"{self.name}-{host}", *command]
        return subprocess.Popen(
            inside, cwd=ROOT, env={**self.env, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ray(self, host: str, *options: str, **env: str) -> None:
        """Start a raylet on a host."""
        own = ["--disable-usage-stats", "--num-cpus=1", f"--node-ip-address={NET}.{HOSTS[host]}"]
        process = self.start(host, str(Path(sys.executable).parent / "ray"), "start", *own, *options, **env)
        out, _ = process.communicate(timeout=120)
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
            subprocess.run(["ip", "netns", "del", f"{self.name}-{host}"], capture_output=True)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    found = Network()
    short = f"/tmp/mn-{os.getpid()}"
    try:
        try:
            found.up()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        server = found.start("s3", sys.executable, "-c", SERVE, *S3.split(":"))
        assert server.stdout and server.stdout.readline() == "ready\n"
        found.env["RAY_AUTH_TOKEN_PATH"] = str(tmp_path / "token")
        (tmp_path / "token").write_text(uuid.uuid4().hex * 2)
        found.ray("head", "--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={short}")
        found.ray("first", f"--address={HEAD}", RAY_AUTH_MODE="token")
        yield found
    finally:
        found.down()
        shutil.rmtree(short, ignore_errors=True)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_nodes_with_addresses_of_their_own_a_partition_and_a_node_that_joins_late(
    network: Network, tmp_path: Path, tiny_models: dict[str, Path], sample_data: Path
) -> None:
    space = tmp_path / "space.py"
    space.write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    storage = f"s3://bucket/out?endpoint_override={S3}&scheme=http&region=us-east-1"
    run = [sys.executable, "-m", "sweep.run", str(space), "--address", HEAD, "--storage", storage, "--pack-size", "1",
           "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]  # fmt: skip
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": uuid.uuid4().hex}
    driver = network.start("head", *run, **keys)

    def nodes() -> dict[str, int]:
        """Records by the node that made them."""
        code = "import sys, collections; from sweep.records.store import Store\n"
        code += "found = Store(sys.argv[1]).index(set_aside=False)\n"
        code += "import json; print(json.dumps(collections.Counter(h.record()['node'] for h in found.values())))"
        asked = network.start("s3", sys.executable, "-c", code, storage, **keys)
        return dict(json.loads(asked.communicate(timeout=60)[0].strip().splitlines()[-1]))

    def wait_for(number: int, limit_s: float) -> None:
        end = time.monotonic() + limit_s
        while len(nodes()) < number:
            assert driver.poll() is None, driver.communicate()[0]
            assert time.monotonic() < end, f"{number} nodes did not work within {limit_s} s: {nodes()}"
            time.sleep(1)

    wait_for(2, 400)
    network.plugged("first", False)
    cut = time.monotonic()
    network.ray("late", f"--address={HEAD}", RAY_AUTH_MODE="token")
    wait_for(3, 400)
    time.sleep(max(0.0, 60 - (time.monotonic() - cut)))
    network.plugged("first", True)
    out, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0 and "Traceback" not in out, out
    assert sum(nodes().values()) == 24
    logs = [path for path in Path(f"/tmp/mn-{os.getpid()}").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in logs if (tmp_path / "token").read_bytes() in path.read_bytes()]
    shown = [path.name for path in logs if keys["AWS_SECRET_ACCESS_KEY"].encode() in path.read_bytes()]
    print("files of Ray with the secret key:", shown)
