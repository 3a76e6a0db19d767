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
    """

    def __init__(self, trials: Sequence[str]) -> None:
        """Start empty."""
        self._trials = list(trials)
        self.metrics: list[dict[str, float]] = [{} for _ in trials]
        self.curves: list[Curves] = [{} for _ in trials]
        self.files: list[dict[str, bytes]] = [{} for _ in trials]
        self.kept: list[dict[str, dict[str, Any]]] = [{} for _ in trials]
        self.diverged_at: list[int | None] = [None] * len(trials)

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

    def state(self, member: int) -> dict[str, Any]:
        """Return what a checkpoint keeps of a member."""
        return {
            "curves": self.curves[member],
            "diverged_at": self.diverged_at[member],
            "kept": self.kept[member],
        }

    def load_state(self, member: int, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.curves[member] = state["curves"]
        self.metrics[member] = {name: curve[-1][1] for name, curve in self.curves[member].items() if curve}
        self.diverged_at[member] = state["diverged_at"]
        self.kept[member] = dict(state.get("kept", {}))

    def progress(self) -> dict[str, dict[str, float]]:
        """Return trial id -> latest metrics."""
        return {trial: dict(self.metrics[k]) for k, trial in enumerate(self._trials)}

    def results(
        self, counts: Mapping[str, int], timings: Mapping[str, float], flops: Sequence[float]
    ) -> list[TrialResult]:
        """Return the members' results; values that are not finite are left out of a diverged one.

        Args:
            counts: of pages and rows.
            timings: seconds by part of the whole run; each member gets an equal share.
            flops: of each member's training.
        """
        found = []
        for k, trial in enumerate(self._trials):
            at = self.diverged_at[k]
            error = None if at is None else {"class": "diverged", "message": f"loss not finite in epoch {at}"}
            found.append(
                TrialResult(
                    id=trial,
                    status="done" if at is None else "diverged",
                    metrics={n: v for n, v in self.metrics[k].items() if math.isfinite(v)},
                    curves={n: [p for p in c if math.isfinite(p[1])] for n, c in self.curves[k].items()},
                    counts=dict(counts),
                    timings={n: v / len(self._trials) for n, v in timings.items()} | {"pack_size": len(self._trials)},
                    flops=flops[k],
                    host=socket.gethostname(),
                    error=error,
                )
            )
        return found
