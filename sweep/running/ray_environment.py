"""What Ray and its workers are given: settings in the environment, secrets as values of tasks, tokens."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables.data.official import CACHE_VARIABLE, SOURCES_VARIABLE, URL_VARIABLES
from trainables.node.addresses import secret_environment, shown

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
_INSTALLED = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
"""Where a process finds packages by itself; named in PYTHONPATH they would come before Python's own modules."""
_WORKER_SETTINGS = {"TOKENIZERS_PARALLELISM": "false", "RAY_CHDIR_TO_TRIAL_DIR": "0"}


def set_environment(address: str | None) -> None:
    """Set what Ray reads from the environment; to be called before Ray is imported."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if wanted_address(address) != "local" and has_cluster_token():
        # Ray does the same for "auto" alone; a cluster without tokens takes one that is not asked for (Ray 2.60)
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def secrets_of_workers() -> dict[str, str]:
    """Return the variables with secrets that workers need; they travel as values, never in a job's description."""
    addresses = [name for name in _PASSED_ON if _has_secret(name)]
    return secret_environment((*_SECRET, *addresses))


def runtime_env() -> dict[str, Any]:
    """Ship this checkout's worker package, and the settings that say where caches and models are."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ and not _has_secret(name)}
    return {
        "py_modules": [str(_worker_package())],
        "excludes": ["__pycache__"],
        "env_vars": {**_WORKER_SETTINGS, **passed},
    }


@contextmanager
def inherited_environment() -> Iterator[None]:
    """Set in the block what the workers of a Ray that is started in it need, and inherit with all the rest.

    With a runtime environment instead, each would be a further process, started when its first pack is there; without
    one Ray gives packs the processes that it has at its start anyhow.
    """
    settings = dict(_WORKER_SETTINGS)
    place = str(_worker_package().parent)
    if place not in _INSTALLED:
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), place]))
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _worker_package() -> Path:
    import trainables

    return Path(next(iter(trainables.__path__))).resolve()


def wanted_address(address: str | None) -> str:
    """Return the address that is meant: the one given, else RAY_ADDRESS, else `local` for a Ray of our own."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


def is_local(address: str | None) -> bool:
    """Say whether an address means a Ray of our own, on this machine."""
    return wanted_address(address) == "local"


def has_cluster_token() -> bool:
    """Say whether Ray would find a token of a cluster here."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return True
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token").is_file()


@contextmanager
def first_token() -> Iterator[None]:
    """Let one process at a time start a Ray of its own where there is no token yet, so that it makes the only one."""
    if has_cluster_token():
        yield
        return
    folder = Path.home() / ".ray"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "auth_token.lock"):
        yield


def hide_command_line() -> None:
    """Keep keys of the command line out of what Ray tells of the job (its entry point is the command line)."""
    from ray._private import utils

    told = utils.get_entrypoint_name
    if getattr(told, "hides_secrets", False):
        return

    def hidden() -> str:
        return shown(told())

    hidden.hides_secrets = True  # type: ignore[attr-defined]
    utils.get_entrypoint_name = hidden


def _has_secret(name: str) -> bool:
    value = os.environ.get(name, "")
    return shown(value) != value
