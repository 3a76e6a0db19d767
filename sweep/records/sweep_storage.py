"""The storage of sweeps: records, manifests and locks under one folder or object-store address.

    STORAGE/NAME/plan.json, choices.json, results.parquet
    STORAGE/NAME/trains/lm_<model>/layer_<layer>/<num_clusters>/<allocation>_<mem_seed>/alpha_<alpha>/<training's id>/
        record.json, memory.safetensors, analysis.json
        probes/<asking's id>/record.json, answers.parquet

Every path given or returned is relative to the storage's root.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from sweep.records.askings import AskingHead, asking_bytes, parse_asking
from sweep.records.claims import Claims
from sweep.records.index import RecordHead, RecordIndex
from sweep.records.locks import Hold, hold
from sweep.records.record import PassedOver, Record, check_record, parse_record, record_bytes
from sweep.records.storage_id import MANIFEST, storage_id
from trainables.errors import ConfigError, DataError
from trainables.node.addresses import shown
from trainables.node.checksums import read_plain_json
from trainables.node.storage import Storage, StorageError
from trainables.trial.asking import ASKINGS
from trainables.trial.spec import TrialSpec

__all__ = ["RecordHead", "RecordIndex", "SweepStorage"]

RECORD = "record.json"
ANSWER_S = 12.0
"""Ours: with looking up the region of a bucket of S3 before, a store that is away is named within 20 s."""
RESERVED = ("storage.json", "mlartifacts", "trains")
"""Names of what a storage keeps beside its sweeps; a folder `trains` marks a sweep."""


def as_folder(model_name: str) -> str:
    """Return what stands for a model's name in the folders of its trials."""
    return re.sub(r"[^\w.+-]", "_", model_name)


class SweepStorage(Storage):
    """The storage of some sweeps. Making one touches nothing; the first write makes the folders.

    While a sweep is locked (`lock`), what is written into its folder is written under that lock: a run that has lost it
    meanwhile overwrites nothing.
    """

    def __init__(self, uri: str | Path) -> None:
        """Take an address; see `Storage`."""
        super().__init__(uri)
        self._holds: dict[str, Hold] = {}

    def write(self, path: str, data: bytes) -> None:
        """Write a file, making its folders, whatever was there.

        Raises:
            LockLost: it lies in the folder of a sweep that this process had locked and another has taken over.
        """
        held = self._holds.get(path.partition("/")[0])
        if held is None:
            super().write(path, data)
        else:
            held.write(path, data)

    def delete(self, path: str) -> None:
        """Remove a file; a missing one is no error.

        Raises:
            LockLost: it lies in the folder of a sweep that this process had locked and another has taken over.
        """
        self.check_lock(path.partition("/")[0])
        super().delete(path)

    def write_json(self, path: str, value: Any) -> None:
        """Write a value as JSON, whole or not at all."""
        self.write(path, json.dumps(value, indent=1, ensure_ascii=False).encode())

    def check_answers(self) -> None:
        """Ask an object store for anything, so that one that does not answer is named soon.

        The client's own limits hold for each request and each source of keys that it tries, which adds up to minutes.

        Raises:
            StorageError: it cannot be reached, or does not answer in time.
        """
        if self.is_local:
            return
        found: Queue[StorageError | None] = Queue()

        def ask() -> None:
            try:
                self.exists("storage.json")
            except StorageError as error:
                found.put(error)
            else:
                found.put(None)

        Thread(target=ask, daemon=True, name="storage-answers").start()
        try:
            error = found.get(timeout=ANSWER_S)
        except Empty:
            raise StorageError(
                f"storage={shown(self.uri)!r}: does not answer within {ANSWER_S:g} s; is there a network and a key for "
                "it? Or choose another --storage"
            ) from None
        if error is not None:
            raise error

    def check_writable(self) -> None:
        """Write, read back and delete a small file.

        Raises:
            StorageError: the storage cannot be written.
        """
        probe = f".probe-{uuid.uuid4().hex[:8]}"
        self.write(probe, b"probe")
        if self.read(probe) != b"probe":
            raise ConfigError(f"storage={self.uri!r}: gives back other bytes than were written; use another")
        self.delete(probe)

    def storage_id(self) -> str:
        """Return the random name of this storage, made at first use; it stays when the folder moves.

        Where its file is lost, the name is found again (`sweep.records.storage_id`): MLflow knows runs by it.
        """
        return storage_id(self)

    def lock(self, name: str, without: bool = False) -> AbstractContextManager[None]:
        """Return a context in which this process alone works on the sweep `name`.

        Args:
            name: of the sweep.
            without: take no lock; the user sees to it that there is only one writer.

        Raises:
            ConfigError: on entering: another run holds it (its pid, host and start are named), or the storage has
                nothing to keep another away with.
        """
        check_name(name)
        return nullcontext() if without else self._locked(name)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with hold(self, name) as held:
            self._holds[name] = held
            try:
                yield
            finally:
                del self._holds[name]

    def check_lock(self, name: str) -> None:
        """Do nothing, unless this process had locked a sweep and has lost it.

        Raises:
            LockLost: it has.
        """
        if name in self._holds:
            self._holds[name].check()

    def claims(self, name: str) -> Claims | None:
        """Return the claims on trials of a sweep that this process has locked; None without a lock."""
        return Claims(self, name, self._holds[name].token) if name in self._holds else None

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps in this storage: folders with a manifest or records."""
        return [name for name in self.folders() if self.is_sweep(name)]

    def is_sweep(self, folder: str = "") -> bool:
        """Say whether a folder, or the storage itself, is a sweep's: with a manifest or records."""
        return self.exists(f"{folder}/{MANIFEST}".lstrip("/")) or "trains" in self.folders(folder)

    def trial_folder(self, sweep: str, spec: TrialSpec, model_name: str, trial: str) -> str:
        """Return the folder of a trial; `spec` is canonical, so equal trials have equal folders."""
        layer = "none" if spec.layer is None else str(spec.layer)
        return (
            f"{sweep}/trains/lm_{as_folder(model_name)}/layer_{layer}/{spec.groups}/{spec.allocation}_{spec.mem_seed}"
            f"/alpha_{spec.alpha}/{trial}"
        )

    def write_asking(self, record: Record, folder: str) -> AskingHead:
        """Store the record of an asking in its folder, after checking it, and return it as an index keeps it.

        Args:
            record: of the asking.
            folder: of the training.

        Raises:
            DataError: the record is not whole.
            StorageError: the storage cannot be written.
        """
        place = f"{folder}/{ASKINGS}/{record['id']}"
        self.write(f"{place}/{RECORD}", asking_bytes(record))
        return AskingHead.of(record, place)

    def write_record(self, record: Record, folder: str) -> RecordHead:
        """Store a record in its training's folder, after checking it, and return it as an index keeps it.

        Raises:
            DataError: the record is not whole.
            StorageError: the storage cannot be written.
        """
        check_record(record)
        text = record_bytes(record)
        self.write(f"{folder}/{RECORD}", text)
        return RecordHead.of(record, folder, text)

    def read_record(self, folder: str) -> RecordHead:
        """Read the record in a trial's folder.

        Raises:
            PassedOver: it cannot be read, or is of another version.
            DataError: it is broken.
        """
        text, where = self._record_text(folder)
        return RecordHead.of(parse_record(text, where), folder, text)

    def read_asking(self, folder: str) -> AskingHead:
        """Read the record in an asking's folder.

        Raises:
            PassedOver: it cannot be read, or is of another version.
            DataError: it is broken.
        """
        text, where = self._record_text(folder)
        return AskingHead.of(parse_asking(text, where), folder)

    def _record_text(self, folder: str) -> tuple[bytes, str]:
        """Return the bytes of the record in a folder, and its place for messages."""
        path = f"{folder}/{RECORD}"
        try:
            return self.read(path), self.full(path)
        except OSError as error:
            raise PassedOver(str(error)) from None

    def add_training(self, index: RecordIndex, folders: Sequence[str]) -> bool:
        """Take the training that lies in one of some folders into an index, read now; say whether there was one."""
        for folder in folders:
            found = [path[: -len(RECORD) - 1] for path in self.find(folder, RECORD)]
            heads = [head for head in self._read_all(found) if not isinstance(head, DataError)]
            if any(isinstance(head, RecordHead) for head in heads):
                for head in heads:
                    index.take(head)
                return True
        return False

    def index(self, set_aside: bool = True) -> RecordIndex:
        """Read every record of every sweep in this storage, each once.

        A command does this once and hands the index on; what it writes it adds.

        Args:
            set_aside: rename a broken record to `record.json.broken`, so that the trial is run, or asked, again.
        """
        names = self.folders()
        folders = [path[: -len(RECORD) - 1] for name in names for path in self.find(f"{name}/trains", RECORD)]
        found = RecordIndex()
        for folder, head in zip(folders, self._read_all(folders), strict=True):
            if isinstance(head, DataError):
                found.warnings.append(self._set_aside(folder, head) if set_aside else str(head))
            else:
                found.take(head)
        for name in names:
            found.know(self.planned_trials(name))
        found.settle()
        return found

    def planned_trials(self, name: str) -> Mapping[str, Any]:
        """Return the trials that a sweep's plan lists with their trainings; none where there is no plan to be read."""
        try:
            trials = read_plain_json(self.read(f"{name}/{MANIFEST}"))["trials"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return trials if isinstance(trials, dict) else {}

    def set_aside(self, path: str) -> str:
        """Rename a broken file to `….broken`, so that it is made again, and say so.

        Raises:
            StorageError: it cannot be renamed.
        """
        target = f"{path}.broken"
        if self.exists(target):
            target = f"{target}-{uuid.uuid4().hex[:6]}"
        self.move(path, target)
        return f"set aside as {target.rpartition('/')[2]}"

    def _read_all(self, folders: list[str]) -> Iterator[RecordHead | AskingHead | DataError]:
        def read(folder: str) -> RecordHead | AskingHead | DataError:
            try:
                return self.read_asking(folder) if f"/{ASKINGS}/" in folder else self.read_record(folder)
            except DataError as error:
                return error

        if self.is_local:
            yield from map(read, folders)
            return
        with ThreadPoolExecutor(max_workers=16) as pool:
            yield from pool.map(read, folders)

    def _set_aside(self, folder: str, problem: DataError) -> str:
        if isinstance(problem, PassedOver):
            return str(problem)
        try:
            return f"{problem}; {self.set_aside(f'{folder}/{RECORD}')}"
        except StorageError as error:
            return f"{problem}; not used, and not set aside: {error}"


def check_name(name: str) -> str:
    """Return a sweep's name if it can be a folder's name.

    Raises:
        ConfigError: it cannot.
    """
    plain = name.casefold()
    if plain in RESERVED or plain.startswith("mlflow.db"):
        raise ConfigError(f"name={name!r}: the storage keeps a file or folder of its own under it; choose another")
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", name) or name.endswith("."):
        raise ConfigError(f"name={name!r}: must be letters, digits, '_', '-' and '.', at most 100 of them")
    return name


def split_location(location: str) -> tuple[SweepStorage, str | None]:
    """Tell `STORAGE` from `STORAGE/NAME`: a sweep's folder holds `plan.json` or `trains`.

    Raises:
        ConfigError: there is nothing of a sweep at the place.
    """
    storage = SweepStorage(location)
    if storage.is_sweep():
        parent, name = storage.above()
        return SweepStorage(parent), name
    if storage.sweeps():
        return storage, None
    raise ConfigError(f"{location}: no sweep there (no plan.json, no trains); give STORAGE or STORAGE/NAME")


def one_sweep(location: str) -> tuple[SweepStorage, str]:
    """Return the storage and the name of the only sweep that `STORAGE` or `STORAGE/NAME` means.

    Raises:
        ConfigError: there is none, or there are several.
    """
    storage, name = split_location(location)
    names = [name] if name else storage.sweeps()
    if len(names) != 1:
        raise ConfigError(f"{location}: holds several sweeps; give one of {', '.join(map(storage.full, names))}")
    return storage, names[0]
