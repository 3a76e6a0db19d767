"""Starting Ray here or attaching to a cluster, and checking before anything runs that this can be done."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from sweep.running.ray_environment import (
    first_token,
    has_cluster_token,
    hide_command_line,
    inherited_environment,
    is_local,
    runtime_env,
    set_environment,
    wanted_address,
)
from sweep.running.ray_nodes import Nodes, first_line, nodes_now
from trainables.errors import ConfigError

ATTACH_TIMEOUT_S = 15
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
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


@contextmanager
def ray_session(address: str | None) -> Iterator[Nodes]:
    """Attach to the cluster at `address` (or RAY_ADDRESS), or start a Ray of our own and stop it at the end.

    Raises:
        ConfigError: the cluster cannot be attached (`check_reachable` says so sooner).
    """
    set_environment(address)
    wanted, own = wanted_address(address), is_local(address)
    import ray

    hide_command_line()
    try:
        with ExitStack() as starting:
            starting.enter_context(signals_kept_from_children())
            if own:
                starting.enter_context(first_token())
                starting.enter_context(inherited_environment())
            ray.init(
                address=wanted,
                runtime_env=None if own else runtime_env(),
                logging_level="ERROR",
                log_to_driver=False,
                include_dashboard=False if own else None,
            )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        what = "Ray cannot be started here" if own else "no Ray cluster can be attached"
        raise ConfigError(f"address={wanted!r}: {what} ({first_line(error)})") from None
    try:
        yield nodes_now(not own)
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


def check_reachable(address: str | None) -> None:
    """Try a cluster's address from a process that can be ended, for attaching to a dead head hangs for minutes.

    Raises:
        ConfigError: it cannot be reached; said within 30 seconds.
    """
    address = wanted_address(address)
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
    if wants and not has_cluster_token():
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
