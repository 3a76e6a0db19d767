"""What a plan will cost: FLOPs, hours on a named GPU, hours on hardware that has left records, bytes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from sweep.planning.device_memory import PackMemory
from sweep.planning.flops import CostModel, disk_bytes, merge_alike, train_token_flops
from sweep.planning.gpus import A100, Gpu
from sweep.planning.packs import auto_pack_size
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from trainables.adapters.registry import ADAPTERS
from trainables.probes.plan import TextSizes


@dataclass(frozen=True)
class Measured:
    """What the records of a plan's finished trials tell.

    Attributes:
        train_flop_per_s: training FLOPs by all seconds that the trials took.
        trials: number of records behind it.
        texts: sizes by data key, as far as records tell them.
    """

    train_flop_per_s: float
    trials: int
    texts: Mapping[str, TextSizes] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """Cost of the trials that are left to run.

    Attributes:
        flops: all together; `training_flops`, `asking_flops` and `trunk_flops` are parts of it.
        gpu_hours: on `gpu`.
        measured_hours: on the hardware of the records there are, one worker; None without records.
        trunk_cache_bytes: hidden states, on every node that runs trials.
        disk_bytes: records and memories in the storage.
        device_memory_bytes: the most that a pack holds on the device at a time (`sweep.planning.device_memory`).
        full_grid_flops: what the full grid would cost; `staged_flops` what all stages cost, done or not.
        assumptions: what the numbers rest on, a line each.
    """

    flops: float
    training_flops: float
    asking_flops: float
    trunk_flops: float
    gpu: Gpu
    gpu_hours: float
    measured_hours: float | None
    trunk_cache_bytes: float
    disk_bytes: float
    device_memory_bytes: float
    full_grid_flops: float
    staged_flops: float
    assumptions: tuple[str, ...]


def estimate(plan: Plan, measured: Measured | None = None, gpu: Gpu = A100) -> Estimate:
    """Estimate what is left of a plan.

    Args:
        plan: where a choice is open, the middle candidate's cost stands in.
        measured: from `measure`, where there are records.
        gpu: the type to state hours and packs for.
    """
    model = CostModel(measured.texts if measured else {})
    left = merge_alike((point, stage.num_to_run / len(stage.to_run)) for stage in plan.stages for point in stage.to_run)
    every = merge_alike({p.id: (p, stage.copies) for stage in plan.stages for p in stage.points}.values())
    to_ask = [(point, stage.dues[point.id].askings) for stage in plan.stages for point in stage.to_ask]
    by_type, cached = model.trunk([*(point for point, _ in left), *(point for point, _ in to_ask)])
    trunk = sum(by_type.values())
    training = asking = disk = memory = 0.0
    for point, askings in to_ask:
        spent = model.asking(point, askings)
        asking += spent.total
        _add(by_type, spent.by_precision(point.spec.dtype), 1)
    for point, times in left:
        work = model.work(point)
        training += work.training * times
        asking += work.evaluation * times
        _add(by_type, work.by_precision(point.spec.dtype), times)
        disk += disk_bytes(point.spec, point.card, model.texts(point)) * times
    for point, _ in (*left, *merge_alike((point, 1) for point, _ in to_ask)):
        size = auto_pack_size(point, gpu.memory_bytes)
        memory = max(memory, PackMemory(point, True, gpu.memory_bytes).of_pack(size).total)
    seconds = gpu.seconds(by_type)
    speed = measured.train_flop_per_s if measured and training else None
    return Estimate(
        flops=sum(by_type.values()),
        training_flops=training,
        asking_flops=asking,
        trunk_flops=trunk,
        gpu=gpu,
        gpu_hours=seconds / 3600,
        measured_hours=training / speed / 3600 if speed else None,
        trunk_cache_bytes=cached,
        disk_bytes=disk,
        device_memory_bytes=memory,
        full_grid_flops=_total(model, merge_alike((point, 1) for point in plan.grid)),
        staged_flops=_total(model, every),
        assumptions=_assumptions(model, [point for point, _ in every], gpu, measured),
    )


def _add(sums: dict[str, float], flops: Mapping[str, float], times: float) -> None:
    """Add FLOPs, given by how they are computed, so many times."""
    for name, count in flops.items():
        sums[name] = sums.get(name, 0.0) + count * times


def _total(model: CostModel, points: Sequence[tuple[Point, float]]) -> float:
    trunk, _ = model.trunk(point for point, _ in points)
    return sum(trunk.values()) + sum(model.work(point).total * times for point, times in points)


def _assumptions(model: CostModel, points: Collection[Point], gpu: Gpu, measured: Measured | None) -> tuple[str, ...]:
    lines = []
    for key, point in {point.data_key: point for point in points}.items():
        texts = model.texts(point)
        source = "measured" if measured and key in measured.texts else "assumed"
        lines.append(
            f"{point.spec.data}: {texts.document_tokens:.0f} tokens and {texts.claims:.0f} claims a page ({source})"
        )
    works = (model.work(point).by_precision(point.spec.dtype) for point in points)
    for name in sorted({name for work in works for name, count in work.items() if count}):
        lines.append(f"{gpu.name}: {gpu.flop_per_s[name] / 1e12:g} TFLOP/s {name} at {gpu.utilisation:.0%}")
    if measured:
        lines.append(
            f"hours here: {measured.train_flop_per_s:.3g} training FLOP/s over all seconds of "
            f"{measured.trials} recorded trials, one worker"
        )
    return tuple(lines)


def measure(points: Mapping[str, Point], records: Iterable[Mapping[str, Any]]) -> Measured | None:
    """Learn from records of finished trials.

    Args:
        points: the plan's points by id; records of others are passed over.
        records: as stored; `flops`, `timings` and `counts` are read.

    Returns:
        None when no record tells how long training took.
    """
    flops = seconds = 0.0
    trials = 0
    sizes: dict[str, list[tuple[float, float]]] = {}
    examples: dict[str, Point] = {}
    for record in records:
        point = points.get(record["id"])
        spent = sum(value for name, value in record["timings"].items() if name.endswith("_s") and value)
        if point is None or not ADAPTERS[point.spec.method].packs or not record.get("flops") or not spent:
            continue
        flops, seconds, trials = flops + record["flops"], seconds + spent, trials + 1
        pages = record["counts"].get("n_trunc")
        if pages and point.spec.content == "document" and record["status"] == "done":
            spent_on = train_token_flops(point.spec, point.card) * point.spec.epochs * pages
            claims = record["counts"].get("claims_selected", 0) / pages
            sizes.setdefault(point.data_key, []).append((record["flops"] / spent_on, claims))
            examples[point.data_key] = point
    if not trials:
        return None
    assumed = CostModel({})
    texts = {
        key: replace(
            assumed.texts(examples[key]),
            document_tokens=median(tokens for tokens, _ in found),
            claims=median(claims for _, claims in found),
        )
        for key, found in sizes.items()
    }
    return Measured(flops / seconds, trials, texts)
