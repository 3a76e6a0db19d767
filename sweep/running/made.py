"""Whether all that is made from a sweep's records is there as they say: then a run with nothing to do ends at once.

That is known without reading any of it: when a run has brought everything up to date it writes down what it was made
from, and how MLflow's database stood. Only a database in a file tells that it has not changed; a server is asked each
time, as is a database that something else has written to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from sweep.records.record import record_hash, versions
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import CHOICES, STEERING
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.tracking.address import Tracking, sqlite_file

FILE = "made.json"


@dataclass(frozen=True)
class Made:
    """What a run would write down.

    Attributes:
        storage: the storage.
        name: of the sweep.
        index: the records; a trial of another sweep may be what this one's are compared with.
        tracking: where runs go.
        files: what has to lie in the sweep's folder.
    """

    storage: SweepStorage
    name: str
    index: RecordIndex
    tracking: Tracking
    files: tuple[str, ...]

    def is_there(self) -> bool:
        """Tell whether everything was made from the same records by the same code, and nothing has changed since."""
        try:
            kept = json.loads(self.storage.read(f"{self.name}/{FILE}"))
        except (FileNotFoundError, ValueError):
            return False
        is_same = isinstance(kept, dict) and kept == self._state()
        return is_same and all(self.storage.exists(f"{self.name}/{file}") for file in self.files)

    def note(self) -> None:
        """Write down that everything has been made."""
        state = self._state()
        if state is not None:
            self.storage.write_json(f"{self.name}/{FILE}", state)

    def _state(self) -> dict[str, Any] | None:
        """Return what everything is made from and into; None where MLflow can change without our knowing."""
        database = sqlite_file(self.tracking.uri)
        if database is None:
            return None
        try:
            found = database.stat()
        except OSError:
            return None
        of_code = versions()
        parts = [str(of_code.get("memory-sweep")), str(of_code.get("commit"))]
        parts += sorted(record_hash(head.record()) for head in self.index.values())
        parts += [self._text(file) for file in (MANIFEST, CHOICES, STEERING)]
        return {
            "made_from": hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest(),
            "database": [str(database.absolute()), found.st_size, found.st_mtime_ns],
            "experiment": self.tracking.experiment,
        }

    def _text(self, file: str) -> str:
        try:
            return self.storage.read(f"{self.name}/{file}").decode()
        except FileNotFoundError:
            return ""
