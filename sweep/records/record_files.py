"""The files beside the records: answers, samples, analyses, weights. Compared with what their records say of them.

A record keeps size and checksum of each file that its trial left. Weights are compared by size alone, since a sweep may
have hundreds of gigabytes of them; they have a checksum of their own, compared when they are loaded. Records of the
first format keep neither: of their files it is checked that they can be read and agree with themselves.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sweep.records.askings import old_answers
from sweep.records.record import Record
from sweep.records.sweep_storage import RecordHead, RecordIndex, SweepStorage
from trainables.node.checksums import content_sum, read_plain_json
from trainables.trial.asking import ASKINGS

WEIGHTS = ".safetensors"
ANSWERS = "predictions.parquet"
_JSON_FILES: Mapping[str, type] = {"samples.json": list, "analysis.json": dict}
_LETTERS = {"SUPPORTS": "a", "REFUTES": "b", "NOT ENOUGH INFO": "c"}
_READERS = 16


def damaged_files(storage: SweepStorage, heads: Iterable[RecordHead]) -> dict[str, dict[str, str]]:
    """Return what is wrong with the files of some trials: trial id -> file -> a line.

    Raises:
        StorageError: the storage cannot be read.
    """
    listed = list(heads)

    def look(head: RecordHead) -> dict[str, str]:
        record = head.record()
        told = record.get("files")
        found = _old_problems(storage, head.folder, record) if told is None else _problems(storage, head.folder, told)
        return {name: f"{storage.full(f'{head.folder}/{name}')}: {problem}" for name, problem in found.items()}

    with ThreadPoolExecutor(1 if storage.is_local else _READERS) as pool:
        return {head.id: found for head, found in zip(listed, pool.map(look, listed), strict=True) if found}


def set_damaged_aside(storage: SweepStorage, index: RecordIndex, heads: Iterable[RecordHead]) -> list[str]:
    """Set aside the records whose files are damaged, so that what they say is made again, and return a line on each.

    Without its answers an asking is asked again; without another of its files a training is run again.
    """
    return _leave_out(index, damaged_files(storage, heads), lambda folder: storage.set_aside(f"{folder}/record.json"))


def leave_damaged_out(storage: SweepStorage, index: RecordIndex, heads: Iterable[RecordHead]) -> list[str]:
    """Take what has damaged files out of an index, as a run would, and return a line on each; nothing is changed."""
    return _leave_out(index, damaged_files(storage, heads), lambda folder: "")


def _leave_out(
    index: RecordIndex, damaged: Mapping[str, Mapping[str, str]], set_aside: Callable[[str], str]
) -> list[str]:
    notes = []
    for trial, problems in damaged.items():
        head = index.get(trial)
        if head is None:
            continue  # it shares its training with one before, whose line says it
        asked = {name: _asking_of(head, name) for name in problems}
        if all(asked.values()):
            told = ""
            for folder, probe in filter(None, asked.values()):
                told = told if probe else set_aside(folder)
                index.lose_asking(folder, probe)
            what = f"trial {trial} is asked again"
        else:
            told, what = set_aside(head.folder), f"trial {trial} runs again"
            index.lose_training(head.folder)
        notes.append(f"{'; '.join(problems.values())}; {what}" + (f", its record {told}" if told else ""))
    return notes


def _asking_of(head: RecordHead, name: str) -> tuple[str, str] | None:
    """Return the folder of the asking whose answers a file holds, and its probe if it has no record of its own."""
    if name.startswith(f"{ASKINGS}/"):
        return f"{head.folder}/{name.rpartition('/')[0]}", ""
    probes = [probe for probe in head.record()["identity"]["probes"] if old_answers(probe) == name]
    return (head.folder, probes[0]) if probes else None


def _problems(storage: SweepStorage, folder: str, told: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, file in told.items():
        try:
            if name.endswith(WEIGHTS):
                bytes_there = storage.size(f"{folder}/{name}")
                problem = "" if bytes_there == file["bytes"] else f"has {bytes_there:,} bytes, not {file['bytes']:,}"
            else:
                same = content_sum(storage.read(f"{folder}/{name}")) == file["blake2b"]
                problem = "" if same else "not what the trial wrote (its checksum is another)"
        except FileNotFoundError:
            problem = "missing"
        if problem:
            found[name] = problem
    return found


def _old_problems(storage: SweepStorage, folder: str, record: Record) -> dict[str, str]:
    """Check the files of a record without checksums."""
    found = {}
    for name, kind in _JSON_FILES.items():
        try:
            if not isinstance(read_plain_json(storage.read(f"{folder}/{name}")), kind):
                found[name] = "not what this file holds"
        except FileNotFoundError:
            continue
        except ValueError as error:
            found[name] = f"not readable ({error})"
    try:
        problem = _answers_problem(storage.read(f"{folder}/{ANSWERS}"), record["metrics"].get("fever/accuracy"))
    except FileNotFoundError:
        return found
    return {**found, ANSWERS: problem} if problem else found


def _answers_problem(content: bytes, accuracy: float | None) -> str:
    """Say where answers contradict themselves or the accuracy that was made of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(content), columns=["label", "rows", "parsed", "correct"]).to_pylist()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return f"not readable ({(str(error).splitlines() or [type(error).__name__])[0]})"
    right = weight = 0
    for number, row in enumerate(rows):
        letter, label, count = row["parsed"], row["label"], row["rows"]
        if label not in _LETTERS or letter not in (*_LETTERS.values(), None) or type(count) is not int or count < 0:
            return f"answer {number}: label {label!r}, answered {letter!r}, counted {count!r} times"
        if row["correct"] is not (letter == _LETTERS[label]):
            return f"answer {number}: {letter!r} to {label!r} is said to be {'right' if row['correct'] else 'wrong'}"
        right, weight = right + count * (letter == _LETTERS[label]), weight + count
    if weight and accuracy is not None and abs(right / weight - accuracy) > 1e-6:
        return f"accuracy {right / weight:.6g}, in the record {accuracy:.6g}"
    return ""
