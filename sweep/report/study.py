"""Read what one or several sweeps have left under a storage path.

Only records, plan and choices are read here; predictions are read where they are compared. A sweep may be
unfinished: the plan says which points it wants, and those without a record are counted as missing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.records.askings import answers_paths
from sweep.records.names import display_names
from sweep.records.record import Record, code_version
from sweep.records.record_files import damaged_files
from sweep.records.starts import START, start_text
from sweep.records.storage_id import MANIFEST, storage_file_problem
from sweep.records.sweep_files import CHOICES, broken_files, read_sweep_file
from sweep.records.sweep_storage import RecordHead, RecordIndex, SweepStorage
from trainables.errors import ConfigError
from trainables.node.checksums import read_plain_json
from trainables.trial.canonical import unused_fields
from trainables.trial.identity import STATED_DEFAULTS


@dataclass(frozen=True)
class Trial:
    """One recorded trial.

    Attributes:
        id: trial id.
        sweep: name of the sweep whose folder holds the record.
        stage: stage that ran it.
        status: `done`, `stopped` (early, by a scheduler), `diverged` or `failed`.
        model: short model name.
        point: identity fields, `model` and `data` as they are keyed (by content), `start_from` in words, so that trials
            which started from repetitions of one trial are repetitions too.
        data: short name of the data.
        metrics: final values by name.
        curves: `[[epoch, value], …]` by name.
        counts: pages and rows: `n_full`, `n_top`, `n_trunc`, …
        num_blocks: blocks of the model, 0 where the record does not say.
        folder: the record's folder, relative to the storage.
        unused: fields of the point that mean nothing here, such as the epochs of a pretrained model.
        code: version of this software that recorded it, empty where it is not known.
        probe_versions: version of each probe that it was asked; records from before these were stated are of 1.
        files: the files beside its record that may be read; None where the record does not say.
        damaged: files that are not what the record says; they are not read.
        answers: where the answers to what it was asked lie in the storage, by the askings' labels.
        error: what it failed of, its class and message; empty for others.
        labels: what its record says of where it comes from.
    """

    id: str
    sweep: str
    stage: str
    status: str
    model: str
    point: Mapping[str, Any]
    data: str
    metrics: Mapping[str, float]
    curves: Mapping[str, Sequence[Sequence[float]]]
    counts: Mapping[str, int]
    num_blocks: int
    folder: str
    unused: frozenset[str] = frozenset()
    probe_versions: Mapping[str, int] = field(default_factory=dict)
    code: str = ""
    files: frozenset[str] | None = None
    damaged: frozenset[str] = frozenset()
    answers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def answers_problem(self, label: str) -> str:
        """Say why the answers to an asking are not to be read; empty where they may be."""
        path = self.answers.get(label, "")
        file = path.removeprefix(f"{self.folder}/")
        if file in self.damaged:
            return f"{path} is damaged"
        return "" if path and (file == path or self.may_read(file)) else f"{path or 'its answers file'} is missing"

    def may_read(self, file: str) -> bool:
        """Say whether a file beside the record is the trial's, and whole."""
        return file not in self.damaged and (self.files is None or file in self.files)

    def get(self, name: str) -> Any:
        """Return a field of the point, None where it means nothing; `model` and `data` by their short names."""
        if name in self.unused:
            return None
        if name in ("model", "data"):
            return self.model if name == "model" else self.data
        return self.point.get(name)

    def metric(self, name: str) -> float | None:
        """Return a finite final metric of a finished trial, else None."""
        value = self.metrics.get(name)
        if self.status != "done" or value is None or not math.isfinite(value):
            return None
        return float(value)


@dataclass(frozen=True)
class StageStatus:
    """How far one stage is.

    Attributes:
        name: its name.
        planned: points planned.
        done, stopped, diverged, failed: points recorded, by status.
        awaited: ids of points without a record.
        unknown: points whose ids follow from a choice that has not been made yet.
    """

    name: str
    planned: int
    done: int
    stopped: int
    diverged: int
    failed: int
    awaited: frozenset[str] = frozenset()
    unknown: int = 0

    @property
    def missing(self) -> int:
        """Points planned that have no record."""
        return len(self.awaited) + self.unknown


@dataclass(frozen=True)
class Sweep:
    """One sweep: its stages, the choices it made, and the ids that its plan names, whoever ran them."""

    name: str
    space: str
    stages: tuple[StageStatus, ...]
    choices: Any = None
    planned: frozenset[str] = frozenset()

    def asks_for(self, trial: Trial) -> bool:
        """Whether a trial is one of this sweep: it ran it, or its plan names it."""
        return trial.sweep == self.name or trial.id in self.planned


@dataclass(frozen=True)
class Study:
    """All that a report is about.

    Attributes:
        storage: the storage.
        sweeps: the sweeps asked for.
        trials: their trials, each id once, in the order of sweep and id.
        unreadable: records and other files that could not be read or are not what was written, and why.
        baselines: pretrained trials of the storage's other sweeps; trials of these are compared with them, too.
    """

    storage: SweepStorage
    sweeps: tuple[Sweep, ...]
    trials: tuple[Trial, ...]
    unreadable: tuple[str, ...] = field(default=())
    baselines: tuple[Trial, ...] = ()

    @property
    def everyone(self) -> tuple[Trial, ...]:
        """The trials, and what they may be compared with besides."""
        return (*self.trials, *self.baselines)

    @property
    def missing(self) -> int:
        """Points planned that have no record yet; one that several stages or sweeps want counts once."""
        stages = [stage for sweep in self.sweeps for stage in sweep.stages]
        return len({i for stage in stages for i in stage.awaited}) + sum(s.unknown for s in stages)


def load_study(
    storage: SweepStorage,
    names: Sequence[str] = (),
    index: RecordIndex | None = None,
    damaged: Mapping[str, Mapping[str, str]] | None = None,
) -> Study:
    """Read the records, plans and choices of the named sweeps, or of all in the storage.

    A point of a named sweep's plan whose record lies in another sweep's folder is taken from there.

    Args:
        storage: the storage.
        names: sweeps; none for all.
        index: the records of the storage, where they have been read already.
        damaged: what `damaged_files` says of them, where they have been checked already.

    Raises:
        ConfigError: no such sweep.
    """
    known = storage.sweeps()
    wanted = list(names) or known
    for name in wanted:
        if name not in known:
            raise ConfigError(f"{storage.full(name)}: no such sweep; there are: {', '.join(known) or 'none'}")
    plans = {name: read_sweep_file(storage, name, MANIFEST) or {} for name in wanted}
    planned = {i for plan in plans.values() for stage in plan.get("stages", ()) for i in stage.get("ids") or ()}
    index = storage.index(set_aside=False) if index is None else index
    heads = [head for head in index.values() if head.id in planned or head.sweep in wanted]
    records = [head.record() for head in heads]
    num_own, keys = len(heads), {record["model"].get("key") for record in records}
    for head in index.values():
        if head.id not in planned and head.sweep not in wanted:
            record = head.record()
            if record["identity"]["method"] == "pretrained" and record["model"].get("key") in keys:
                heads.append(head)
                records.append(record)
    models = display_names(record["model"] for record in records)
    if damaged is None:
        damaged = damaged_files(storage, heads)
    else:
        damaged = {head.id: damaged[head.id] for head in heads if head.id in damaged}
    found = [
        _trial(record, head, models, frozenset(damaged.get(head.id, ())))
        for head, record in zip(heads, records, strict=True)
    ]
    trials, baselines = (sorted(part, key=lambda t: (t.sweep, t.id)) for part in (found[:num_own], found[num_own:]))
    status = {trial.id: trial.status for trial in trials}
    sweeps = []
    for name in wanted:
        own = [trial for trial in trials if trial.sweep == name]
        stages = tuple(_stage(s, status) for s in plans[name].get("stages", ())) or _stages_of(own)
        choices = read_sweep_file(storage, name, CHOICES)
        ids = frozenset(i for stage in plans[name].get("stages", ()) for i in stage.get("ids") or ())
        sweeps.append(Sweep(name, str(plans[name].get("space", name)), stages, choices, ids))
    unreadable = [*index.warnings, storage_file_problem(storage)]
    unreadable += [line for name in wanted for line in broken_files(storage, name).values()]
    unreadable += [line for lines in damaged.values() for line in lines.values()]
    return Study(storage, tuple(sweeps), tuple(trials), tuple(filter(None, unreadable)), tuple(baselines))


def read_extra(storage: SweepStorage, trial: Trial, name: str) -> Any:
    """Return a JSON file that lies beside the record (`samples.json`, `analysis.json`); None without a whole one."""
    if not trial.may_read(name):
        return None
    try:
        return read_plain_json(storage.read(f"{trial.folder}/{name}"))
    except (OSError, ValueError):
        return None


def read_answers_table(storage: SweepStorage, trial: Trial, label: str) -> Any:
    """Return the Arrow table of the answers to an asking.

    Raises:
        OSError: it cannot be read.
        ValueError: it is broken.
    """
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(storage.read(trial.answers[label])))


def _stage(entry: Mapping[str, Any], status: Mapping[str, str]) -> StageStatus:
    ids = list(entry.get("ids") or ())
    found = [status.get(i) for i in ids]
    unknown = max(0, int(entry.get("points") or 0) - len(ids))
    return StageStatus(
        name=str(entry.get("name", "")),
        planned=len(ids) + unknown,
        done=found.count("done"),
        stopped=found.count("stopped"),
        diverged=found.count("diverged"),
        failed=found.count("failed"),
        awaited=frozenset(i for i in ids if i not in status),
        unknown=unknown,
    )


def _stages_of(trials: Sequence[Trial]) -> tuple[StageStatus, ...]:
    """Make up stages where there is no plan: what is recorded is all there is."""
    ids: dict[str, list[str]] = {}
    for trial in trials:
        ids.setdefault(trial.stage, []).append(trial.id)
    status = {trial.id: trial.status for trial in trials}
    return tuple(_stage({"name": name, "ids": own}, status) for name, own in ids.items())


def _trial(record: Record, head: RecordHead, names: Mapping[str, str], damaged: frozenset[str]) -> Trial:
    point, model = {**STATED_DEFAULTS, **record["identity"], START: start_text(record)}, record["model"]
    data = record.get("data") or {}
    return Trial(
        id=str(record["id"]),
        sweep=head.sweep,
        stage=str(record["stage"]),
        status=str(record["status"]),
        model=names[str(model.get("key"))],
        point=point,
        data=str(data.get("given") or point["data"]),
        metrics=record["metrics"],
        curves=record["curves"],
        counts=record["counts"],
        num_blocks=int(model.get("num_blocks") or 0),
        folder=head.folder,
        unused=unused_fields(point),
        code=code_version({"versions": {}, **record}),
        probe_versions=dict.fromkeys(point["probes"], 1) | (record.get("probe_versions") or {}),
        files=None if record.get("files") is None else frozenset(record["files"]),
        damaged=damaged,
        answers=answers_paths(record, head.folder),
        error=": ".join(filter(None, ((record.get("error") or {}).get(part) for part in ("class", "message")))),
        labels=record.get("labels") or {},
    )
