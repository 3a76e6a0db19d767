"""Starting Ray here or attaching to a cluster, and checking before anything runs that it can do the work."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from sweep.records.sweep_storage import SweepStorage
from trainables.data.official import CACHE_VARIABLE, SOURCES_VARIABLE, URL_VARIABLES
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.node.addresses import secret_environment, shown
from trainables.node.machine import check_storage, gpu_memory_bytes, machine_memory_bytes, with_secrets

ATTACH_TIMEOUT_S = 15
COUNTED_S = 5.0
"""For how long a count of the nodes is good."""
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
_PASSED_ON = (
    "MEMORY_SWEEP_CACHE",
    CACHE_VARIABLE,
    SOURCES_VARIABLE,
    *URL_VARIABLES.values(),
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)
_SECRET = ("HF_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
"""Passed on as values of tasks: Ray shows a job's environment to everybody who sees the cluster."""

_GIVE_TOKEN = "give the cluster's as RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
_ATTACH = """
import sys
address = sys.argv[1]
try:
    from ray._raylet import GcsClient  # says at once that a token is refused; ray.init tries for 20 s
except ImportError:
    GcsClient = None
if GcsClient and address != "auto" and "://" not in address:
    GcsClient(address=address).check_alive([], timeout=5)
import ray
ray.init(address=address, logging_level="ERROR", log_to_driver=False)
"""
"""What a process of its own does to try an address."""


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
        count = self.fitting(cpus, gpus)
        if count == 0:
            raise ConfigError(
                f"cpus-per-trial={cpus:g}, gpus-per-trial={gpus:g}: no node has that much; the largest has "
                f"{max(self.cpus, default=0):g} CPUs and {max(self.gpus, default=0):g} GPUs; ask for less"
            )
        return count

    def fitting(self, cpus: float, gpus: float) -> int:
        """Return how many trials of this size run at once; 0 where no node is large enough."""
        count = 0
        for has_cpus, has_gpus in zip(self.cpus, self.gpus, strict=True):
            count += int(min(has_cpus / cpus if cpus else 1e9, has_gpus / gpus if gpus else 1e9) + 1e-9)
        return count


def set_environment(address: str | None) -> None:
    """Set what Ray reads from the environment; to be called before Ray is imported."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if _wanted(address) != "local" and _has_token():
        # Ray does the same for "auto" alone; a cluster without tokens takes one that is not asked for (Ray 2.60)
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@contextmanager
def ray_session(address: str | None) -> Iterator[Nodes]:
    """Attach to the cluster at `address` (or RAY_ADDRESS), or start a Ray of our own and stop it at the end.

    Raises:
        ConfigError: the cluster cannot be attached (`check_reachable` says so sooner).
    """
    set_environment(address)
    wanted = _wanted(address)
    import ray

    _hide_command_line()
    try:
        with signals_kept_from_children(), _first_token() if wanted == "local" else nullcontext():
            ray.init(
                address=wanted,
                runtime_env=_runtime_env(),
                logging_level="ERROR",
                log_to_driver=False,
                include_dashboard=False if wanted == "local" else None,
            )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        what = "Ray cannot be started here" if wanted == "local" else "no Ray cluster can be attached"
        raise ConfigError(f"address={wanted!r}: {what} ({_first_line(error)})") from None
    try:
        yield nodes_now(wanted != "local")
    finally:
        end_own_processes(after_s=0.7)
        ray.shutdown()


@contextmanager
def signals_kept_from_children() -> Iterator[None]:
    """Have processes that are started in the block never hear SIGTERM and SIGHUP.

    `timeout`, Slurm and systemd send them to every process of a job, a closed terminal to its group. Ray's own would
    end at once, and with them the running trials, before the driver can have checkpoints written. Blocked signals stay
    blocked in children and theirs, workers included; Ray does the same for SIGINT. Whoever shuts Ray down has to kill.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_own_processes(after_s: float) -> None:
    """Kill the processes of a Ray of our own in a moment, when `ray.shutdown` has said good-bye to them.

    It would ask each with a SIGTERM, which they do not hear, and wait a second for each. Theirs are killed, too: a
    raylet's agents would look for it for minutes.
    """
    import psutil

    names = ("raylet", "gcs_server", "log_monitor", "monitor.py", "dashboard", "client.server")
    own = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(name in word for name in names for word in child.cmdline()[:4]):
                own += [child, *child.children(recursive=True)]

    def end() -> None:
        for process in own:
            with suppress(psutil.Error):
                process.kill()

    if own:
        timer = threading.Timer(after_s, end)
        timer.daemon = True
        timer.start()


def nodes_now(attached: bool) -> Nodes:
    """Return what the nodes that are alive now offer."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Nodes(tuple(r.get("CPU", 0.0) for r in resources), tuple(r.get("GPU", 0.0) for r in resources), attached)


class Slots:
    """How many packs run at once, as nodes come and go.

    Args:
        cpus: of a pack.
        gpus: of a pack.
        most: packs at once, whatever the nodes offer; None for no limit.
    """

    def __init__(self, cpus: float, gpus: float, most: int | None) -> None:
        """Count at the first call."""
        self._cpus, self._gpus, self._most = cpus, gpus, most
        self._count, self._good_until = 0, 0.0

    def __call__(self) -> int:
        """Return the number; 0 while no node is large enough."""
        if time.monotonic() >= self._good_until:
            self._count = nodes_now(True).fitting(self._cpus, self._gpus)
            self._good_until = time.monotonic() + COUNTED_S
        return self._count if self._most is None else min(self._count, self._most)


def check_shared_storage(storage: SweepStorage) -> None:
    """Write on the driver, read and write on every node, so that records and checkpoints reach one place.

    Raises:
        ConfigError: a node does not see the storage; the node is named.
    """
    mark = uuid.uuid4().hex
    probe = f".probe-{mark[:8]}"
    storage.write(probe, mark.encode())
    try:
        for node, problem in _on_every_node(check_storage, storage.full(), probe, mark).items():
            if problem:
                raise ConfigError(
                    f"storage={shown(storage.full())!r}: node {node} does not share it ({problem}); use a folder that "
                    "all nodes mount, or s3://… with keys that this process (AWS_ACCESS_KEY_ID, …) or every node has"
                )
    finally:
        storage.delete(probe)


def _on_every_node(ask: Callable[..., Any], *args: Any, gpus: float = 0.0, limit_s: float = 60.0) -> dict[str, Any]:
    """Call a function on every node that is alive, all at once; return what it gives by node.

    With `gpus`, on those that have as many, and with these. A node that cannot say it gives the reason as text.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, num_gpus=gpus)(with_secrets)
    waited = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus:
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            waited[f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"] = task.options(
                scheduling_strategy=where
            ).remote(secrets_of_workers(), ask, *args)
    end = time.monotonic() + limit_s
    found = {}
    for name, reference in waited.items():
        try:
            found[name] = ray.get(reference, timeout=max(0.1, end - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            found[name] = f"it did not answer within {limit_s:g} s"
        except ray.exceptions.RayError as error:
            found[name] = _first_line(error)
    return found


def prepare_nodes(data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
    """Make data and models ready on every node of the attached cluster that can run trials, all at once.

    Raises:
        ConfigError: a node cannot; the node is named.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from trainables.lm.inputs import prepare_node

    task = ray.remote(num_cpus=0)(with_secrets)
    waited = {}
    for node in ray.nodes():
        if node["Alive"] and (node["Resources"].get("CPU") or node["Resources"].get("GPU")):
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            started = task.options(scheduling_strategy=where).remote(secrets_of_workers(), prepare_node, data, cards)
            waited[started] = node["NodeManagerHostname"]
    print(f"data and models: making sure that {len(waited)} node(s) have them", flush=True)
    for reference, host in waited.items():
        try:
            problem = ray.get(reference)
        except ray.exceptions.RayError as error:
            problem = _first_line(error)
        if problem:
            raise ConfigError(f"node {host}: {problem}")


def pack_memory_bytes(gpus: float, slots: int) -> float:
    """Return the memory of the device for one pack, on the node that has least.

    That is the pack's share of a GPU, or of half of a machine's memory.

    Raises:
        ConfigError: no node could say.
    """
    ask = gpu_memory_bytes if gpus else machine_memory_bytes
    answers = _on_every_node(ask, gpus=gpus)
    found = [answer for answer in answers.values() if isinstance(answer, float)]
    if not found:
        raise ConfigError(f"no node could say how much memory it has ({answers}); give --pack-size")
    return min(found) * min(1.0, gpus) if gpus else min(found) / 2 / max(1, -(-slots // len(found)))


def secrets_of_workers() -> dict[str, str]:
    """Return the variables with secrets that workers need; they travel as values, never in a job's description."""
    addresses = [name for name in _PASSED_ON if _has_secret(name)]
    return secret_environment((*_SECRET, *addresses))


def _has_secret(name: str) -> bool:
    value = os.environ.get(name, "")
    return shown(value) != value


def _hide_command_line() -> None:
    """Keep keys of the command line out of what Ray tells of the job (its entry point is the command line)."""
    from ray._private import utils

    told = utils.get_entrypoint_name
    if getattr(told, "hides_secrets", False):
        return

    def hidden() -> str:
        return shown(told())

    hidden.hides_secrets = True  # type: ignore[attr-defined]
    utils.get_entrypoint_name = hidden


def _runtime_env() -> dict[str, Any]:
    """Ship this checkout's worker package, and the settings that say where caches and models are."""
    import trainables

    package = Path(next(iter(trainables.__path__))).resolve()
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ and not _has_secret(name)}
    return {
        "py_modules": [str(package)],
        "excludes": ["__pycache__"],
        "env_vars": {"TOKENIZERS_PARALLELISM": "false", "RAY_CHDIR_TO_TRIAL_DIR": "0", **passed},
    }


def _wanted(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def _has_token() -> bool:
    """Say whether Ray would find a token of a cluster here."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").is_file()


@contextmanager
def _first_token() -> Iterator[None]:
    """Let one process at a time start a Ray of its own where there is no token yet, so that it makes the only one."""
    if _has_token():
        yield
        return
    folder = Path.home() / ".ray"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "auth_token.lock"):
        yield


def is_local(address: str | None) -> bool:
    """Say whether an address means a Ray of our own, on this machine."""
    return _wanted(address) == "local"


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
    wants = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    if wants and not _has_token():
        raise ConfigError(f"address={address!r}: RAY_AUTH_MODE is token, but there is none; {_GIVE_TOKEN}")
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _ATTACH, address], capture_output=True, text=True, timeout=ATTACH_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"address={address!r}: something answers, but no Ray cluster could be attached within "
            f"{ATTACH_TIMEOUT_S} s; is it Ray's port, and RAY_AUTH_MODE the cluster's?"
        ) from None
    if tried.returncode:
        if "InvalidAuthToken" in tried.stderr:
            refused = "refuses the token that it is given" if wants else "wants a token, and is given none"
            raise ConfigError(f"address={address!r}: the cluster {refused}; {_GIVE_TOKEN}")
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
