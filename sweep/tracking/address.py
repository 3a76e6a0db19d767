"""Where runs go: the tracking address and the experiment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit

from sweep.records.sweep_storage import SweepStorage
from trainables.errors import ConfigError
from trainables.node.addresses import shown

EXPERIMENT = "memory-sweep"
_TRACKING_KINDS = (
    "file", "sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks", "databricks-uc", "uc",
)  # fmt: skip


@dataclass(frozen=True)
class Tracking:
    """Where runs go.

    Attributes:
        uri: MLflow tracking address.
        experiment: name of the experiment.
        artifacts: where a new experiment keeps its artifacts; None leaves it to the server.
    """

    uri: str
    experiment: str
    artifacts: str | None = None


def resolve_tracking(storage: SweepStorage, uri: str | None = None, experiment: str | None = None) -> Tracking:
    """Say where runs go: the option given, else the environment, else SQLite under the storage.

    Beside an object store the SQLite file is `mlflow.db` of the working directory.

    Args:
        storage: the sweep's storage.
        uri: tracking address; else `MLFLOW_TRACKING_URI`.
        experiment: experiment's name; else `MLFLOW_EXPERIMENT_NAME`, else `memory-sweep`.

    Raises:
        ConfigError: an address of a kind that MLflow does not know.
    """
    experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    home = Path(storage.uri) if storage.is_local else Path.cwd()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
    check_tracking_uri(uri)
    return Tracking(uri, experiment, None if is_served(uri) else (home / "mlartifacts").as_uri())


def check_tracking_uri(uri: str) -> None:
    """Refuse an address that MLflow has no store for; nothing is connected to, and MLflow is not imported.

    Raises:
        ConfigError: it is of no known kind, or names no server.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][\w.+-]+", scheme):
        return  # a folder
    kind = scheme.partition("+")[0].lower()
    known = (*_TRACKING_KINDS, *(found.name for found in entry_points(group="mlflow.tracking_store")))
    place = f"tracking-uri={shown(uri)!r}"
    if kind not in known:
        raise ConfigError(f"{place}: MLflow has no store for {scheme}: (there are: {', '.join(dict.fromkeys(known))})")
    if kind in ("http", "https") and not urlsplit(uri).hostname:
        raise ConfigError(f"{place}: names no server; write {kind}://HOST:PORT")
    if kind == "sqlite" and not rest.startswith("//"):
        raise ConfigError(f"{place}: write sqlite:///FILE")


def is_served(uri: str) -> bool:
    """Say whether a server keeps the runs, rather than a database that this process opens."""
    return is_web(uri) or uri.startswith("databricks")


def is_web(uri: str) -> bool:
    """Say whether the address is that of a server whose pages a browser can open."""
    return uri.startswith(("http://", "https://"))


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite database; None for any other address."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None
