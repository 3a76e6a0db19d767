"""Packs: which trials share one forward pass, and how many when `--pack-size auto` leaves it to us."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sweep.planning.flops import train_token_flops
from sweep.planning.points import Point
from trainables.adapters.registry import ADAPTERS
from trainables.trial.asking import Asking
from trainables.trial.identity import digest

CPU_PLATEAU_FLOPS = 2e10
"""FLOPs of a step beyond which a CPU computes all the time, so that larger packs gain nothing (ours)."""
PLATEAU_TOKENS = 16_384
"""Tokens of a pack in one forward pass beyond which larger packs gain nothing (ours)."""
LARGEST = 32
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
