"""A sweep's table, `results.parquet`: one row per trial, made from its records and always rebuildable.

Columns: `id`, `sweep` (which ran it), `stage` (first of this sweep's that asks for it), `stages`, `status`;
every identity field, with `model` and `data` as the user named them; `model_key` and `data_key`, what these
contain; `depth` and `groups`, derived; every metric under its own name, `count/…`, `time/…`; `flops`, `host`,
`started_at`, `finished_at`, `error`, `folder`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sweep.records.names import display_names
from sweep.records.record import Record
from sweep.records.store import RecordHead, Store
from trainables.trial.spec import IDENTITY_FIELDS, TrialSpec

RESULTS = "results.parquet"
MANIFEST = "plan.json"


def manifest_stages(store: Store, name: str) -> list[tuple[str, list[str]]]:
    """Return a sweep's stages and the ids of their trials known so far, in the order of its manifest."""
    manifest = store.read_json(f"{name}/{MANIFEST}") or {}
    return [(str(stage["name"]), list(stage.get("ids") or [])) for stage in manifest.get("stages", [])]


def sweep_stages(store: Store, name: str, index: Mapping[str, RecordHead]) -> dict[str, list[str]]:
    """Return the stages that each trial of a sweep belongs to, in the manifest's order.

    Without a manifest, every trial that the sweep ran belongs to it, its stage unknown.
    """
    found: dict[str, list[str]] = {}
    for stage, trials in manifest_stages(store, name):
        for trial in trials:
            found.setdefault(trial, []).append(stage)
    return found or {head.id: [] for head in index.values() if head.sweep == name}


def results_table(store: Store, name: str) -> Any:
    """Return a sweep's table; trials that other sweeps of the storage ran for it are in it.

    Returns:
        A `pyarrow.Table`, one row per trial that has a record, in the manifest's order.

    Raises:
        DataError: a record went or broke while it was being read.
    """
    import pyarrow as pa

    index = store.index(set_aside=False)
    stages = sweep_stages(store, name, index)
    heads = [index[trial] for trial in stages if trial in index]
    records = list(store.read_records(heads))
    names = display_names(record["model"] for record in records)
    rows = [
        _row(record, stages[record["id"]], head.folder) | {"model": names[str(record["model"].get("key"))]}
        for head, record in zip(heads, records, strict=True)
    ]
    schema = _schema(rows)
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema},
        schema=schema,
    )


def table_bytes(store: Store, name: str) -> bytes:
    """Return a sweep's table as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(results_table(store, name), sink)
    return bytes(sink.getvalue())


def write_results(store: Store, name: str) -> str:
    """Write a sweep's table into its folder and return the path."""
    path = f"{name}/{RESULTS}"
    store.write_bytes(path, table_bytes(store, name))
    return path


def _row(record: Record, stages: list[str], folder: str) -> dict[str, Any]:
    stated, model, layer = record["identity"], record["model"], record["identity"]["layer"]
    error = record.get("error") or {}
    return {
        "id": record["id"],
        "sweep": record["sweep"],
        "stage": stages[0] if stages else record["stage"],
        "stages": "+".join(stages) or record["stage"],
        "status": record["status"],
        **stated,
        "model": model["name"],
        "data": record["data"]["given"],
        "model_key": stated["model"],
        "data_key": stated["data"],
        "depth": None if layer is None else (layer + 1) / model["num_blocks"],
        "groups": stated["num_clusters"] or stated["num_documents"],
        **record["metrics"],
        **{f"count/{name}": value for name, value in record["counts"].items()},
        **{f"time/{name}": value for name, value in record["timings"].items()},
        "flops": record.get("flops"),
        "host": record["host"],
        "started_at": record["started_at"],
        "finished_at": record["finished_at"],
        "error": ": ".join(filter(None, (error.get("class"), error.get("message")))) or None,
        "folder": folder,
    }


def _schema(rows: list[dict[str, Any]]) -> Any:
    """Return the columns: fixed ones first, then metrics, counts and timings by name, all of them numbers."""
    import pyarrow as pa

    types = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    known = {"id": pa.string(), **{name: pa.string() for name in ("sweep", "stage", "stages", "status")}}
    for field in fields(TrialSpec):
        if field.name in IDENTITY_FIELDS:
            text = str(field.type).split(" | ")[0]
            item = text.removeprefix("tuple[").split(",")[0]
            known[field.name] = pa.list_(types[item]) if text.startswith("tuple") else types[text]
    known |= {"model_key": pa.string(), "data_key": pa.string(), "groups": pa.int64()}
    last = {"flops": pa.float64()}
    last |= {name: pa.string() for name in ("host", "started_at", "finished_at", "error", "folder")}
    measured = sorted({name for row in rows for name in row} - set(known) - set(last))
    return pa.schema([*known.items(), *((name, pa.float64()) for name in measured), *last.items()])
