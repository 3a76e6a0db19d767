"""What changes in a pack between two of its epochs: who falls behind leaves, and who waits takes the free places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sweep.planning.points import Point
from sweep.records.steering import Steering
from sweep.running.backlog import Backlog
from sweep.running.under_way import PacksUnderWay
from trainables.adapters.registry import ADAPTERS


def leaving(
    pack: str, epochs: Mapping[str, int], packs: PacksUnderWay, backlog: Backlog, steering: Steering
) -> Iterator[dict[str, Any]]:
    """Yield the results of the sampled trials of a pack that fall behind, by their stage's metric, mode and reduction.

    They are asked in the order in which they were drawn, once an epoch, while they could go on. A trial of a grid
    is never stopped, nor one that somebody has resumed.

    Args:
        pack: its id.
        epochs: which epoch each training has just done; what it came to is known.
        packs: those under way.
        backlog: has the sampled trials.
        steering: what the sweep was asked.
    """
    trials = {backlog.sampled_of(training): training for training in epochs if training in packs.of(pack)}
    for trial in backlog.sampled.in_order(trials):
        if trial in steering.resumed:
            continue
        training = trials[trial]
        stopped = backlog.sampled.stop_behind(trial, epochs[training])
        if stopped is not None:
            yield {**stopped, "id": training}


def joining(pack: str, packs: PacksUnderWay, backlog: Backlog, steering: Steering) -> list[Point]:
    """Return who takes the places that have become free in a pack that goes on.

    Those of its kind that are queued come first, then such as a sampled stage draws. Nobody joins a pack of which
    all have left, or one with a trial that has failed before: that may take the others with it.
    """
    jobs = [backlog.jobs[training] for training in packs.of(pack)]
    members = [job.lead for job in jobs]
    if not members or not ADAPTERS[members[0].spec.method].own_texts:
        return []
    if any(job.asks or backlog.policy.has_failed(job.lead.training) for job in jobs):
        return []
    joined: list[Point] = []
    while len(joined) < packs.free_places(pack):
        point = backlog.next_like([*members, *joined], steering)
        if point is None:
            break
        joined.append(point)
    return joined
