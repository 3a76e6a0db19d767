"""The records of a storage in memory: trials by their ids, each put together of its training and its askings."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sweep.records.askings import AskingHead, answers_of, bare, embedded, identities, merged
from sweep.records.record import TRAINING_FORMAT, Record
from trainables.node.checksums import SEAL
from trainables.trial.asking import ASKINGS, Asking, own_askings
from trainables.trial.identity import training_id, trial_id


@dataclass(frozen=True)
class RecordHead:
    """A record as the scan of a storage has read it: its head at hand, the rest compressed.

    So 10,000 records of 5.6 kB take 17 MB (`benchmarks.made_up`), and a driver may keep all of them.

    Attributes:
        id: trial id.
        status: `done`, `stopped`, `diverged` or `failed`.
        sweep: the sweep that ran it.
        folder: its training's folder in the storage.
        training: id of the training.
        is_whole: whether it holds a whole trial, as those of earlier formats and those put together here do.
    """

    id: str
    status: str
    sweep: str
    folder: str
    training: str
    is_whole: bool
    _packed: bytes = field(repr=False)

    @classmethod
    def of(cls, record: Record, folder: str, text: bytes = b"") -> RecordHead:
        """Keep a checked record; `text` is what is stored of it, if that is at hand."""
        text = text or json.dumps(record).encode()
        training, is_whole = training_id(record["identity"]), record["format"] < TRAINING_FORMAT
        packed = zlib.compress(text, 1)
        return cls(record["id"], record["status"], record["sweep"], folder, training, is_whole, packed)

    def record(self) -> Record:
        """Return the whole record; the storage is not read again."""
        record = dict(json.loads(zlib.decompress(self._packed)))
        record.pop(SEAL, None)
        return record


class RecordIndex(dict[str, RecordHead]):
    """All usable records of a storage by trial id; `warnings` names the files that were passed over.

    A trial is there once its training is and everything that its own fields ask has been answered; a training that
    failed, diverged or was stopped is asked nothing and is a result as it is.
    """

    def __init__(self) -> None:
        """Start empty."""
        super().__init__()
        self.warnings: list[str] = []
        self._trainings: dict[str, list[RecordHead]] = {}
        self._askings: dict[str, dict[str, AskingHead]] = {}
        self._embedded: dict[str, list[AskingHead]] = {}
        self._lost: set[tuple[str, str]] = set()
        self._planned: dict[str, dict[str, Any]] = {}
        self._changes: Counter[str] = Counter()
        self._viewed: dict[str, int] = {}

    def take(self, head: RecordHead | AskingHead) -> None:
        """Take in what was read or written; trials are put together by `settle` or `view`."""
        self._changes[head.training] += 1
        if isinstance(head, AskingHead):
            self._askings.setdefault(head.training, {})[head.id] = head
            return
        known = [other for other in self._trainings.get(head.training, ()) if other.folder != head.folder]
        self._trainings[head.training] = [*known, head]
        self._embedded.pop(head.training, None)

    def add(self, head: RecordHead) -> None:
        """Take a record in: of two of one trial the one with a result counts, then the first.

        One that lies where another lay replaces it.
        """
        self.take(head)
        if not head.is_whole:
            self.view(head.record()["identity"])
            return
        known = self.get(head.id)
        if known is None or known.folder == head.folder or (known.status == "failed" and head.status != "failed"):
            self[head.id] = head

    def know(self, trials: Mapping[str, Any]) -> None:
        """Take in which trials a sweep's plan lists, those left out that no entry of a plan looks like."""
        for trial, told in trials.items():
            if isinstance(told, dict) and isinstance(told.get("training"), str) and isinstance(told.get("asks"), dict):
                self._planned.setdefault(told["training"], {})[trial] = told

    def settle(self) -> None:
        """Put all trials together that are recorded or planned."""
        for training, heads in self._trainings.items():
            for head in heads:
                if not head.is_whole:
                    self.view(head.record()["identity"])
                else:
                    known = self.get(head.id)
                    if known is None or (known.status == "failed" and head.status != "failed"):
                        self[head.id] = head
                    if self._askings.get(training):
                        self.view(head.record()["identity"])
            planned = self._planned.get(training)
            if planned:
                for stated in identities(heads[0].record()["identity"], planned).values():
                    self.view(stated)

    def view(self, stated: Mapping[str, Any]) -> RecordHead | None:
        """Return a trial's record, put together anew, if all of it is there; it is in the index from then on.

        Args:
            stated: the trial's identity.
        """
        trial, training = trial_id(stated), training_id(stated)
        head = self.training(training)
        if head is None or self._viewed.get(trial) == self._changes[training]:
            return self.get(trial)
        self._viewed[trial] = self._changes[training]
        askings = self.askings(training)
        own = [answers_of(asking, askings) for asking in own_askings(stated)] if head.status == "done" else []
        answered = [found for found in own if found is not None]
        if len(answered) < len(own):
            return None
        stored = next((h for h in self._trainings[training] if h.id == trial), None)
        alone = not self._askings.get(training) and len(self._trainings[training]) == 1
        if stored is not None and stored.is_whole and alone:
            self[trial] = stored
            return stored
        record = merged(bare(head.record()), head.folder, stated, askings, answered)
        self[trial] = RecordHead.of(record, head.folder)
        return self[trial]

    def stated(self, trial: str) -> Record | None:
        """Return the record that says what a trial is, also of one that lacks answers; None where nothing does."""
        if trial in self:
            return self[trial].record()
        for heads in self._trainings.values():
            for head in heads:
                if head.id == trial:
                    return head.record()
        return None

    def training(self, training: str) -> RecordHead | None:
        """Return the record of a training: of several one that is done, then the first."""
        heads = self._trainings.get(training, ())
        return next((head for head in heads if head.status == "done"), heads[0] if heads else None)

    def trainings(self, training: str) -> tuple[RecordHead, ...]:
        """Return all records that there are of a training, in any sweep."""
        return tuple(self._trainings.get(training, ()))

    def askings(self, training: str) -> list[AskingHead]:
        """Return all that a training was asked, by records of any format."""
        if training not in self._embedded:
            found = []
            for head in self._trainings.get(training, ()):
                if head.is_whole:
                    found += [AskingHead.of(record, head.folder) for record in embedded(head.record())]
            self._embedded[training] = found
        kept = [h for h in self._embedded[training] if (h.folder, h.record()["probe"]) not in self._lost]
        return [*kept, *self._askings.get(training, {}).values()]

    def answer(self, training: str, asking: Asking, any_version: bool = True) -> AskingHead | None:
        """Return the record that answers an asking, if there is one."""
        return answers_of(asking, self.askings(training), any_version)

    def lose_training(self, folder: str) -> None:
        """Forget the record of a training that lies in a folder, and the trials made of it."""
        for training, heads in list(self._trainings.items()):
            left = [head for head in heads if head.folder != folder]
            if len(left) < len(heads):
                self._changes[training] += 1
                self._trainings[training] = left
                self._embedded.pop(training, None)
                if not left:
                    del self._trainings[training]
        self._forget(folder)

    def lose_asking(self, folder: str, probe: str = "") -> None:
        """Forget an asking whose answers are of no use, and the trials that it belongs to.

        Args:
            folder: of the asking; of the whole record where it has none of its own.
            probe: which, in a whole record.
        """
        if probe:
            self._lost.add((folder, probe))
        for askings in self._askings.values():
            for key in [key for key, head in askings.items() if head.folder == folder]:
                del askings[key]
        self._forget(folder.partition(f"/{ASKINGS}/")[0])

    def _forget(self, folder: str) -> None:
        """Take out the trials made of what lies in a folder; those still whole are put together again."""
        gone = [head for head in self.values() if head.folder == folder]
        for head in gone:
            self._changes[head.training] += 1
            del self[head.id]
        for head in gone:
            self.view(head.record()["identity"])
