"""The storage of sweeps: records, manifests and locks under one folder or object-store address.

    STORAGE/NAME/plan.json, choices.json, results.parquet
    STORAGE/NAME/trains/lm_<model>/layer_<layer>/<num_clusters>/<allocation>_<mem_seed>/alpha_<alpha>/<id>/
        record.json, predictions.parquet, memory.safetensors

Every path given or returned is relative to the storage's root.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sweep.records.files import Files, open_files
from sweep.records.locks import hold
from sweep.records.record import PassedOver, Record, check_record, record_bytes
from trainables.errors import ConfigError, DataError
from trainables.trial.spec import TrialSpec

RECORD = "record.json"


@dataclass(frozen=True)
class RecordHead:
    """What the scan of a storage keeps of a record.

    Attributes:
        id: trial id.
        status: `done`, `diverged` or `failed`.
        sweep: the sweep that ran it.
        folder: its folder in the storage.
    """

    id: str
    status: str
    sweep: str
    folder: str


class RecordIndex(dict[str, RecordHead]):
    """All usable records of a storage by trial id; `warnings` names the files that were passed over."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.warnings: list[str] = []


class Store:
    """One storage address. Making one touches nothing; the first write makes the folders."""

    def __init__(self, uri: str, files: Files | None = None) -> None:
        """Open a storage.

        Args:
            uri: a folder, `s3://bucket/prefix`, or any address `pyarrow.fs.FileSystem.from_uri` takes.
            files: how to reach it, where the caller knows better.

        Raises:
            ConfigError: the address cannot be reached.
        """
        self.files = files or open_files(uri)
        self.uri = self.files.uri
        self.is_local = self.files.is_local

    def read_bytes(self, path: str) -> bytes:
        """Return a file's bytes; FileNotFoundError where there is none."""
        return self.files.read(path)

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all.

        Raises:
            ConfigError: the storage cannot be written.
        """
        self.files.write(path, data)

    def read_json(self, path: str) -> Any:
        """Return a JSON file's value, or None where there is no such file.

        Raises:
            DataError: the file cannot be read or is not JSON.
        """
        try:
            return json.loads(self.files.read(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{self.files.full(path)}: cannot be read ({error.strerror or error})") from None
        except ValueError as error:
            raise DataError(f"{self.files.full(path)}: not JSON ({error}); remove it") from None

    def write_json(self, path: str, value: Any) -> None:
        """Write a value as JSON, whole or not at all."""
        self.files.write(path, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def full(self, path: str = "") -> str:
        """Return a path with the storage's root, as a person would type it."""
        return self.files.full(path)

    def check_writable(self) -> None:
        """Write, read back and delete a small file.

        Raises:
            ConfigError: the storage cannot be written.
        """
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        self.files.write(probe, b"probe")
        if self.files.read(probe) != b"probe":
            raise ConfigError(f"storage={self.uri!r}: gives back other bytes than were written; use another")
        self.files.delete(probe)

    def storage_id(self) -> str:
        """Return the random name of this storage, made at first use; it stays when the folder moves."""
        path = "storage.json"
        found = self.read_json(path)
        if isinstance(found, dict) and found.get("id"):
            return str(found["id"])
        fresh = uuid.uuid4().hex[:12]
        self.write_json(path, {"id": fresh, "format": 1})
        return fresh

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Return a context in which this process alone works on the sweep `name`.

        Raises:
            ConfigError: on entering: another run holds it (its pid, host and start are named).
        """
        check_name(name)
        return hold(self.files, name)

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps in this storage: folders with a manifest or records."""
        return [
            name
            for name in self.files.folders("")
            if self.files.exists(f"{name}/plan.json") or self.files.exists(f"{name}/trains")
        ]

    def trial_folder(self, sweep: str, spec: TrialSpec, model_name: str, trial: str) -> str:
        """Return the folder of a trial; `spec` is canonical, so equal trials have equal folders."""
        layer = "none" if spec.layer is None else str(spec.layer)
        model = re.sub(r"[^\w.+-]", "_", model_name)
        return (
            f"{sweep}/trains/lm_{model}/layer_{layer}/{spec.groups}/{spec.allocation}_{spec.mem_seed}"
            f"/alpha_{spec.alpha}/{trial}"
        )

    def write_record(self, record: Record, folder: str) -> None:
        """Store a record in its trial's folder, after checking it.

        Raises:
            DataError: the record is not whole.
            ConfigError: the storage cannot be written.
        """
        check_record(record)
        self.files.write(f"{folder}/{RECORD}", record_bytes(record))

    def read_record(self, folder: str) -> Record:
        """Return the record in a trial's folder.

        Raises:
            PassedOver: it cannot be read, or is of another version.
            DataError: it is broken.
        """
        path = f"{folder}/{RECORD}"
        where = self.files.full(path)
        try:
            record = json.loads(self.files.read(path))
        except OSError as error:
            raise PassedOver(f"{where}: cannot be read ({error.strerror or error})") from None
        except ValueError as error:
            raise DataError(f"{where}: not JSON ({error})") from None
        check_record(record, where)
        return dict(record)

    def index(self, set_aside: bool = True) -> RecordIndex:
        """Find every record of every sweep in this storage.

        Of two records of one trial the one with a result counts, then the first by folder.

        Args:
            set_aside: rename a broken record to `record.json.broken`, so that the trial is run again.
        """
        folders = [
            path[: -len(RECORD) - 1]
            for name in self.files.folders("")
            for path in self.files.find(f"{name}/trains", RECORD)
        ]
        found = RecordIndex()
        for folder, head in zip(folders, self._each(self._head, folders), strict=True):
            if isinstance(head, DataError):
                found.warnings.append(self._set_aside(folder, head) if set_aside else str(head))
            elif head.id not in found or (found[head.id].status == "failed" and head.status != "failed"):
                found[head.id] = head
        return found

    def read_records(self, heads: Iterable[RecordHead]) -> Iterator[Record]:
        """Read the records behind some heads, in their order.

        Raises:
            DataError: a record has gone or broken since the index was made.
        """
        yield from self._each(self.read_record, [head.folder for head in heads])

    def _head(self, folder: str) -> RecordHead | DataError:
        try:
            record = self.read_record(folder)
        except DataError as error:
            return error
        return RecordHead(record["id"], record["status"], record["sweep"], folder)

    def _each(self, function: Callable[[str], Any], folders: list[str]) -> Iterator[Any]:
        if self.is_local:
            yield from map(function, folders)
            return
        with ThreadPoolExecutor(max_workers=16) as pool:
            yield from pool.map(function, folders)

    def _set_aside(self, folder: str, problem: DataError) -> str:
        if isinstance(problem, PassedOver):
            return str(problem)
        target = f"{folder}/{RECORD}.broken"
        if self.files.exists(target):
            target = f"{target}-{uuid.uuid4().hex[:6]}"
        try:
            self.files.move(f"{folder}/{RECORD}", target)
        except ConfigError as error:
            return f"{problem}; not used, and not set aside: {error}"
        return f"{problem}; set aside as {target.rpartition('/')[2]}"


def check_name(name: str) -> str:
    """Return a sweep's name if it can be a folder's name.

    Raises:
        ConfigError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", name) or name == "mlartifacts":
        raise ConfigError(f"name={name!r}: must be letters, digits, '_', '-' and '.', at most 100 of them")
    return name
