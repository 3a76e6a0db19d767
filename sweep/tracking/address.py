"""Where runs go: the tracking address and the experiment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sweep.records.store import Store

EXPERIMENT = "memory-sweep"


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


def resolve_tracking(store: Store, uri: str | None = None, experiment: str | None = None) -> Tracking:
    """Say where runs go: the option given, else the environment, else SQLite under the storage.

    Beside an object store the SQLite file is `mlflow.db` of the working directory.

    Args:
        store: the sweep's storage.
        uri: tracking address; else `MLFLOW_TRACKING_URI`.
        experiment: experiment's name; else `MLFLOW_EXPERIMENT_NAME`, else `memory-sweep`.
    """
    experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    home = Path(store.uri) if store.is_local else Path.cwd()
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home / 'mlflow.db'}"
    return Tracking(uri, experiment, None if is_served(uri) else (home / "mlartifacts").as_uri())


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
