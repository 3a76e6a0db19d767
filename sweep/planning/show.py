"""A plan in words and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.planning.choices import tie_text
from sweep.planning.costs import Estimate
from sweep.planning.gpus import A100
from sweep.planning.inputs import input_notes
from sweep.planning.packs import auto_pack_sizes, make_ask_packs, make_packs
from sweep.planning.plan import Plan
from sweep.planning.simset_notes import simset_lines, simset_notes

_COUNTS = ("combinations", "num_points", "equivalent", "done", "failed", "num_to_run", "num_to_ask")
RETRY = "they are run again with --retry-failed"


@dataclass(frozen=True)
class CostedPlan:
    """What a sweep would run, and what that costs.

    Attributes:
        name: of the sweep.
        plan: the space expanded: stages, points, what is equivalent or done.
        costs: of the trials that are left to run.
        choices: recorded choices by question key.
        code_versions: points that are recorded, by the version of this software that recorded them.
        notes: what is worth knowing about its models.
        warnings: files of the storage that are broken, a line on each: a run makes them again.
    """

    name: str
    plan: Plan
    costs: Estimate
    choices: Mapping[str, Mapping[str, Any]]
    code_versions: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, as `python -m sweep.plan` prints it."""
        return plan_text(self)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, as `--json` prints it."""
        return plan_json(self)


def count_packs(plan: Plan) -> int:
    """Return the packs that the trials left would make on the GPU that costs are stated for."""
    total, size = 0, auto_pack_sizes(A100.memory_bytes)
    for stage in plan.stages:
        if stage.to_run:
            total += len(make_packs(stage.to_run, size)) * stage.copies
    return total


def count_ask_packs(plan: Plan) -> int:
    """Return the packs that the trials make that are only asked, on the same GPU."""
    left = {p.training: (p, stage.dues[p.id].askings) for stage in plan.stages for p in stage.to_ask}
    if not left:
        return 0
    return len(make_ask_packs(list(left.values()), auto_pack_sizes(A100.memory_bytes)))


def asked_counts(plan: Plan) -> dict[str, int]:
    """Return how many trials are asked what, by the askings' labels: all that is left, in training packs or alone."""
    labels = (asking.label for stage in plan.stages for due in stage.dues.values() for asking in due.askings)
    return dict(Counter(labels))


def plan_json(costed: CostedPlan) -> dict[str, Any]:
    """Return a plan as plain data, for `--json`."""
    plan, costs = costed.plan, costed.costs
    return {
        "space": plan.space.name,
        "title": plan.space.title,
        "name": costed.name,
        "warnings": list(costed.warnings),
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
                "failed": stage.failed,
                "to_run": stage.num_to_run,
                "to_ask": stage.num_to_ask,
                "waits_for": stage.waits_for,
                "starts_from": stage.stage.start.name if stage.stage.start else None,
                "blocked": len(stage.blocked),
            }
            for stage in plan.stages
        ],
        "trials_to_run": plan.num_to_run,
        "packs": count_packs(plan),
        "trials_to_ask": plan.num_to_ask,
        "ask_packs": count_ask_packs(plan),
        "askings": asked_counts(plan),
        "trained_again": plan.trained_again,
        "blocked": plan.blocked,
        "inputs": input_notes(plan),
        "code_versions": dict(costed.code_versions),
        "simset": [vars(note) | {"is_enough": note.is_enough} for note in simset_notes(plan)],
        "notes": list(costed.notes),
        "estimate": {
            "flops": costs.flops,
            "training_flops": costs.training_flops,
            "trunk_flops": costs.trunk_flops,
            "asking_flops": costs.asking_flops,
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


def plan_text(costed: CostedPlan) -> str:
    """Return a plan for people."""
    plan, costs = costed.plan, costed.costs
    lines = [
        f"{costed.name}: {plan.space.title}",
        "",
        *_grid_lines(plan),
        f"{'stage':<19}"
        + _row("combinations", "points", "equivalent", "done", "failed", "to run", "to ask", "waits for"),
    ]
    for stage in plan.stages:
        lines.append(f"{stage.name:<19}" + _row(*(getattr(stage, name) for name in _COUNTS), stage.waits_for or ""))
    if len(plan.stages) > 1:
        sums = [sum(getattr(stage, name) for stage in plan.stages) for name in _COUNTS]
        points = " + ".join(f"{stage.num_points:,}" for stage in plan.stages)
        lines.append(f"{'staged':<19}" + _row(*sums, ""))
        lines.append(f"{'':<12}{points} = {sums[1]:,} points")
    for question in plan.questions:
        choice = costed.choices.get(question.key)
        if choice:
            tie = tie_text(choice.get("tied", ()))
            by = f"{choice['by']} {choice['metric']:.4g}" + (f"; {tie}" if tie else "")
            lines.append(f"chosen      {question}: {choice['value']} ({by})")
    if costed.code_versions:
        counts = sorted(costed.code_versions.items(), key=lambda item: -item[1])
        told = "recorded by " + ", ".join(f"{version} ({count:,})" for version, count in counts)
        told += ": several versions of the code are mixed" if len(counts) > 1 else ""
        lines += [f"{'' if i else 'code':<12}{line}" for i, line in enumerate(textwrap.wrap(told, 106))]
    failed = sum(stage.failed for stage in plan.stages)
    if failed:
        lines.append(f"failed      {failed:,} trials; {RETRY}")
    lines += [f"{'short':<12}{line}" for line in plan.shortages]
    lines += ["", f"to run      {plan.num_to_run:,} trials in about {count_packs(plan):,} packs"]
    if plan.num_to_ask:
        packs = count_ask_packs(plan)
        lines.append(f"to ask      {plan.num_to_ask:,} trials in about {packs:,} packs: nothing is trained for them")
    told = ", ".join(f"{label} of {count:,} trials" for label, count in asked_counts(plan).items())
    lines += [f"{'' if i else 'asking':<12}{line}" for i, line in enumerate(textwrap.wrap(told, 106))]
    for stage in plan.stages:
        if stage.stage.start and stage.to_run:
            told = f"starts from the weights of {stage.stage.start.name}, and waits for those that are not there yet"
            lines.append(f"start       {stage.name} {told}")
    lines += [f"blocked     {count:,} trials cannot start: {why}" for why, count in plan.blocked.items()]
    lines += [f"again       {count:,} trials are trained again: {why}" for why, count in plan.trained_again.items()]
    lines += _cost_lines(costs)
    simset = simset_lines(plan) if plan.num_to_run and plan.space.grid.axes else []
    for title, notes in (("first", input_notes(plan)), ("note", costed.notes), ("simset", simset)):
        wrapped = (line for note in notes for line in textwrap.wrap(note, 106, break_on_hyphens=False))
        lines += [f"{'' if i else title:<12}{line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines) + "\n"


def _grid_lines(plan: Plan) -> list[str]:
    """Return the arithmetic of the full grid; there is none where trials are given rather than varied."""
    axes, different = " x ".join(plan.space.grid.axes), len(plan.grid)
    if not axes:
        return [f"asked       {plan.arithmetic}", ""]
    more = f" ({plan.grid_points - different:,} equivalent to others)" if different < plan.grid_points else ""
    return [f"full grid   {axes}", f"            {plan.arithmetic} points, {different:,} different{more}", ""]


def _row(*cells: int | str) -> str:
    texts = [f"{cell:,}" if isinstance(cell, int) else cell for cell in cells]
    return ("".join(f"{text:>12}" for text in texts[:-1]) + f"  {texts[-1]}").rstrip()


def _cost_lines(costs: Estimate) -> list[str]:
    time = f"{_duration(costs.gpu_hours)} of one {costs.gpu.name}"
    if costs.measured_hours is not None:
        time += f"; {_duration(costs.measured_hours)} of one worker, as measured here"
    lines = [
        f"computing   {costs.flops:.3g} FLOP, of which training {_share(costs.training_flops, costs.flops)}, "
        f"asking {_share(costs.asking_flops, costs.flops)}, trunk {_share(costs.trunk_flops, costs.flops)}: "
        f"about {time}",
        f"disk        {_size(costs.disk_bytes)} of records and memories; {_size(costs.trunk_cache_bytes)} of "
        "cached hidden states on a node",
        f"memory      {_size(costs.device_memory_bytes)} on the device at most",
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
