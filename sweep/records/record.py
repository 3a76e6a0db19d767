"""The record of one trial: what it was, what came out, with what.

Records are the truth; tables and MLflow are made from them. A record is plain JSON; numbers that are not
finite are stored as null.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import sweep
from sweep.records.record_shape import wrong_part
from trainables.errors import DataError
from trainables.lm.card import ModelCard
from trainables.node.checksums import BROKEN_SEAL, SEAL, read_sealed_json, sealed
from trainables.probes.registry import probe_plans
from trainables.trial.identity import ID_VERSION, training_id, trial_id
from trainables.trial.spec import TrialSpec

Record = dict[str, Any]

FORMAT = 2
TRAINING_FORMAT = 3
FORMATS = (1, 2, TRAINING_FORMAT)
"""Formats that are read. The first has no checksums: neither of the record itself nor of the files beside it. Up to the
second a record holds a whole trial, with what its probes found, and its answers lie beside it; as such a trial is still
seen by all who read results. Since the third what is stored is a training, and each asking has a record of its own
(`sweep.records.askings`)."""
STATUSES = ("done", "stopped", "diverged", "failed")
LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "ray",
    "mlflow",
    "optuna",
    "numpy",
    "pyarrow",
    "scikit-learn",
)
_RESULT_PARTS: dict[str, type] = {"metrics": dict, "curves": dict, "counts": dict, "timings": dict}
_OBJECTS = ("identity", "model", "data", "versions", "labels")
_TEXTS = ("sweep", "stage", "pack", "host", "started_at", "finished_at")
_IN_IDENTITY = (
    "model",
    "data",
    "method",
    "layer",
    "allocation",
    "alpha",
    "content",
    "epochs",
    "num_documents",
    "num_clusters",
    "probes",
    "seed",
)
"""Fields that readers take from a record's identity as they are; others may be younger than the record."""


class PassedOver(DataError):
    """A record that is not used but left where it is: of another version, or unreadable for the moment."""


@dataclass(frozen=True)
class Origin:
    """Who asked for a trial.

    Attributes:
        sweep: name of the sweep that ran it.
        stage: stage within the sweep.
        pack: id of the pack it ran in.
        labels: free tags, shown in MLflow.
    """

    sweep: str
    stage: str = ""
    pack: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def begin_record(spec: TrialSpec, stated: Mapping[str, Any], card: ModelCard, origin: Origin) -> Record:
    """Write down all that is known of a trial before it runs.

    Args:
        spec: the trial, canonical.
        stated: its identity, from `trainables.trial.identity.identity`.
        card: its model.
        origin: sweep, stage, pack and labels.

    Returns:
        A record without results, its status `running`.
    """
    return {
        "format": FORMAT,
        "id_version": ID_VERSION,
        "id": trial_id(stated),
        "status": "running",
        "sweep": origin.sweep,
        "stage": origin.stage,
        "pack": origin.pack,
        "labels": dict(origin.labels),
        "identity": dict(stated),
        "seed": spec.seed,
        "model": {
            "name": card.name,
            "key": card.key,
            "given": spec.model,
            "revision": card.revision,
            "commit": card.commit,
            "path": "" if card.is_hub else card.source,
            "family": card.family,
            "num_blocks": card.num_blocks,
            "model_dim": card.model_dim,
            "params": card.params,
        },
        "data": {"key": stated["data"], "given": spec.data},
        "probe_versions": {plan.name: plan.version for plan in probe_plans(vars(spec))},
        "host": socket.gethostname(),
        "versions": versions(),
        "started_at": timestamp(),
    }


def complete_record(begun: Record, result: Mapping[str, Any]) -> Record:
    """Add a trial's result to its begun record.

    Args:
        begun: from `begin_record`.
        result: what the worker returned: `status`, `metrics`, `curves`, `counts`, `timings`, `flops`, `host`,
            `versions`, `error`, `files` (what it left beside the record), and, where it knows better than the driver,
            `started_at` and `finished_at`.

    Raises:
        DataError: the result is not one, or belongs to another trial.
    """
    if result.get("id", begun["id"]) != begun["id"]:
        raise DataError(f"record {begun['id']}: the result of trial {result['id']} was handed in for it")
    record = {
        **begun,
        "status": result.get("status"),
        **{part: plain(result.get(part) or {}) for part in _RESULT_PARTS},
        "flops": plain(result.get("flops")),
        "host": result.get("host") or begun["host"],
        "node": result.get("node", ""),
        "versions": {**begun["versions"], **(result.get("versions") or {})},
        "started_at": result.get("started_at") or begun["started_at"],
        "finished_at": result.get("finished_at") or timestamp(),
        "error": plain(result.get("error")),
        "files": plain(result.get("files") or {}),
    }
    check_record(record)
    return record


def check_record(record: Any, where: str = "record") -> None:
    """Refuse what is not a whole record whose id follows from its identity.

    Raises:
        PassedOver: written by another version of the software.
        DataError: `where` and what is wrong.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a record")
    _check_version(record, where)
    if record.get("status") not in STATUSES:
        raise DataError(f"{where}: status {record.get('status')!r} is none of {', '.join(STATUSES)}")
    kinds = {**_RESULT_PARTS, **dict.fromkeys(_OBJECTS, dict), **dict.fromkeys(_TEXTS, str)}
    kinds |= {"files": dict} if record["format"] >= 2 else {}
    for part, kind in kinds.items():
        if not isinstance(record.get(part), kind):
            raise DataError(f"{where}: {part} is missing or not {'an object' if kind is dict else 'text'}")
    for name in _IN_IDENTITY:
        if name not in record["identity"]:
            raise DataError(f"{where}: identity lacks {name}")
    if trial_id(record["identity"]) != record.get("id"):
        raise DataError(f"{where}: id {record.get('id')!r} does not follow from its identity")
    if record["format"] == TRAINING_FORMAT and training_id(record["identity"]) != record.get("training"):
        raise DataError(f"{where}: training {record.get('training')!r} does not follow from its identity")
    part = wrong_part(record)
    if part:
        raise DataError(f"{where}: {part} is not what a record has there")


def _check_version(record: Record, where: str) -> None:
    if record.get("format") not in FORMATS or record.get("id_version") != ID_VERSION:
        raise PassedOver(
            f"{where}: written by another version (format {record.get('format')}, "
            f"ids {record.get('id_version')}; this one has {FORMAT}, {ID_VERSION}); it is not used"
        )


def record_bytes(record: Record) -> bytes:
    """Return a record as it is stored: JSON, one stable spelling, with a checksum of all of it."""
    return _json_bytes(sealed(record) if record["format"] >= 2 else record)


def parse_record(text: bytes, where: str) -> Record:
    """Read what `record_bytes` gave.

    Raises:
        PassedOver: written by another version of the software.
        DataError: it is not a whole record, or not what was written.
    """
    try:
        record, checksum = read_sealed_json(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if isinstance(record, dict):
        _check_version(record, where)
        if record["format"] >= 2 and SEAL not in record:
            raise DataError(f"{where}: its {SEAL} is missing")
        if record.pop(SEAL, checksum) != checksum:
            raise DataError(f"{where}: {BROKEN_SEAL}")
    check_record(record, where)
    return dict(record)


def record_hash(record: Record) -> str:
    """Return a short fingerprint of everything in a record."""
    return hashlib.blake2b(_json_bytes(record), digest_size=8).hexdigest()


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()


def plain(value: Any) -> Any:
    """Return a value as plain JSON: not finite numbers become None, numpy scalars become Python's."""
    kind = type(value)
    if kind is float:  # nearly all that curves hold
        return value if math.isfinite(value) else None
    if kind is int or kind is str or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "item"):
        return plain(value.item())
    number = float(value)
    return number if math.isfinite(number) else None


def timestamp(seconds: float | None = None) -> str:
    """Return a moment (default: now) as ISO 8601 in UTC."""
    moment = time.time() if seconds is None else seconds
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds")


def seconds_since_epoch(moment: str) -> float:
    """Undo `timestamp`."""
    return datetime.fromisoformat(moment).timestamp()


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("memory-sweep", sweep.__version__), ("commit", _commit())]
    found.append(("python", platform.python_version()))
    for name in LIBRARIES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple((name, version) for name, version in found if version)


def versions() -> dict[str, str]:
    """Return the versions of this code (with its git commit, if there is one), Python and the libraries."""
    return dict(_versions())


def code_version(record: Record) -> str:
    """Return the version of this software that made a record, with its commit where it is known."""
    code = record["versions"]
    return "+".join(filter(None, (code.get("memory-sweep"), code.get("commit"))))


def _commit() -> str:
    """Return the checkout's commit, `-dirty` with uncommitted changes; empty where there is no checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
