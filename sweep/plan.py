"""`python -m sweep.plan SPACE`: what a sweep would run and cost. Starts nothing, imports neither torch nor Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from sweep.cli import user_errors
from sweep.planning.choices import NoCandidate, decide, settled
from sweep.planning.costs import A100, Estimate, estimate, measure
from sweep.planning.expand import Plan, build_plan, make_packs
from sweep.planning.load import load_space
from sweep.planning.overrides import apply_overrides, select_by, small_form
from sweep.planning.packs import auto_pack_size
from sweep.records.names import moved_branches
from sweep.records.record import timestamp
from sweep.records.store import RecordHead, RecordIndex, Store, check_name
from sweep.records.table import manifest_stages
from sweep.space import Space

RECORDS_TO_MEASURE = 50
EXAMPLES = """
Examples:

  python -m sweep.plan search_spaces/inductive.py

  python -m sweep.plan search_spaces/inductive.py --set model=llama2-7b --set num_documents=10,100 --json
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def main(
    space: Annotated[str, typer.Argument(help="a search space: a Python file with a `space`", metavar="SPACE")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=V[,V...]", help="restrict or override an axis or a fixed field"),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="the space's small form, on the sample world")] = False,
    stage: Annotated[str | None, typer.Option(help="only up to this stage")] = None,
    select_by_metric: Annotated[
        str | None,
        typer.Option("--select-by", metavar="METRIC", help="metric that decides between stages"),
    ] = None,
    storage: Annotated[str, typer.Option(help="where results are: a folder or s3://...")] = "outputs",
    name: Annotated[str | None, typer.Option(help="name of the sweep; default: the space's")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH|sample|hub", help="folders, the sample world or the hub; may be repeated"),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="count failed trials as to run")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of all trials")] = None,
) -> None:
    """Say what a search space would run: points, equivalents, what is done, packs, cost."""
    with user_errors():
        found = load_space(space)
        if small:
            found = small_form(found)
        found = apply_overrides(found, settings or [], data=",".join(data) if data else None, seed=seed)
        if select_by_metric:
            found = select_by(found, select_by_metric)
        show_plan(found, Store(storage), check_name(name or found.name), stage, retry_failed, as_json)


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
    plan = build_plan(space, done, choices, until_stage, drawn)
    made = {}
    for question in plan.questions:
        ids = [point.id for point in question.candidates]
        if settled(question, choices) is None and done.issuperset(ids):
            records = dict(zip(ids, store.read_records([index[trial] for trial in ids]), strict=True))
            try:
                made[question.key] = decide(question, records, timestamp()) or {}
            except NoCandidate:
                continue  # the stage cannot go on for this group, which the sweep says when it gets there
    return build_plan(space, done, {**choices, **made}, until_stage, drawn) if made else plan


def show_plan(
    space: Space, store: Store, name: str, until_stage: str | None, retry_failed: bool, as_json: bool
) -> None:
    """Print a plan, as text or as one JSON object."""
    index = store.index(set_aside=False)
    choices = store.read_json(f"{name}/choices.json") or {}
    plan = plan_of(space, index, choices, store, name, until_stage, retry_failed)
    costs = _costs(plan, store, index)
    moved = moved_branches({point.card for stage in plan.stages for point in stage.points}, store, index)
    if as_json:
        print(json.dumps({**plan_json(plan, name, costs), "notes": moved}, indent=2))
    else:
        print(plan_text(plan, name, costs, choices) + "".join(f"note: {line}\n" for line in moved))


def _costs(plan: Plan, store: Store, index: RecordIndex) -> Estimate:
    points = {point.id: point for stage in plan.stages for point in stage.points}
    heads = [index[trial] for trial in points if trial in index][:RECORDS_TO_MEASURE]
    return estimate(plan, measure(points, store.read_records(heads)))


def count_packs(plan: Plan) -> int:
    """Return the packs that the trials left would make on the GPU that costs are stated for."""
    total = 0
    for stage in plan.stages:
        if stage.to_run:
            size = auto_pack_size(stage.to_run[0], A100.memory_bytes)
            total += len(make_packs(stage.to_run, size)) * stage.copies
    return total


def plan_json(plan: Plan, name: str, costs: Estimate) -> dict[str, Any]:
    """Return a plan as plain data, for `--json`."""
    return {
        "space": plan.space.name,
        "title": plan.space.title,
        "name": name,
        "arithmetic": plan.arithmetic,
        "grid_points": plan.grid_points,
        "unique_points": len(plan.grid),
        "stages": [
            {
                "name": stage.name,
                "combinations": stage.combinations,
                "points": stage.num_points,
                "equivalent": stage.equivalent,
                "done": stage.done,
                "to_run": stage.num_to_run,
                "waits_for": stage.waits_for,
            }
            for stage in plan.stages
        ],
        "trials_to_run": plan.num_to_run,
        "packs": count_packs(plan),
        "estimate": {
            "flops": costs.flops,
            "training_flops": costs.training_flops,
            "trunk_flops": costs.trunk_flops,
            "gpu": costs.gpu.name,
            "gpu_hours": costs.gpu_hours,
            "measured_hours": costs.measured_hours,
            "trunk_cache_bytes": round(costs.trunk_cache_bytes),
            "disk_bytes": round(costs.disk_bytes),
            "device_memory_bytes": round(costs.device_memory_bytes),
            "staged_flops": costs.staged_flops,
            "full_grid_flops": costs.full_grid_flops,
            "assumptions": list(costs.assumptions),
        },
    }


def plan_text(plan: Plan, name: str, costs: Estimate, choices: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a plan for people."""
    different = len(plan.grid)
    lines = [
        f"{name}: {plan.space.title}",
        "",
        f"full grid   {' x '.join(plan.space.axes)}",
        f"            {plan.arithmetic} points, {different:,} different"
        + (f" ({plan.grid_points - different:,} equivalent to others)" if different < plan.grid_points else ""),
        "",
        f"{'stage':<20}" + _row("combinations", "points", "equivalent", "done", "to run", "waits for"),
    ]
    for stage in plan.stages:
        numbers = (stage.combinations, stage.num_points, stage.equivalent, stage.done, stage.num_to_run)
        lines.append(f"{stage.name:<20}" + _row(*numbers, stage.waits_for or ""))
    if len(plan.stages) > 1:
        names = ("combinations", "num_points", "equivalent", "done", "num_to_run")
        sums = [sum(getattr(stage, name) for stage in plan.stages) for name in names]
        points = " + ".join(f"{stage.num_points:,}" for stage in plan.stages)
        lines.append(f"{'staged':<20}" + _row(*sums, f"{points} = {sums[1]:,} points"))
    for question in plan.questions:
        choice = choices.get(question.key)
        if choice:
            lines.append(f"chosen      {question}: {choice['value']} ({choice['by']} {choice['metric']:.4g})")
    lines += ["", f"to run      {plan.num_to_run:,} trials in about {count_packs(plan):,} packs"]
    return "\n".join(lines + _cost_lines(costs)) + "\n"


def _row(*cells: int | str) -> str:
    texts = [f"{cell:,}" if isinstance(cell, int) else cell for cell in cells]
    return ("".join(f"{text:>12}" for text in texts[:-1]) + f"  {texts[-1]}").rstrip()


def _cost_lines(costs: Estimate) -> list[str]:
    time = f"{_duration(costs.gpu_hours)} of one {costs.gpu.name}"
    if costs.measured_hours is not None:
        time += f"; {_duration(costs.measured_hours)} of one worker, as measured here"
    lines = [
        f"computing   {costs.flops:.3g} FLOP, of which training {_share(costs.training_flops, costs.flops)}, "
        f"trunk {_share(costs.trunk_flops, costs.flops)}: about {time}",
        f"disk        {_size(costs.disk_bytes)} of records and memories; {_size(costs.trunk_cache_bytes)} of "
        "cached hidden states on a node",
        f"memory      {_size(costs.device_memory_bytes)} on the device, activations on top",
    ]
    if costs.staged_flops < 0.99 * costs.full_grid_flops:
        share = _share(costs.staged_flops, costs.full_grid_flops)
        lines.append(f"{'':<12}all stages cost {share} of the full grid")
    return lines + [f"{'assuming' if not i else '':<12}{line}" for i, line in enumerate(costs.assumptions)]


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.3g} hours"
    return f"{hours * 60:.2g} minutes" if hours >= 1 / 60 else f"{hours * 3600:.2g} seconds"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "0%"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


if __name__ == "__main__":
    app()
