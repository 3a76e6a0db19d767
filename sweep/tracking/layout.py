"""What a trial looks like in MLflow: where runs go, their names, params, tags and metric points.

All of it is a function of the trial's record, so that a run fed live and one built later are the same. Runs
are flat, since the MLflow UI leaves nested ones out of its table and charts; the tag `in_<sweep>` ties
a sweep's trials together. Nothing here talks to MLflow.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from sweep.records.record import STATUSES, Record, record_hash, seconds_since_epoch
from sweep.records.store import Store
from trainables.adapters.registry import ADAPTERS
from trainables.errors import ConfigError

EXPERIMENT = "memory-sweep"
LAYOUT = 1  # raise it when runs change their look: publish then builds them anew
PARAM_NAMES = {
    "model": "lm_size",
    "num_documents": "selected_docs",
    "layer": "hook_layer",
    "allocation": "memory_allocation",
    "num_shots": "shots",
}
_TAG_CHARS = 4000
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


@dataclass(frozen=True)
class Point:
    """One value of a metric; its time (milliseconds) never changes, so that sending it twice adds nothing."""

    name: str
    value: float
    step: int
    time_ms: int


@dataclass(frozen=True)
class WholeRun:
    """All that a complete trial's run holds; its times are in milliseconds since the epoch."""

    name: str
    status: str
    started_ms: int
    ended_ms: int
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: Sequence[Point]


def resolve_tracking(store: Store, uri: str | None = None, experiment: str | None = None) -> Tracking:
    """Say where runs go: the option given, else the environment, else SQLite under the storage.

    Beside an object store the SQLite file is `mlflow.db` of the working directory.

    Args:
        store: the sweep's storage.
        uri: tracking address; else `MLFLOW_TRACKING_URI`.
        experiment: experiment's name; else `MLFLOW_EXPERIMENT_NAME`, else `memory-sweep`.

    Raises:
        ConfigError: an address of a kind that MLflow does not know.
    """
    experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    home = Path(store.uri) if store.is_local else Path.cwd()
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
    return uri.startswith(("http://", "https://", "databricks"))


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a SQLite database; None for any other address."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) else None


def run_name(record: Record) -> str:
    """Return a readable name, such as `llama2-7b L23 a0.2 simset2 n1000`."""
    stated, model = record["identity"], record["model"]["name"]
    adapter = ADAPTERS[stated["method"]]
    parts = [model, *adapter.words(stated), f"n{stated['num_documents']}"]
    if stated["num_clusters"]:
        parts.append(f"g{stated['num_clusters']}")
    if stated["content"] != "document" and adapter.trains:
        parts.append(stated["content"])
    if stated["seed"]:
        parts.append(f"s{stated['seed']}")
    return " ".join(parts)


def time_ms(stamp: str) -> int:
    """Return a record's time as MLflow takes it, in milliseconds since the epoch."""
    return round(1000 * seconds_since_epoch(stamp))


def run_params(record: Record) -> dict[str, str]:
    """Return every identity field under a short stable key; switches as 1 and 0, unset fields left out."""
    stated, model = record["identity"], record["model"]
    params = {}
    for name, value in stated.items():
        if name == "model":
            value = model["name"]
        elif name == "data":
            value = record["data"]["given"]
        elif name == "num_clusters":
            value = value or stated["num_documents"]
        text = _param(value)
        if text:
            params[PARAM_NAMES.get(name, name)] = text
    if stated["layer"] is not None:
        params["hook_depth"] = _param((stated["layer"] + 1) / model["num_blocks"])
    return params


def _param(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "+".join(map(str, value))
    return str(value)


def run_tags(record: Record, storage: str, members: Mapping[str, str]) -> dict[str, str]:
    """Return a trial's tags.

    Args:
        record: begun or complete.
        storage: the storage's own id: sweeps of the same name elsewhere stay apart on a shared server.
        members: the sweeps that the trial belongs to, each with its stage there.
    """
    code = record["versions"]
    tags = {
        "kind": "trial",
        "storage": storage,
        "sweep": record["sweep"],
        "stage": record["stage"],
        "trial_id": record["id"],
        "pack": record["pack"],
        "host": record["host"],
        "code_version": "+".join(filter(None, (code.get("memory-sweep"), code.get("commit")))),
        "status": record["status"],
        **{f"count.{name}": f"{value}" for name, value in record.get("counts", {}).items()},
        **{f"label.{name}": str(value) for name, value in record.get("labels", {}).items()},
        **member_tags(members),
    }
    if record.get("error"):
        tags["error"] = f"{record['error'].get('class')}: {record['error'].get('message')}"
    lost = sorted(not_finite(record))
    if lost:
        tags["not_finite"] = " ".join(lost)
    return {_name(name): value[:_TAG_CHARS] for name, value in tags.items() if value}


def member_tags(members: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that say which sweeps a trial belongs to, and to which of their stages."""
    return {f"in_{sweep}": stage or "-" for sweep, stage in members.items()}


def complete_mark(record: Record) -> str:
    """Return the value of the tag `complete`: it vouches that a run holds all of just this record."""
    return f"{LAYOUT}-{record_hash(record)}"


def complete_tags(record: Record, storage: str, members: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a run that holds all of a record; arguments as for `run_tags`."""
    return {**run_tags(record, storage, members), "complete": complete_mark(record)}


def run_status(record: Record) -> str:
    """Return MLflow's word for how a trial ended; diverging is a result."""
    return "FAILED" if record["status"] == "failed" else "FINISHED"


def whole_run(record: Record, storage: str, members: Mapping[str, str]) -> WholeRun:
    """Return the run of a complete record.

    Args:
        record: complete.
        storage: the storage's own id.
        members: the sweeps that the trial belongs to, each with its stage there.
    """
    return WholeRun(
        name=run_name(record),
        status=run_status(record),
        started_ms=time_ms(record["started_at"]),
        ended_ms=time_ms(record["finished_at"]),
        tags=complete_tags(record, storage, members),
        params=run_params(record),
        points=metric_points(record),
    )


def final_step(record: Record, name: str) -> int:
    """Return a final metric's step: the last epoch where it has a curve too, else 0 (the UI draws a bar)."""
    return int(record["identity"]["epochs"]) if record["curves"].get(name) else 0


def metric_points(record: Record) -> list[Point]:
    """Return every metric value of a complete record once: curves by epoch, finals, timings."""
    begin, end = time_ms(record["started_at"]), time_ms(record["finished_at"])
    epochs = max(1, int(record["identity"]["epochs"]))
    found: dict[tuple[str, int], Point] = {}
    for name, step, value in _values(record):
        if value is not None:
            share = min(1.0, step / epochs) if step else 1.0
            clean = _name(name)
            found[clean, step] = Point(clean, float(value), step, round(begin + (end - begin) * share))
    return list(found.values())


def epoch_points(epoch: float, metrics: Mapping[str, Any], time_ms: int) -> list[Point]:
    """Return the points of one epoch as they come from a worker; values that are not finite are left out."""
    return [
        Point(_name(name), float(value), int(epoch), time_ms)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and abs(value) < float("inf")
    ]


def not_finite(record: Record) -> set[str]:
    """Return the names of metrics with a value that was not finite."""
    if "metrics" not in record:
        return set()
    return {name for name, _, value in _values(record) if value is None}


def _values(record: Record) -> Iterator[tuple[str, int, float | None]]:
    for name, curve in record["curves"].items():
        for epoch, value in curve:
            yield name, int(epoch), value
    for name, value in record["metrics"].items():
        yield name, final_step(record, name), value
    for name, value in record["timings"].items():
        yield f"time/{name}", 0, value


def _name(text: str) -> str:
    """Return a name as MLflow takes it."""
    return re.sub(r"[^\w. /:-]", "_", text)[:250]


def ui_command(tracking: Tracking) -> str:
    """Return what shows the runs: a command, or the server's address."""
    if tracking.uri.startswith(("http://", "https://")):
        return shown(tracking.uri)
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking.uri)}"


def shown(uri: str) -> str:
    """Return an address without the password in it."""
    return re.sub(r"//[^/@]*@", "//", uri)


def compare_url(base: str, experiment_id: str, sweep: str, chart: bool = False) -> str:
    """Return the address of a sweep's trials in the UI, best memorisation first.

    Args:
        base: the server's address, such as `http://127.0.0.1:5000`.
        experiment_id: the experiment's number.
        sweep: name of the sweep.
        chart: open the charts instead of the table.
    """
    query = {
        "searchFilter": f'tags.`in_{sweep}` LIKE "%"',
        "orderByKey": "metrics.`memory/nll`",
        "orderByAsc": "true",
        "compareRunsMode": "CHART" if chart else "TABLE",
    }
    return f"{base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{urlencode(query, quote_via=quote)}"


def totals(records: Iterable[Record]) -> dict[str, float]:
    """Return a sweep's sums: trials by status, hours and floating-point operations spent."""
    sums = dict.fromkeys([*(f"trials/{status}" for status in STATUSES), "time/trial_hours"], 0.0)
    flops = 0.0
    for record in records:
        sums[f"trials/{record['status']}"] += 1
        parts = [value or 0.0 for name, value in record["timings"].items() if name.endswith("_s")]
        sums["time/trial_hours"] += sum(parts) / 3600
        flops += record.get("flops") or 0.0
    return {**sums, "cost/flops": flops}
