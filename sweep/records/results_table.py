"""A sweep's table, `results.parquet`: one row per trial, made from its records and always rebuildable.

Columns: `id`, `sweep` (which ran it), `stage` (first of this sweep's that asks for it), `stages`, `status`;
every identity field (and `maths`), with `model` and `data` as the user named them; `model_key` and `data_key`, what
these contain; `start_from`, in words how the weights were trained that the trial started from, `start_from_key`, the id
of that training; `depth` and `groups`, derived; every metric under its own name, `count/…`, `time/…`; `flops`,
`host`, `started_at`, `finished_at`, `error`, `folder`.
"""

from __future__ import annotations

from typing import Any

from sweep.records.manifest import sweep_stages
from sweep.records.names import display_names
from sweep.records.record import Record
from sweep.records.starts import START, start_text
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from trainables.trial.identity import MATHS, STATED_DEFAULTS
from trainables.trial.parts import IDENTITY_FIELDS
from trainables.trial.spec import FIELDS

RESULTS = "results.parquet"


def results_table(storage: SweepStorage, name: str, index: RecordIndex) -> Any:
    """Return a sweep's table; trials that other sweeps of the storage ran for it are in it.

    Args:
        storage: the storage.
        name: the sweep.
        index: the records of the storage.

    Returns:
        A `pyarrow.Table`, one row per trial that has a record, in the manifest's order.
    """
    import pyarrow as pa

    stages = sweep_stages(storage, name, index)
    heads = [index[trial] for trial in stages if trial in index]
    records = [head.record() for head in heads]
    names = display_names(record["model"] for record in records)
    rows = [
        _row(record, stages[head.id], head.folder) | {"model": names[str(record["model"].get("key"))]}
        for head, record in zip(heads, records, strict=True)
    ]
    schema = _schema(rows)
    return pa.table(
        {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema},
        schema=schema,
    )


def table_bytes(storage: SweepStorage, name: str, index: RecordIndex) -> bytes:
    """Return a sweep's table as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(results_table(storage, name, index), sink)
    return bytes(sink.getvalue())


def write_results(storage: SweepStorage, name: str, index: RecordIndex) -> str:
    """Write a sweep's table into its folder and return the path."""
    path = f"{name}/{RESULTS}"
    storage.write(path, table_bytes(storage, name, index))
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
        **STATED_DEFAULTS,
        **stated,
        "model": model["name"],
        "data": record["data"]["given"],
        "model_key": stated["model"],
        "data_key": stated["data"],
        START: start_text(record),
        "start_from_key": stated.get(START),
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

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    known = {"id": pa.string(), **{name: pa.string() for name in ("sweep", "stage", "stages", "status")}}
    for name in IDENTITY_FIELDS:
        item = FIELDS[name].item
        known[name] = pa.list_(types[item]) if item else types[FIELDS[name].base]
    known |= dict.fromkeys((MATHS, "model_key", "data_key", "start_from_key"), pa.string()) | {"groups": pa.int64()}
    last = {"flops": pa.float64()}
    last |= {name: pa.string() for name in ("host", "started_at", "finished_at", "error", "folder")}
    measured = sorted({name for row in rows for name in row} - set(known) - set(last))
    return pa.schema([*known.items(), *((name, pa.float64()) for name in measured), *last.items()])
