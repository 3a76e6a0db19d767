"""What the trials of a run have scored so far, and the results made of it."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.pack.result import TrialResult
from trainables.trial.task import TrialTask

Curves = dict[str, list[list[float]]]


class Scoreboard:
    """Metrics, curves and files of each member.

    Args:
        tasks: the members.

    Attributes:
        metrics: latest value of each metric, per member.
        curves: name -> `[[epoch, value], …]`, per member.
        files: what goes into each member's folder: `answers`, `analysis`, `samples`.
        diverged_at: epoch in which a member's loss stopped being finite, or None.
    """

    def __init__(self, tasks: Sequence[TrialTask]) -> None:
        """Start empty."""
        self.tasks = list(tasks)
        self.metrics: list[dict[str, float]] = [{} for _ in tasks]
        self.curves: list[Curves] = [{} for _ in tasks]
        self.files: list[dict[str, Any]] = [{} for _ in tasks]
        self.diverged_at: list[int | None] = [None] * len(tasks)

    def note(self, member: int, name: str, epoch: int, value: float) -> None:
        """Keep a value as the latest and as a point of its curve."""
        self.metrics[member][name] = value
        curve = self.curves[member].setdefault(name, [])
        if not curve or curve[-1][0] != epoch:
            curve.append([epoch, value])

    def notes(self, member: int) -> dict[str, Any]:
        """Return what a checkpoint keeps of a member."""
        return {"curves": self.curves[member], "diverged_at": self.diverged_at[member]}

    def take_up(self, member: int, notes: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's notes."""
        self.curves[member] = notes["curves"]
        self.diverged_at[member] = notes["diverged_at"]

    def progress(self) -> dict[str, dict[str, float]]:
        """Return trial id -> latest metrics."""
        return {task.id: dict(self.metrics[k]) for k, task in enumerate(self.tasks)}

    def results(self, counts: Mapping[str, int], timings: Mapping[str, float], flops: float) -> list[TrialResult]:
        """Return the members' results; values that are not finite are left out of a diverged one.

        Args:
            counts: of pages and rows.
            timings: seconds by part of the whole run; each member gets an equal share.
            flops: of one member's training.
        """
        found = []
        for k, task in enumerate(self.tasks):
            at = self.diverged_at[k]
            error = None if at is None else {"class": "diverged", "message": f"loss not finite in epoch {at}"}
            found.append(
                TrialResult(
                    id=task.id,
                    status="done" if at is None else "diverged",
                    metrics={n: v for n, v in self.metrics[k].items() if math.isfinite(v)},
                    curves={n: [p for p in c if math.isfinite(p[1])] for n, c in self.curves[k].items()},
                    counts=dict(counts),
                    timings={n: v / len(self.tasks) for n, v in timings.items()} | {"pack_size": len(self.tasks)},
                    flops=flops,
                    host=socket.gethostname(),
                    error=error,
                )
            )
        return found
