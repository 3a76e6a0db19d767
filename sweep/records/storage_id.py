"""The random name of a storage, `storage.json`, by which MLflow knows its runs.

It is kept in the plan of every sweep too, and MLflow's own database in the storage has it in every run: a lost or
broken file gets the same name again, for with another one every run would be there twice.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from trainables.node.checksums import read_plain_json, sealed, unsealed
from trainables.node.storage import ChangedMeanwhile, NoConditionalPut, Storage

STORAGE_FILE, MANIFEST = "storage.json", "plan.json"


def storage_id(storage: Storage) -> str:
    """Return a storage's name, made at first use and found again where its file is lost or broken.

    Raises:
        StorageError: the storage cannot be read or written.
    """
    found = _id_in(storage, STORAGE_FILE, "id")
    if found:
        return found
    fresh = _found_again(storage) or uuid.uuid4().hex[:12]
    text = json.dumps(sealed({"id": fresh, "format": 1}), indent=1).encode()
    try:
        storage.put_if_absent(STORAGE_FILE, text)
    except ChangedMeanwhile:  # by another at the same time, or there is something else than an id
        other = _id_in(storage, STORAGE_FILE, "id")
        if other:
            return other
        storage.write(STORAGE_FILE, text)
    except NoConditionalPut:
        storage.write(STORAGE_FILE, text)
    return fresh


def storage_file_problem(storage: Storage) -> str:
    """Say what is wrong with the storage's file; empty where it is whole or not there."""
    if not storage.exists(STORAGE_FILE) or _id_in(storage, STORAGE_FILE, "id"):
        return ""
    return f"{storage.full(STORAGE_FILE)}: not the name of a storage"


def _id_in(storage: Storage, path: str, key: str) -> str:
    try:
        value: Any = read_plain_json(storage.read(path))
        found = unsealed(value).get(key) if isinstance(value, dict) else None
    except (FileNotFoundError, ValueError):
        return ""
    return found if isinstance(found, str) else ""


def _found_again(storage: Storage) -> str:
    """Return the name that most of the sweeps' plans have, else most runs in the storage's own MLflow; maybe none."""
    plans = Counter(filter(None, (_id_in(storage, f"{name}/{MANIFEST}", "storage") for name in storage.folders())))
    for found in (plans, Counter(_names_in_mlflow(storage)) if not plans and storage.is_local else plans):
        if found:
            return found.most_common(1)[0][0]
    return ""


def _names_in_mlflow(storage: Storage) -> Iterator[str]:
    path = Path(storage.full("mlflow.db"))
    if not path.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            yield from (name for (name,) in database.execute("SELECT value FROM tags WHERE key = 'storage'"))
    except sqlite3.Error:  # not MLflow's, or broken: MLflow itself will say so
        return
