"""Packs: which trials share one forward pass, and how many when `--pack-size auto` leaves it to us."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sweep.planning.device_memory import USED_SHARE, PackMemory
from sweep.planning.flops import cost_key
from sweep.planning.gpus import H100, Gpu
from sweep.planning.points import Point
from trainables.adapters.registry import ADAPTERS, adapter_plan
from trainables.trial.asking import Asking
from trainables.trial.identity import digest

CPU_PLATEAU_FLOPS = 2e10
"""FLOPs of a step beyond which a CPU computes all the time, so that larger packs gain nothing (ours)."""
LAUNCHES, BLOCK_LAUNCHES = 125, 44
"""Kernel-like operations of a training step, and those for each block above the memory (counted on a CPU set as a GPU,
GPT-NeoX, four ragged texts: `benchmarks/launches.py`); members of a pack add hardly any."""
LAUNCH_S = 8e-6
"""Seconds that a program in eager PyTorch takes to launch an operation. An estimate from published figures (5 to 10
microseconds, of which the driver's launch is 2 to 5), not measured here."""
PLATEAU_LAUNCHES = 4.0
"""Time of a step's products as a multiple of that of its launches beyond which larger packs gain nothing: even if
nothing of the two overlapped, a step then computes four fifths of its time (ours)."""
LARGEST = 32


@dataclass(frozen=True)
class Pack:
    """Trials that run in one forward pass.

    Attributes:
        id: hash of its members' ids.
        points: the members.
        asks: whether they are only asked, their weights being stored.
    """

    id: str
    points: tuple[Point, ...]
    asks: bool = False


PackSize = Callable[[Point], int]
"""Members that a pack with a trial may have at most."""


def make_packs(points: Sequence[Point], pack_size: int | PackSize, slots: int = 1) -> list[Pack]:
    """Put trials that may share a forward pass into packs of about equal size.

    Trials of one size stand together, since a pack takes the room of its largest; so do those of one seed, which see
    the same texts in every step.

    Args:
        points: trials to run.
        pack_size: members of a pack at most. Adapters that do not pack are each a pack of their own.
        slots: packs that can run at once; packs stay smaller where that keeps all of them busy.

    Returns:
        Packs ordered by model and layer, so that a worker keeps its model.
    """
    alike: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        alike.setdefault(point.pack_key, []).append(point)
    packs = []
    for members in sorted(alike.values(), key=_place):
        members.sort(key=lambda point: (point.spec.memory_dim, point.spec.seed))
        packs += [_pack(part) for part in _cut(members, pack_size, _share(len(points), slots))]
    return packs


def make_ask_packs(
    points: Sequence[tuple[Point, tuple[Asking, ...]]], pack_size: int | PackSize, slots: int = 1
) -> list[Pack]:
    """Put stored trainings that are asked the same into packs, whatever their losses, entry sets and seeds.

    Args:
        points: one trial of each training, with what it is to be asked.
        pack_size: members of a pack at most.
        slots: packs that can run at once.
    """
    alike: dict[tuple[Any, ...], list[Point]] = {}
    for point, askings in points:
        asked = tuple(sorted((asking.id, asking.epochs) for asking in askings))
        alike.setdefault((point.ask_key, asked), []).append(point)
    packs = []
    for members in sorted(alike.values(), key=_place):
        members.sort(key=lambda point: point.spec.memory_dim)
        packs += [_pack(part, asks=True) for part in _cut(members, pack_size, _share(len(points), slots))]
    return packs


def _share(number: int, slots: int) -> int:
    """Return the members of a pack with which all slots have something to do."""
    return max(1, -(-number // max(1, slots)))


def _cut(members: Sequence[Point], pack_size: int | PackSize, share: int) -> Sequence[Sequence[Point]]:
    """Return as few parts of about equal size as fit; trials of adapters that do not pack one by one."""
    if not ADAPTERS[members[0].spec.method].packs:
        return [[point] for point in members]
    sizes = [pack_size] * len(members) if isinstance(pack_size, int) else [pack_size(point) for point in members]
    most = [max(1, min(size, share)) for size in sizes]
    number = -(-len(members) // max(most))
    while True:
        cuts = [round(i * len(members) / number) for i in range(number + 1)]
        if all(end - start <= min(most[start:end]) for start, end in pairwise(cuts)):
            return [members[start:end] for start, end in pairwise(cuts)]
        number += 1


def _place(members: Sequence[Point]) -> tuple[str, int]:
    first = members[0]
    return first.card.key, -1 if first.spec.layer is None else first.spec.layer


def _pack(members: Sequence[Point], asks: bool = False) -> Pack:
    return Pack(digest(["ask"] * asks + sorted(point.id for point in members)), tuple(members), asks)


def auto_pack_sizes(memory_bytes: float, on_gpu: bool = True, gpu: Gpu = H100) -> PackSize:
    """Return `auto_pack_size` for points of a plan: worked out once for those that cost the same."""
    found: dict[Hashable, int] = {}

    def size(point: Point) -> int:
        key = cost_key(point)
        if key not in found:
            found[key] = auto_pack_size(point, memory_bytes, on_gpu, gpu)
        return found[key]

    return size


def auto_pack_size(point: Point, memory_bytes: float, on_gpu: bool = True, gpu: Gpu = H100) -> int:
    """Return the members of a pack: up to the plateau of throughput, within the memory there is.

    A forward pass takes at most `micro_batch_tokens` tokens; members beyond it take passes of their own, and gain
    nothing. On a GPU a step of a small model takes as long as launching its operations, which are as many for all
    members as for one: members are added until computing takes several times as long. On a CPU a pack saves overhead
    only, which a model of some size does not notice.

    Args:
        point: one of the trials.
        memory_bytes: memory of the device, for one pack.
        on_gpu: whether that is a GPU.
        gpu: whose speed decides where the plateau is. The fastest there is by default: on a slower one larger packs
            gain nothing, and lose nothing.
    """
    spec = point.spec
    tokens = spec.batch_size * spec.segment_tokens
    most = min(LARGEST, max(1, spec.micro_batch_tokens // tokens), math.ceil(_plateau(point, on_gpu, gpu)))
    memory, room = PackMemory(point, on_gpu, memory_bytes), USED_SHARE * memory_bytes
    fits, too_many = 1, most + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if memory.of_pack(middle).total <= room:
            fits = middle
        else:
            too_many = middle
    return fits


def _plateau(point: Point, on_gpu: bool, gpu: Gpu) -> float:
    """Return with how many members a step computes all the time."""
    spec, card = point.spec, point.card
    plan = adapter_plan(vars(spec))
    tokens, flops = spec.batch_size * spec.segment_tokens, plan.train_token_flops(card)
    if not flops:
        return float(LARGEST)
    if not on_gpu:
        return CPU_PLATEAU_FLOPS / (tokens * flops)
    own = plan.own_token_flops(card)
    member_s = tokens * (gpu.seconds({spec.dtype: flops - own}) + gpu.seconds({plan.own_precision: own}))
    return PLATEAU_LAUNCHES * LAUNCH_S * (LAUNCHES + BLOCK_LAUNCHES * plan.trial_blocks(card)) / member_s
