"""A space planned with what a storage holds: records of any sweep, and one sweep's choices and draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sweep.planning.additions import Addition
from sweep.planning.choices import NoCandidate, Undecided, decide, settled
from sweep.planning.costs import estimate, measure
from sweep.planning.due import Records
from sweep.planning.expand import build_plan
from sweep.planning.inputs import data_notes, kept_commits, moved_notes
from sweep.planning.load import asked_space
from sweep.planning.plan import Plan
from sweep.planning.show import CostedPlan
from sweep.records.manifest import manifest_stages, recorded_stages, sweep_heads
from sweep.records.record import code_version, timestamp
from sweep.records.record_files import leave_damaged_out
from sweep.records.steering import Steering, read_steering
from sweep.records.storage_id import storage_file_problem
from sweep.records.sweep_files import CHOICES, broken_files, read_sweep_file
from sweep.records.sweep_storage import RecordHead, RecordIndex, SweepStorage, check_name
from sweep.space import Space

UNKNOWN = "an unknown version"
RECORDS_TO_MEASURE = 50
"""Records read to learn this hardware's speed: the median settles within some tens, and reading stays quick."""


def plan_sweep(
    space: Space | str | Path,
    storage: str | Path = "outputs",
    *,
    name: str | None = None,
    settings: Sequence[str] = (),
    small: bool = False,
    select_by: str | None = None,
    data: str | Sequence[str] | None = None,
    seed: int | None = None,
    stage: str | None = None,
    retry_failed: bool = False,
    probes: Sequence[str] = (),
    baseline: bool = True,
) -> CostedPlan:
    """Say what a sweep would run and cost; starts nothing and writes nothing.

    Args:
        space: a `Space`, the path of a search-space file, or the name of a shipped one.
        storage: where results are kept.
        name: of the sweep; None for the space's.
        settings: as after `--set`: `"FIELD=V[,V...]"`.
        small: the space's small form, on the sample world.
        select_by: metric that decides between stages.
        data: folders, or data by name: `fever`, `counterfact`, `sample`, `hub`.
        seed: of all trials.
        stage: only up to this stage.
        retry_failed: failed trials count as to run.
        probes: what all trials are asked besides, as after `--probe`: `"fever:num_shots=5"`.
        baseline: with the pretrained models to compare with.

    Raises:
        ConfigError: a mistake in the space or the arguments.
        DataError: data, or a file of the storage, that cannot be read.
    """
    found = asked_space(
        space,
        settings=settings,
        small=small,
        select_by=select_by,
        data=data,
        seed=seed,
        probes=probes,
        baseline=baseline,
    )
    return costed_plan(found, SweepStorage(str(storage)), check_name(name or found.name), stage, retry_failed)


def costed_plan(
    space: Space, storage: SweepStorage, name: str, until_stage: str | None = None, retry_failed: bool = False
) -> CostedPlan:
    """Plan a space with what a storage holds, and state the cost of what is left.

    Raises:
        ConfigError: as `plan_of`.
        DataError: as `plan_of`.
    """
    storage.check_answers()
    index = storage.index(set_aside=False)
    warnings = [*index.warnings, *broken_files(storage, name).values(), storage_file_problem(storage)]
    warnings += leave_damaged_out(storage, index, sweep_heads(storage, name, index))
    choices = read_sweep_file(storage, name, CHOICES) or {}
    commits = kept_commits(storage, name)
    plan = plan_of(space, index, choices, storage, name, until_stage, retry_failed, commits)
    points = {point.id: point for stage in plan.stages for point in stage.points}
    heads = [index[trial] for trial in points if trial in index]
    costs = estimate(plan, measure(points, (head.record() for head in heads[:RECORDS_TO_MEASURE])))
    versions = Counter(code_version(head.record()) or UNKNOWN for head in heads)
    notes = moved_notes(plan, commits, index) + Records(index, storage).old_versions(points.values()) + data_notes(plan)
    return CostedPlan(name, plan, costs, choices, versions, notes, tuple(filter(None, warnings)))


def done_trials(index: Mapping[str, RecordHead], retry_failed: bool) -> set[str]:
    """Return the ids of the trials that are not to be run again."""
    return {trial for trial, head in index.items() if not (retry_failed and head.status == "failed")}


def plan_of(
    space: Space,
    index: RecordIndex,
    choices: Mapping[str, Mapping[str, Any]],
    storage: SweepStorage,
    name: str,
    until_stage: str | None = None,
    retry_failed: bool = False,
    commits: Mapping[str, str] | None = None,
    steering: Steering | None = None,
) -> Plan:
    """Plan a space with what a storage holds: records of any sweep, choices and draws of the sweep `name`.

    A choice that is not recorded yet, but follows from records there are, is taken as made.

    Args:
        space: what is planned.
        index: all records.
        choices: recorded choices by their keys.
        storage: holds what the sweep drew before.
        name: of the sweep.
        until_stage: leave out the stages after this one.
        retry_failed: failed trials count as to run.
        commits: of models of the Hub, by `hub id@revision`; None for those at which the sweep began.
        steering: what the sweep was asked while it ran; None for what its file says. The records of trials that are to
            go on after they were stopped are taken out of `index`.

    Raises:
        ConfigError: values at odds with each other, the models or the data; no such stage.
        DataError: data, or a file of the storage, that cannot be read.
    """
    steering = read_steering(storage, name) if steering is None else steering
    for trial in steering.resumed:
        lose_stopped(index, trial)
    added = [Addition.of(wish) for wish in steering.additions]
    drawn: dict[str, list[str]] = {}
    if any(stage.sampling for stage in space.stages):
        drawn = dict(manifest_stages(storage, name)) or recorded_stages(name, index)
    done = done_trials(index, retry_failed)
    at = kept_commits(storage, name) if commits is None else commits
    failed = {trial for trial in done if index[trial].status == "failed"}
    state = Records(index, storage, retry_failed)
    plan = build_plan(space, done, choices, until_stage, drawn, at, failed, state, added)
    made = {}
    done = done_trials(index, retry_failed)
    for question in plan.questions:
        if settled(question, choices) is not None:
            continue
        records = {point.id: index[point.id].record() for point in question.candidates if point.id in done}
        try:
            choice = decide(question, records, timestamp())
        except (NoCandidate, Undecided):
            continue  # the stage cannot go on for this group, which the sweep says when it gets there
        if choice is not None:
            made[question.key] = choice
    if not made:
        return plan
    return build_plan(space, done, {**choices, **made}, until_stage, drawn, at, failed, state, added)


def lose_stopped(index: RecordIndex, trial: str) -> None:
    """Take the record of a trial that was stopped out of an index: the trial is to go on."""
    head = index.get(trial)
    if head is not None and head.status == "stopped":
        index.lose_training(head.folder)
