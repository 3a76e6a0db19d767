"""Packs: which trials share one forward pass, and how many when `--pack-size auto` leaves it to us."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sweep.planning.device_memory import USED_SHARE, PackMemory
from sweep.planning.flops import CostModel, cost_key
from sweep.planning.gpus import H100, Gpu
from sweep.planning.points import Point
from trainables.adapters.registry import ADAPTERS, adapter_plan
from trainables.trial.asking import Asking
from trainables.trial.identity import digest

CPU_PLATEAU_FLOPS = 2e10
"""FLOPs of a step beyond which a CPU computes all the time, so that larger packs gain nothing (ours)."""
LAUNCHES = 85
"""Kernel-like operations that the host launches in a training step whose passes are recorded, whatever the model; each
member of a pack adds one (`python -m benchmarks gpu`, pythia-410m and 6.9b)."""
LAUNCH_S = 43e-6
"""Seconds that a step takes for each of them where the GPU has little to compute: 3.64 ms with pythia-410m, 512 tokens
and one member, on an H100 whose host launched an empty kernel in 7 to 10 microseconds; others need 3 to 5."""
PLATEAU_LAUNCHES = 2.7
"""Time of a step's products as a multiple of that of its launches beyond which larger packs gain nothing. Packs of 8
that were there (the same shape) reached 96 % of the throughput of packs of 16, packs of 4, at 1.4 times, 81 %."""
LARGEST = 32
STATES_BYTES = 8e9
"""Hidden states after all blocks of a pack at most: they stay on the node's disk, mapped, while it runs (ours)."""


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


def make_packs(
    points: Sequence[Point], pack_size: int | PackSize, slots: int = 1, states_bytes: float = STATES_BYTES
) -> list[Pack]:
    """Put trials that may share a forward pass into packs of about equal size.

    Trials at one block stand together, and within a pack those of one size, since it takes the room of its largest, and
    of one seed: at one block they see the same texts in every step. Several blocks share a pack where each alone would
    fill half of it at most.

    Args:
        points: trials to run.
        pack_size: members of a pack at most. Adapters that do not pack are each a pack of their own.
        slots: packs that can run at once; packs stay smaller where that keeps all of them busy.
        states_bytes: of hidden states that a pack may need at a time.

    Returns:
        Packs ordered by model and layer, so that a worker keeps its model.
    """
    alike: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        alike.setdefault(point.pack_key, []).append(point)
    share = _share(len(points), slots)
    packs = [
        _pack(part)
        for members in alike.values()
        for group in _by_block(members, pack_size, share, states_bytes)
        for part in _dealt(_cut(group, pack_size, share), slots, pack_size, share)
    ]
    return sorted(packs, key=_place)


def make_ask_packs(
    points: Sequence[tuple[Point, tuple[Asking, ...]]],
    pack_size: int | PackSize,
    slots: int = 1,
    states_bytes: float = STATES_BYTES,
) -> list[Pack]:
    """Put stored trainings that are asked the same into packs, whatever their losses, entry sets and seeds.

    Args:
        points: one trial of each training, with what it is to be asked.
        pack_size: members of a pack at most.
        slots: packs that can run at once.
        states_bytes: of hidden states that a pack may need at a time.
    """
    alike: dict[tuple[Any, ...], list[Point]] = {}
    for point, askings in points:
        asked = tuple(sorted((asking.id, asking.epochs) for asking in askings))
        alike.setdefault((point.ask_key, asked), []).append(point)
    share = _share(len(points), slots)
    packs = [
        _pack(part, asks=True)
        for members in alike.values()
        for group in _by_block(members, pack_size, share, states_bytes)
        for part in _cut(group, pack_size, share)
    ]
    return sorted(packs, key=_place)


def has_room(members: Sequence[Point], point: Point, size: PackSize, states_bytes: float = STATES_BYTES) -> bool:
    """Say whether a trial may join a pack: a place is free, and half of them are or its block is one of theirs.

    Args:
        members: of the pack.
        point: the trial, which may be larger than the others.
        size: members of a pack at most.
        states_bytes: of hidden states that a pack may need at a time.
    """
    most = min(size(each) for each in (*members, point))
    blocks = {_block(member) for member in members}
    has_states = len(blocks) < _most_blocks(point, states_bytes) and 2 * len(members) <= most
    return len(members) < most and (_block(point) in blocks or has_states)


def _by_block(
    members: Sequence[Point], pack_size: int | PackSize, share: int, states_bytes: float
) -> list[list[Point]]:
    """Return trials of one kind by block; those of blocks that fill half a pack at most together."""
    blocks: dict[int, list[Point]] = {}
    for point in sorted(members, key=_size_block_seed):
        blocks.setdefault(_block(point), []).append(point)
    full = [own for own in blocks.values() if 2 * len(own) > max(_most(own, pack_size, share))]
    rest = [own for _, own in sorted(blocks.items()) if own not in full]
    at_once = _most_blocks(members[0], states_bytes) if rest else 1
    together = [rest[start : start + at_once] for start in range(0, len(rest), at_once)]
    return full + [sorted((point for own in some for point in own), key=_size_block_seed) for some in together]


def _most_blocks(point: Point, states_bytes: float) -> int:
    """Return after how many blocks the hidden states of a trial's texts, as long as planning takes them to be, fit."""
    _, needed = CostModel({}).trunk([point])
    return max(1, int(states_bytes // needed)) if needed else 1


def _share(number: int, slots: int) -> int:
    """Return the members of a pack with which all slots have something to do."""
    return max(1, -(-number // max(1, slots)))


def _cut(members: Sequence[Point], pack_size: int | PackSize, share: int) -> Sequence[Sequence[Point]]:
    """Return as few parts of about equal size as fit; trials of adapters that do not pack one by one."""
    if not ADAPTERS[members[0].spec.method].packs:
        return [[point] for point in members]
    most = _most(members, pack_size, share)
    number = -(-len(members) // max(most))
    while True:
        cuts = [round(i * len(members) / number) for i in range(number + 1)]
        if all(end - start <= min(most[start:end]) for start, end in pairwise(cuts)):
            return [members[start:end] for start, end in pairwise(cuts)]
        number += 1


def _dealt(
    parts: Sequence[Sequence[Point]], slots: int, pack_size: int | PackSize, share: int
) -> Sequence[Sequence[Point]]:
    """Return parts that run at once and have several blocks with about as much work each: deep blocks beside low ones.

    A member costs what lies above its block, so with neighbours in a pack the other slots would wait for the lowest.
    """
    members = sorted((point for part in parts for point in part), key=_block)
    are_of_one_size = len({point.spec.memory_dim for point in members}) == 1
    if not 1 < len(parts) <= slots or len({*map(_block, members)}) == 1 or not are_of_one_size:
        return parts
    dealt: list[list[Point]] = [[] for _ in parts]
    for number, point in enumerate(members):
        turn, place = divmod(number, len(parts))
        dealt[place if turn % 2 == 0 else -1 - place].append(point)
    return dealt if all(len(part) <= min(_most(part, pack_size, share)) for part in dealt) else parts


def _most(members: Sequence[Point], pack_size: int | PackSize, share: int) -> list[int]:
    """Return for each of some trials how many a pack with it may have."""
    sizes = [pack_size] * len(members) if isinstance(pack_size, int) else [pack_size(point) for point in members]
    return [max(1, min(size, share)) for size in sizes]


def _block(point: Point) -> int:
    return -1 if point.spec.layer is None else point.spec.layer


def _size_block_seed(point: Point) -> tuple[int, int, int]:
    return point.spec.memory_dim, _block(point), point.spec.seed


def _place(pack: Pack) -> tuple[str, int]:
    return pack.points[0].card.key, min(map(_block, pack.points))


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
    return PLATEAU_LAUNCHES * LAUNCH_S * LAUNCHES / member_s
