"""A space planned with what a storage holds: records of any sweep, and one sweep's choices and draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.planning.choices import NoCandidate, decide, settled
from sweep.planning.costs import Estimate, estimate, measure
from sweep.planning.expand import Plan, build_plan
from sweep.planning.load import asked_space
from sweep.planning.show import plan_json, plan_text
from sweep.records.manifest import manifest_stages
from sweep.records.record import timestamp
from sweep.records.store import RecordHead, RecordIndex, Store, check_name
from sweep.space import Space

RECORDS_TO_MEASURE = 50
"""Records read to learn this hardware's speed: the median settles within some tens, and reading stays quick."""


@dataclass(frozen=True)
class CostedPlan:
    """What a sweep would run, and what that costs.

    Attributes:
        name: of the sweep.
        plan: the space expanded: stages, points, what is equivalent or done.
        costs: of the trials that are left to run.
        choices: recorded choices by question key.
    """

    name: str
    plan: Plan
    costs: Estimate
    choices: Mapping[str, Mapping[str, Any]]

    def __str__(self) -> str:
        """In words, as `python -m sweep.plan` prints it."""
        return plan_text(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, as `--json` prints it."""
        return plan_json(self)


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

    Raises:
        ConfigError: a mistake in the space or the arguments.
        DataError: data, or a file of the storage, that cannot be read.
    """
    found = asked_space(space, settings=settings, small=small, select_by=select_by, data=data, seed=seed)
    return costed_plan(found, Store(str(storage)), check_name(name or found.name), stage, retry_failed)


def costed_plan(
    space: Space, store: Store, name: str, until_stage: str | None = None, retry_failed: bool = False
) -> CostedPlan:
    """Plan a space with what a storage holds, and state the cost of what is left.

    Raises:
        ConfigError: as `plan_of`.
        DataError: as `plan_of`.
    """
    store.check_answers()
    index = store.index(set_aside=False)
    choices = store.read_json(f"{name}/choices.json") or {}
    plan = plan_of(space, index, choices, store, name, until_stage, retry_failed)
    points = {point.id: point for stage in plan.stages for point in stage.points}
    heads = [index[trial] for trial in points if trial in index][:RECORDS_TO_MEASURE]
    return CostedPlan(name, plan, estimate(plan, measure(points, (head.record() for head in heads))), choices)


def done_trials(index: Mapping[str, RecordHead], retry_failed: bool) -> set[str]:
    """Return the ids of the trials that are not to be run again."""
    return {trial for trial, head in index.items() if not (retry_failed and head.status == "failed")}


def plan_of(
    space: Space,
    index: RecordIndex,
    choices: Mapping[str, Mapping[str, Any]],
    store: Store,
    name: str,
    until_stage: str | None = None,
    retry_failed: bool = False,
) -> Plan:
    """Plan a space with what a storage holds: records of any sweep, choices and draws of the sweep `name`.

    A choice that is not recorded yet, but follows from records there are, is taken as made.

    Raises:
        ConfigError: values at odds with each other, the models or the data; no such stage.
        DataError: data, or a file of the storage, that cannot be read.
    """
    drawn = dict(manifest_stages(store, name)) if any(stage.sampling for stage in space.stages) else {}
    done = done_trials(index, retry_failed)
    failed = {trial for trial in done if index[trial].status == "failed"}
    plan = build_plan(space, done, choices, until_stage, drawn, failed)
    made = {}
    for question in plan.questions:
        ids = [point.id for point in question.candidates]
        if settled(question, choices) is None and done.issuperset(ids):
            records = {trial: index[trial].record() for trial in ids}
            try:
                made[question.key] = decide(question, records, timestamp()) or {}
            except NoCandidate:
                continue  # the stage cannot go on for this group, which the sweep says when it gets there
    return build_plan(space, done, {**choices, **made}, until_stage, drawn, failed) if made else plan
