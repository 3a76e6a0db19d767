"""Starting Ray here or attaching to a cluster, and checking before anything runs that it can do the work."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.records.store import Store
from trainables.data.official import CACHE_VARIABLE, SOURCES_VARIABLE, URL_VARIABLES
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.node.machine import check_storage, gpu_memory_bytes
from trainables.node.storage import delete, join, write_bytes

ATTACH_TIMEOUT_S = 25
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_PASSED_ON = (
    "MEMORY_SWEEP_CACHE",
    CACHE_VARIABLE,
    SOURCES_VARIABLE,
    *URL_VARIABLES.values(),
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
)


@dataclass(frozen=True)
class Nodes:
    """What the cluster offers.

    Attributes:
        cpus: CPUs of each node.
        gpus: GPUs of each node, in the same order.
        attached: whether the cluster was there before.
    """

    cpus: tuple[float, ...]
    gpus: tuple[float, ...]
    attached: bool

    def slots(self, cpus: float, gpus: float) -> int:
        """Return how many trials of this size run at once.

        Raises:
            ConfigError: no node is large enough for one.
        """
        count = 0
        for has_cpus, has_gpus in zip(self.cpus, self.gpus, strict=True):
            count += int(min(has_cpus / cpus if cpus else 1e9, has_gpus / gpus if gpus else 1e9) + 1e-9)
        if count == 0:
            raise ConfigError(
                f"cpus-per-trial={cpus:g}, gpus-per-trial={gpus:g}: no node has that much; the largest has "
                f"{max(self.cpus, default=0):g} CPUs and {max(self.gpus, default=0):g} GPUs; ask for less"
            )
        return count


def set_environment(address: str | None) -> None:
    """Set what Ray reads from the environment; to be called before Ray is imported."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if _wanted(address) == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@contextmanager
def ray_session(address: str | None) -> Iterator[Nodes]:
    """Attach to the cluster at `address` (or RAY_ADDRESS), or start a Ray of our own and stop it at the end.

    Raises:
        ConfigError: the cluster cannot be attached (`check_reachable` says so sooner).
    """
    set_environment(address)
    wanted = _wanted(address)
    import ray

    try:
        ray.init(
            address=wanted,
            runtime_env=_runtime_env(),
            logging_level="ERROR",
            log_to_driver=False,
            include_dashboard=False if wanted == "local" else None,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"address={wanted!r}: no Ray cluster can be attached ({_first_line(error)})") from None
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        resources = [node["Resources"] for node in alive]
        yield Nodes(
            tuple(r.get("CPU", 0.0) for r in resources), tuple(r.get("GPU", 0.0) for r in resources), wanted != "local"
        )
    finally:
        ray.shutdown()


def check_shared_storage(store: Store) -> None:
    """Write on the driver, read and write on every node, so that records and checkpoints reach one place.

    Raises:
        ConfigError: a node does not see the storage; the node is named.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = uuid.uuid4().hex
    probe = join(store.full(), f".probe-{token[:8]}")
    write_bytes(probe, token.encode())
    try:
        task = ray.remote(num_cpus=0)(check_storage)
        for node in ray.nodes():
            if not node["Alive"]:
                continue
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            try:
                problem = ray.get(task.options(scheduling_strategy=where).remote(probe, token), timeout=60)
            except ray.exceptions.RayError as error:
                problem = _first_line(error)
            if problem:
                raise ConfigError(
                    f"storage={store.full()!r}: node {node['NodeManagerHostname']} does not share it ({problem}); "
                    "use a folder that all nodes mount, or s3://…"
                )
    finally:
        delete(probe)


def prepare_nodes(data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
    """Make data and models ready on every node of the attached cluster that can run trials, all at once.

    Raises:
        ConfigError: a node cannot; the node is named.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from trainables.lm.inputs import prepare_node

    task = ray.remote(num_cpus=0)(prepare_node)
    waited = {}
    for node in ray.nodes():
        if node["Alive"] and (node["Resources"].get("CPU") or node["Resources"].get("GPU")):
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            waited[task.options(scheduling_strategy=where).remote(data, cards)] = node["NodeManagerHostname"]
    print(f"data and models: making sure that {len(waited)} node(s) have them", flush=True)
    for reference, host in waited.items():
        try:
            problem = ray.get(reference)
        except ray.exceptions.RayError as error:
            problem = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if problem:
            raise ConfigError(f"node {host}: {problem}")


def pack_memory_bytes(gpus: float, slots: int) -> float:
    """Return the memory of the device for one pack: its share of a worker's GPU, or of this machine's memory."""
    if not gpus:
        import psutil

        return float(psutil.virtual_memory().total) / 2 / slots
    import ray

    found: float = ray.get(ray.remote(num_cpus=0, num_gpus=gpus)(gpu_memory_bytes).remote())
    return found * min(1.0, gpus)


def _runtime_env() -> dict[str, Any]:
    """Ship this checkout's worker package, and the settings that say where caches and models are."""
    import trainables

    package = Path(next(iter(trainables.__path__))).resolve()
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        "py_modules": [str(package)],
        "excludes": ["__pycache__"],
        "env_vars": {"TOKENIZERS_PARALLELISM": "false", "RAY_CHDIR_TO_TRIAL_DIR": "0", **passed},
    }


def _wanted(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def check_reachable(address: str | None) -> None:
    """Try a cluster's address from a process that can be ended, for attaching to a dead head hangs for minutes.

    Raises:
        ConfigError: it cannot be reached; said within 30 seconds.
    """
    address = _wanted(address)
    if address == "local":
        check_temporary_folder()
        return
    host, _, port = address.partition("://")[2].rpartition(":") if "://" in address else address.rpartition(":")
    if address != "auto" and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConfigError(
                f"address={address!r}: nothing answers there ({error}); is the head running? (ray status)"
            ) from None
    code = "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=ATTACH_TIMEOUT_S - 10
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"address={address!r}: something answers, but no Ray cluster could be attached within "
            f"{ATTACH_TIMEOUT_S - 10} s; is it Ray's port, and RAY_AUTH_MODE the cluster's?"
        ) from None
    if tried.returncode:
        lines = [line for line in tried.stderr.strip().splitlines() if line.strip()] or ["no reason given"]
        raise ConfigError(f"address={address!r}: no Ray cluster can be attached ({lines[-1][:200]})")


def check_temporary_folder() -> None:
    """Make sure that Ray's sockets fit into its temporary folder: the system allows a path of a hundred bytes or so.

    Raises:
        ConfigError: they do not, or nothing can be written there.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), "the temporary folder")
    folder = os.environ.get(name) or "/tmp"
    session = f"session_2000-01-01_00-00-00_000000_{os.getpid()}"
    spare = SOCKET_PATH_BYTES - len(os.fsencode(f"/ray/{session}/sockets/plasma_store"))
    length = len(os.fsencode(os.path.abspath(folder)))
    if length > spare:
        raise ConfigError(
            f"{name}={folder!r}: too long for Ray's sockets ({length} bytes where {spare} fit); set RAY_TMPDIR to a "
            "shorter path, or use --executor local"
        )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{name}={folder!r}: cannot be written ({error.strerror}); set RAY_TMPDIR to another folder"
        ) from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
