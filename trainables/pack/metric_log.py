"""The metrics of a run's trials so far, and the results made of them."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.pack.result import TrialResult

Curves = dict[str, list[list[float]]]


class MetricLog:
    """Metrics, curves and files of each member.

    Args:
        trials: the members' ids.

    Attributes:
        metrics: latest value of each metric, per member.
        curves: name -> `[[epoch, value], …]`, per member.
        files: what goes into each member's folder, by name, as of the latest evaluation.
        kept: the files that lie there already, as `write_member_files` says of them.
        diverged_at: epoch in which a member's loss stopped being finite, or None.
        timings: seconds by part, each member's share.
        pack_sizes: with how many members each one shared its passes, at most.
    """

    def __init__(self, trials: Sequence[str]) -> None:
        """Start empty."""
        self._trials = list(trials)
        self.metrics: list[dict[str, float]] = [{} for _ in trials]
        self.curves: list[Curves] = [{} for _ in trials]
        self.files: list[dict[str, bytes]] = [{} for _ in trials]
        self.kept: list[dict[str, dict[str, Any]]] = [{} for _ in trials]
        self.diverged_at: list[int | None] = [None] * len(trials)
        self.timings: list[dict[str, float]] = [{} for _ in trials]
        self.pack_sizes = [len(trials)] * len(trials)

    def add(self, member: int, epoch: int, values: Mapping[str, float]) -> None:
        """Keep values as the latest and as points of their curves; an epoch's point is never replaced."""
        for name, value in values.items():
            self.metrics[member][name] = value
            curve = self.curves[member].setdefault(name, [])
            if not curve or curve[-1][0] != epoch:
                curve.append([epoch, value])

    def add_json(self, member: int, file: str, content: Mapping[str, Any]) -> None:
        """Keep plain values as the content of a file."""
        self.files[member][file] = json.dumps(content).encode()

    def spend(self, members: Sequence[int], timings: Mapping[str, float], work: Sequence[float] | None = None) -> None:
        """Add seconds by part, shared by those for whom they were spent.

        Args:
            members: these.
            timings: seconds by part.
            work: of every member of the pack; they share in proportion to it. None: equally.
        """
        whole = len(members) if work is None else sum(work[member] for member in members)
        for member in members:
            own, share = self.timings[member], (1 if work is None else work[member]) / whole
            for part, seconds in timings.items():
                own[part] = own.get(part, 0.0) + seconds * share

    def state(self, member: int) -> dict[str, Any]:
        """Return what a checkpoint keeps of a member."""
        return {
            "curves": self.curves[member],
            "diverged_at": self.diverged_at[member],
            "kept": self.kept[member],
            "timings": self.timings[member],
            "pack_size": self.pack_sizes[member],
        }

    def load_state(self, member: int, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.curves[member] = state["curves"]
        self.metrics[member] = {name: curve[-1][1] for name, curve in self.curves[member].items() if curve}
        self.diverged_at[member] = state["diverged_at"]
        self.kept[member] = dict(state.get("kept", {}))
        self.timings[member] = dict(state.get("timings", {}))
        self.pack_sizes[member] = max(self.pack_sizes[member], int(state.get("pack_size", 1)))

    def progress(self, members: Sequence[int]) -> dict[str, dict[str, float]]:
        """Return trial id -> latest metrics of some members."""
        return {self._trials[k]: dict(self.metrics[k]) for k in members}

    def result(self, member: int, counts: Mapping[str, int], flops: float) -> TrialResult:
        """Return what a member has come to; values that are not finite are left out of a diverged one.

        Args:
            member: which.
            counts: of pages and rows.
            flops: of its training.
        """
        at = self.diverged_at[member]
        error = None if at is None else {"class": "diverged", "message": f"loss not finite in epoch {at}"}
        return TrialResult(
            id=self._trials[member],
            status="done" if at is None else "diverged",
            metrics={n: v for n, v in self.metrics[member].items() if math.isfinite(v)},
            curves={n: [p for p in c if math.isfinite(p[1])] for n, c in self.curves[member].items()},
            counts=dict(counts),
            timings={**self.timings[member], "pack_size": self.pack_sizes[member]},
            flops=flops,
            host=socket.gethostname(),
            error=error,
        )
