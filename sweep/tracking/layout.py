"""What a trial looks like in MLflow: its params, tags, metric values and data set.

All of it is a function of the trial's record, so that a run fed live and one built later are the same; what follows
from other trials as well (its name, its description, how it compares) is added by `publish` as `Added`. Runs are flat,
since the MLflow UI leaves nested ones out of its table and charts; the tag `in_<sweep>` ties a sweep's trials together.
Nothing here talks to MLflow.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sweep.records.record import STATUSES, Record, code_version, record_hash, seconds_since_epoch
from sweep.records.starts import START, start_text
from sweep.tracking.run_content import Added, LoggedData, MetricValue, WholeRun
from sweep.tracking.run_names import Naming
from trainables.trial.canonical import unused_fields
from trainables.trial.identity import STATED_DEFAULTS

LAYOUT = 3  # raise it when runs change their look: publish then builds them anew
PARAM_NAMES = {
    "model": "lm_size",
    "num_documents": "selected_docs",
    "layer": "hook_layer",
    "allocation": "memory_allocation",
    "num_shots": "shots",
}
DEPTH = "hook_depth"
"""Param of the layer as a share of the model's depth."""
COLOURS = {
    "none": "#666666", "random": "#e69f00", "partitioned": "#0072b2", "simset1": "#56b4e9", "simset2": "#009e73",
    "simset3": "#cc79a7", "pretrained": "#000000", "full_update": "#d55e00",
}  # fmt: skip
PLAIN_COLOURS = ("#666666", "#8c510a", "#01665e", "#762a83", "#b2182b", "#2166ac")
"""Colours of plain memories, by model: they are what is compared over layers, where there is no allocation to tell."""
"""Colour of a run in the UI, by allocation or method: the palette of Okabe and Ito, safe for colour-blind readers."""
_LEFT_OUT = {"fever/f1_micro"}  # equals the accuracy, where each question has one answer
_SHOWN_TIMES = ("train_s", "evaluate_s")
_TAG_CHARS = 4000
_DIGEST_CHARS = 36


def time_ms(stamp: str) -> int:
    """Return a record's time as MLflow takes it, in milliseconds since the epoch."""
    return round(1000 * seconds_since_epoch(stamp))


def run_params(record: Record) -> dict[str, str]:
    """Return the identity fields that the trial has a use for, under short stable keys; unset ones are left out.

    Switches are 1 and 0. A pretrained model has no alpha, a trial without CounterFact no temperature: fewer values make
    MLflow's pages open sooner, and its columns say more.
    """
    stated, model = record["identity"], record["model"]
    unused = unused_fields({**STATED_DEFAULTS, **stated})
    params = {}
    for name, value in stated.items():
        if name in unused:
            continue
        if name == "model":
            value = model["name"]
        elif name == "data":
            value = record["data"]["given"]
        elif name == START:
            value = start_text(record)
        elif name == "num_clusters":
            value = value or stated["num_documents"]
        text = _param(value)
        if text:
            params[PARAM_NAMES.get(name, name)] = text
    if stated["layer"] is not None and "layer" not in unused:
        params[DEPTH] = _param((stated["layer"] + 1) / model["num_blocks"])
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
        "code_version": code_version(record),
        "status": record["status"],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": f"sweep.run {record['sweep']}",
        "mlflow.source.git.commit": code.get("commit", "").removesuffix("-dirty"),
        "mlflow.runColor": _colour(record),
        **{f"label.{name}": str(value) for name, value in record.get("labels", {}).items()},
        **member_tags(members),
    }
    if record.get("start"):
        tags[START] = record["start"].get("trial", "")
    if record.get("error"):
        tags["error"] = f"{record['error'].get('class')}: {record['error'].get('message')}"
    if (record.get("timings") or {}).get("pack_size"):
        tags["pack_size"] = f"{record['timings']['pack_size']:g}"
    lost = sorted(not_finite(record))
    if lost:
        tags["not_finite"] = " ".join(lost)
    return {_name(name): value[:_TAG_CHARS] for name, value in tags.items() if value}


def _colour(record: Record) -> str:
    stated = record["identity"]
    return COLOURS.get(stated["allocation"] if stated["method"] == "memory" else stated["method"], "")


def member_tags(members: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that say which sweeps a trial belongs to, and to which of their stages."""
    return {f"in_{sweep}": stage or "-" for sweep, stage in members.items()}


def complete_mark(record: Record) -> str:
    """Return the value of the tag `complete`: it vouches that a run holds all of just this record."""
    return f"{LAYOUT}-{record_hash(record)}"


def complete_tags(record: Record, storage: str, members: Mapping[str, str], mark: str = "") -> dict[str, str]:
    """Return the tags of a run that holds all of a record; arguments as for `run_tags`, and its mark where known."""
    return {**run_tags(record, storage, members), "complete": mark or complete_mark(record)}


def run_status(record: Record) -> str:
    """Return MLflow's word for how a trial ended; diverging is a result."""
    return "FAILED" if record["status"] == "failed" else "FINISHED"


def whole_run(record: Record, storage: str, members: Mapping[str, str], added: Added | None = None) -> WholeRun:
    """Return the run of a complete record.

    Args:
        record: complete.
        storage: the storage's own id.
        members: the sweeps that the trial belongs to, each with its stage there.
        added: what else the run shows; a name among it counts instead of the usual one.
    """
    end, added = time_ms(record["finished_at"]), added or Added()
    return WholeRun(
        name=added.tags.get("mlflow.runName") or Naming().of_record(record),
        status=run_status(record),
        started_ms=time_ms(record["started_at"]),
        ended_ms=end,
        tags={**complete_tags(record, storage, members, added.mark), **added.tags},
        params=run_params(record),
        values=[*metric_values(record), *(MetricValue(name, v, 0, end) for name, v in added.values.items())],
        data=data_set(record),
    )


def data_set(record: Record) -> LoggedData:
    """Return the data that a trial read."""
    given, key = str(record["data"]["given"]), str(record["data"]["key"])
    counts = record.get("counts") or {}
    digest = key.rpartition("@")[2][:_DIGEST_CHARS]
    name = "+".join(os.path.basename(part.rstrip("/")) or part for part in given.split(","))
    return LoggedData(name, digest, json.dumps({"given": given}), json.dumps(counts))


def metric_values(record: Record) -> list[MetricValue]:
    """Return every metric value of a complete record once: curves by epoch, finals, times.

    A metric with a single value has step 0, whatever its epoch: the UI draws a bar for that, else a line with one dot.
    """
    begin, end = time_ms(record["started_at"]), time_ms(record["finished_at"])
    epochs = max(1, int(record["identity"]["epochs"]))
    found: dict[str, dict[int, float | None]] = {}
    for name, epoch, value in _values(record):
        if name not in _LEFT_OUT:
            found.setdefault(_name(name), {})[epoch] = value
    values = []
    for name, by_epoch in found.items():
        for epoch, value in by_epoch.items():
            share = min(1.0, epoch / epochs) if epoch else 1.0
            step = epoch if len(by_epoch) > 1 else 0
            if value is not None:
                values.append(MetricValue(name, float(value), step, round(begin + (end - begin) * share)))
    return values


def epoch_values(epoch: float, metrics: Mapping[str, Any], time_ms: int) -> list[MetricValue]:
    """Return the values of one epoch as they come from a worker; values that are not finite are left out."""
    return [
        MetricValue(_name(name), float(value), int(epoch), time_ms)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and abs(value) < float("inf") and name not in _LEFT_OUT
    ]


def not_finite(record: Record) -> set[str]:
    """Return the names of metrics with a value that was not finite."""
    if "metrics" not in record:
        return set()
    return {name for name, _, value in _values(record) if value is None}


def _values(record: Record) -> Iterator[tuple[str, int, float | None]]:
    last = int(record["identity"]["epochs"])
    for name, curve in record["curves"].items():
        for epoch, value in curve:
            yield name, int(epoch), value
    for name, value in record["metrics"].items():
        yield name, last if record["curves"].get(name) else 0, value
    for name in _SHOWN_TIMES:
        if name in record["timings"]:
            yield f"cost/{name}", 0, record["timings"][name]
    yield "cost/total_s", 0, seconds_spent(record)
    if record.get("flops"):
        yield "cost/flops", 0, record["flops"]


def seconds_spent(record: Record) -> float:
    """Return the time that all parts of a trial took together."""
    return sum(value or 0.0 for name, value in record["timings"].items() if name.endswith("_s"))


def _name(text: str) -> str:
    """Return a name as MLflow takes it."""
    return re.sub(r"[^\w. /:-]", "_", text)[:250]


def totals(records: Iterable[Record]) -> dict[str, float]:
    """Return a sweep's sums: trials by status, hours and floating-point operations spent."""
    sums = dict.fromkeys([*(f"sweep/{status}" for status in STATUSES), "sweep/trial_hours", "sweep/flops"], 0.0)
    for record in records:
        sums[f"sweep/{record['status']}"] += 1
        sums["sweep/trial_hours"] += seconds_spent(record) / 3600
        sums["sweep/flops"] += record.get("flops") or 0.0
    return sums
