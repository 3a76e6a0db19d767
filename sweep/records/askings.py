"""Records of askings, and how a trial's whole record is put together: its training's, and what it was asked.

    <training's folder>/record.json                         what was trained, and how it went
    <training's folder>/probes/<asking's id>/record.json    what was asked, and what came of it
    <training's folder>/probes/<asking's id>/answers.parquet

A record of an earlier format holds a whole trial; what it was asked is taken out of it as askings of format 1.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.records.record import FORMAT, TRAINING_FORMAT, PassedOver, Record
from sweep.records.record_shape import is_number
from trainables.errors import DataError
from trainables.node.checksums import BROKEN_SEAL, SEAL, read_sealed_json, sealed
from trainables.trial.asking import ANSWERS, ASKINGS, Asking, label_of, own_askings
from trainables.trial.identity import training_id, training_identity, trial_id

ASKING_FORMAT = 2
"""Of the record of an asking. Format 1 is what a whole record says of one."""
_OLD_ANSWERS: Mapping[str, str] = {"fever": "predictions.parquet", "counterfact": "samples.json"}
_OBJECTS = ("settings", "metrics", "curves", "counts", "timings", "files", "versions")
_TEXTS = ("id", "training", "probe", "data", "sweep", "stage", "host", "started_at", "finished_at")
_FROM_RESULT = ("sweep", "stage", "pack", "host", "node", "versions", "started_at", "finished_at")


@dataclass(frozen=True)
class AskingHead:
    """The record of an asking as an index keeps it, compressed, with its folder in the storage."""

    id: str
    training: str
    status: str
    folder: str
    _packed: bytes = field(repr=False)

    @classmethod
    def of(cls, record: Mapping[str, Any], folder: str) -> AskingHead:
        """Keep a checked record."""
        packed = zlib.compress(json.dumps(record).encode(), 1)
        return cls(record["id"], record["training"], record["status"], folder, packed)

    def record(self) -> Record:
        """Return the whole record."""
        return dict(json.loads(zlib.decompress(self._packed)))


def old_answers(probe: str) -> str:
    """Return the file beside a whole record in which the answers to a probe lie."""
    return _OLD_ANSWERS.get(probe, f"{probe}.parquet")


def split(whole: Record, askings: Iterable[Asking], told: Mapping[str, Any]) -> tuple[Record, list[Record]]:
    """Take a trial's whole record apart: that of its training, and one for each asking.

    Args:
        whole: complete.
        askings: what was asked, their labels those in the names of its metrics.
        told: by an asking's id, `counts` and `timings` of its own, where they are known apart.
    """
    training = {**whole, "format": TRAINING_FORMAT, "training": training_id(whole["identity"])}
    training.pop("probe_versions", None)
    found = []
    for asking in askings:
        own = told.get(asking.id, {})
        start, files = f"{asking.label}/", f"{asking.folder}/"
        found.append(
            {
                "format": ASKING_FORMAT,
                "id": asking.id,
                "training": training["training"],
                "status": "failed" if whole["status"] == "failed" else "done",
                "probe": asking.probe,
                "version": asking.version,
                "settings": dict(asking.settings),
                "data": asking.data,
                "epochs": list(asking.epochs),
                **{name: whole[name] for name in _FROM_RESULT if name in whole},
                "metrics": _taken(training, "metrics", start),
                "curves": _taken(training, "curves", start),
                "counts": dict(own.get("counts", {})),
                "timings": dict(own.get("timings", {})),
                "error": whole["error"] if whole["status"] == "failed" else None,
                "files": _taken(training, "files", files),
            }
        )
        training["timings"] = _without(training["timings"], own.get("timings", {}))
    return training, found


def embedded(whole: Record) -> list[Record]:
    """Return what a whole record of an earlier format says of its askings: records of format 1.

    Their answers lie in the trial's own folder.
    """
    versions = whole.get("probe_versions") or {}
    if whole["status"] != "done":
        return []
    own = [Asking(**{**vars(a), "version": versions.get(a.probe, 1)}) for a in own_askings(whole["identity"])]
    _, found = split({**whole, "files": dict(whole.get("files") or {})}, own, {})
    for record in found:
        record |= {"format": 1, "files": {}}
    return found


def bare(record: Record) -> Record:
    """Return the training's part of a record of any format."""
    if record["format"] == TRAINING_FORMAT:
        return record
    plain = {**record, "files": dict(record.get("files") or {})}
    training, _ = split(plain, own_askings(record["identity"]), {})
    for probe in record["identity"]["probes"]:
        training["files"].pop(old_answers(probe), None)
    return training


def identities(training: Mapping[str, Any], trials: Any) -> dict[str, dict[str, Any]]:
    """Return the identities of trials that a sweep's plan lists with one training, those that do not fit left out.

    Args:
        training: an identity that has this training.
        trials: as the plan has it: trial id -> `asks`, the fields that are other than the training's.
    """
    base, found = training_identity(training), {}
    for trial, told in trials.items():
        stated = {**base, **told["asks"]}
        if trial_id(stated) == trial:
            found[trial] = stated
    return found


def asks_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an identity that are other than those of its training."""
    base = training_identity(stated)
    return {name: value for name, value in stated.items() if base[name] != value}


def answers_of(asking: Asking, askings: Iterable[AskingHead], any_version: bool = True) -> AskingHead | None:
    """Return the record that answers an asking, if there is one: of the latest version that asked it.

    Args:
        asking: what is asked.
        askings: of its training.
        any_version: whether another version of the probe will do.
    """
    best: tuple[tuple[int, bool, int], AskingHead] | None = None
    for head in askings:
        record = head.record()
        same = record["probe"] == asking.probe and record["data"] == asking.data
        if not same or not _same_settings(record["settings"], asking.settings):
            continue
        if not (any_version or record["version"] == asking.version) or not set(asking.epochs) <= set(record["epochs"]):
            continue
        rank = (record["version"], record["status"] == "done", record["format"])
        if best is None or rank > best[0]:
            best = rank, head
    return best[1] if best else None


def merged(
    training: Record, folder: str, stated: Mapping[str, Any], askings: Sequence[AskingHead], own: Sequence[AskingHead]
) -> Record:
    """Return a trial's whole record: what its training came to and all that its weights were asked.

    What its own fields ask stands under the probe's name; what else was asked under a label that says how it differs
    (`fever:num_shots=5/accuracy`). Of two versions that asked the same the later one counts.

    Args:
        training: `bare`.
        folder: of the training.
        stated: the trial's identity.
        askings: all of the training.
        own: those that the trial's own fields ask.
    """
    whole = {**training, "format": FORMAT, "id": trial_id(stated), "identity": dict(stated)}
    for part in ("metrics", "curves", "counts", "timings", "files"):
        whole[part] = dict(training.get(part) or {})
    chosen: dict[str, tuple[int, AskingHead, Record]] = {}
    for head in askings:
        record = head.record()
        label = label_of(record["probe"], record["settings"], stated)
        rank = 2 * record["version"] + (record["format"] > 1)
        if record["status"] == "done" and (label not in chosen or rank > chosen[label][0]):
            chosen[label] = rank, head, record
    whole |= {"probe_versions": {}, "answers": {}, "askings": {}}
    for label, (_, head, record) in sorted(chosen.items()):
        for part in ("metrics", "curves"):
            whole[part] |= {f"{label}/{name}": value for name, value in record[part].items()}
        prefix = "" if label == record["probe"] else f"{label}/"
        whole["counts"] |= {f"{prefix}{name}": value for name, value in record["counts"].items()}
        if "evaluate_s" in record["timings"]:
            whole["timings"]["evaluate_s"] = whole["timings"].get("evaluate_s", 0.0) + record["timings"]["evaluate_s"]
        if head.folder.startswith(f"{folder}/"):
            below = head.folder[len(folder) + 1 :]
            whole["files"] |= {f"{below}/{name}": told for name, told in record["files"].items()}
        file = old_answers(record["probe"]) if record["format"] == 1 else ANSWERS
        whole["answers"][label] = f"{head.folder}/{file}"
        whole["probe_versions"][label] = record["version"]
        whole["askings"][label] = head.id
    first = [head.record() for head in own]
    if first and whole["id"] != training["id"]:
        whole |= {name: first[0][name] for name in ("sweep", "stage")}
    failed = [record for record in first if record["status"] == "failed"]
    if failed:
        whole |= {"status": "failed", "error": failed[0]["error"]}
    return whole


def answers_paths(record: Mapping[str, Any], folder: str) -> dict[str, str]:
    """Return where the answers of a trial lie in the storage, by the labels of its askings.

    Args:
        record: whole, of any format or put together.
        folder: of the trial.
    """
    if "answers" in record:
        return dict(record["answers"])
    return {name: f"{folder}/{old_answers(name)}" for name in record["identity"]["probes"]}


def answers_below(record: Mapping[str, Any]) -> dict[str, str]:
    """Return where a trial's answers lie below its own folder, by the labels of its askings; others are left out."""
    if "askings" not in record:
        return {label: path.lstrip("/") for label, path in answers_paths(record, "").items()}
    own = (f"{ASKINGS}/{key}/{ANSWERS}" for key in record["askings"].values())
    return {label: path for label, path in zip(record["askings"], own, strict=True) if path in record["files"]}


def asking_bytes(record: Record) -> bytes:
    """Return the record of an asking as it is stored, with a checksum of all of it."""
    check_asking(record)
    return json.dumps(sealed(record), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False).encode()


def parse_asking(text: bytes, where: str) -> Record:
    """Read what `asking_bytes` gave.

    Raises:
        PassedOver: written by another version of the software.
        DataError: it is not the record of an asking, or not what was written.
    """
    try:
        record, checksum = read_sealed_json(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if isinstance(record, dict):
        if record.get("format") != ASKING_FORMAT:
            raise PassedOver(f"{where}: written by another version (format {record.get('format')}); it is not used")
        if SEAL not in record:
            raise DataError(f"{where}: its {SEAL} is missing")
        if record.pop(SEAL) != checksum:
            raise DataError(f"{where}: {BROKEN_SEAL}")
    check_asking(record, where)
    return dict(record)


def check_asking(record: Any, where: str = "asking") -> None:
    """Refuse what is not a whole record of an asking whose id follows from what was asked.

    Raises:
        DataError: `where` and what is wrong.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a record")
    for part, kind in {**dict.fromkeys(_OBJECTS, dict), **dict.fromkeys(_TEXTS, str), "version": int}.items():
        if not isinstance(record.get(part), kind):
            raise DataError(f"{where}: {part} is missing or not what a record has there")
    if record.get("status") not in ("done", "failed"):
        raise DataError(f"{where}: status {record.get('status')!r} is none of done, failed")
    epochs = record.get("epochs")
    if not isinstance(epochs, list) or not all(type(epoch) is int for epoch in epochs):
        raise DataError(f"{where}: epochs is missing or not a list of numbers")
    if not all(value is None or is_number(value) for value in record["metrics"].values()):
        raise DataError(f"{where}: metrics is not what a record has there")
    asked = Asking(record["probe"], record["version"], "", record["settings"], record["data"])
    if asked.id != record["id"]:
        raise DataError(f"{where}: id {record['id']!r} does not follow from what was asked")


def _same_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare settings; one that a later version added is at its default in a record from before."""
    return label_of("", one, other) == "" and label_of("", other, one) == ""


def _taken(record: Record, part: str, start: str) -> dict[str, Any]:
    """Move what begins with some text out of a part of a record."""
    found = {name[len(start) :]: value for name, value in record[part].items() if name.startswith(start)}
    record[part] = {name: value for name, value in record[part].items() if not name.startswith(start)}
    return found


def _without(timings: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the seconds of asking out of those of a training, where the asking's record has them."""
    return {name: value for name, value in timings.items() if name != "evaluate_s" or "evaluate_s" not in own}
