"""Packs: which trials share one forward pass, and how many when `--pack-size auto` leaves it to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sweep.planning.flops import CostModel, train_token_flops
from sweep.planning.points import Point
from trainables.adapters.registry import ADAPTERS
from trainables.trial.asking import Asking
from trainables.trial.identity import digest

CPU_PLATEAU_FLOPS = 2e10
"""FLOPs of a step beyond which a CPU computes all the time, so that larger packs gain nothing (ours)."""
PLATEAU_TOKENS = 16_384
"""Tokens of a pack in one forward pass beyond which larger packs gain nothing (ours)."""
LARGEST = 32
STATES_BYTES = 8e9
"""Hidden states after all blocks of a pack at most: they stay on the node's disk, mapped, while it runs (ours)."""
_BYTES_PER_PARAMETER = 16  # value, gradient and two moments, float32


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
        for part in _cut(group, pack_size, share)
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


def auto_pack_size(point: Point, memory_bytes: float, on_gpu: bool = True) -> int:
    """Return the members of a pack: up to the plateau of throughput, within the memory there is.

    A step's tokens are bounded by `micro_batch_tokens` whatever the pack, so the bank's parameters with their
    optimiser state decide whether a pack fits; they may take half of the memory.

    Args:
        point: one of the trials.
        memory_bytes: memory of the device, for one pack.
        on_gpu: whether that is a GPU. On a CPU a pack only saves overhead, which a model of some size does not notice.
    """
    spec = point.spec
    tokens = spec.batch_size * spec.segment_tokens
    plateau = PLATEAU_TOKENS // tokens
    if not on_gpu:
        plateau = min(plateau, int(CPU_PLATEAU_FLOPS / (tokens * train_token_flops(spec, point.card) + 1)))
    per_member = 2 * spec.memory_dim * point.card.model_dim * _BYTES_PER_PARAMETER
    return max(1, min(LARGEST, plateau, int(memory_bytes / 2 // per_member)))
