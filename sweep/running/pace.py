"""How long the rest takes, from what was measured: a step costs a fixed time and a time that grows with its FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FEWEST = 3
"""Steps that are measured before anything is said."""


@dataclass(frozen=True)
class WorkLeft:
    """What is left of a sweep.

    Attributes:
        flops: of training and evaluating.
        epochs: trial-epochs.
        trials: that have not begun.
    """

    flops: float
    epochs: float
    trials: float


class Pace:
    """Fits `seconds = a + b * FLOPs + c * first` to the steps of packs, all three at least 0.

    `a` is what a step costs whatever its size (launches, the driver), `b` the speed, `c` what the first step of a pack
    takes on top (its texts' hidden states). A process's own start is left out: the first steps of packs that began
    before any trial had ended are not taken in.
    """

    def __init__(self) -> None:
        """Start with nothing measured."""
        self._steps: list[tuple[float, float, float]] = []  # seconds, FLOPs, whether the first of its pack
        self._members = 0

    def note(self, seconds: float, flops: float, members: int, first: bool, warm: bool) -> None:
        """Take in a step of a pack.

        Args:
            seconds: since its last report, or since it was handed out.
            flops: of all its members.
            members: trials in the pack.
            first: whether it is the pack's first step.
            warm: whether its process has run another pack before.
        """
        if first and not warm:
            return
        self._steps.append((seconds, flops, float(first)))
        self._members += members

    def left_s(self, work: WorkLeft, packs: int) -> float | None:
        """Return the seconds that are left, or None while too little is measured.

        Args:
            work: that is left.
            packs: that run side by side.
        """
        if len(self._steps) < FEWEST:
            return None
        from scipy.optimize import nnls

        seconds, flops, first = np.array(self._steps).T
        unit = max(float(flops.max()), 1.0)
        columns = np.stack([np.ones_like(flops), flops / unit, first], axis=1)
        (fixed, speed, start), _ = nnls(columns, seconds)
        members = self._members / len(self._steps)
        alone = (fixed * work.epochs + start * work.trials) / members + speed * work.flops / unit
        return float(alone) / max(1, packs)
