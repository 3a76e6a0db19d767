"""How far a sweep is: shown on the terminal, and kept in the storage for whoever asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sweep.records.sweep_storage import SweepStorage
from trainables.node.checksums import read_plain_json

STATE_FILE = "status.json"
"""In a sweep's folder: its state when the driver last said it. Nothing depends on it."""
OUTCOMES = ("done", "stopped", "diverged", "failed")
"""How a trial can end, as its record's `status` says it."""


@dataclass
class StageState:
    """One stage of a sweep, as far as this run is to do it.

    Attributes:
        name: of the stage.
        trials: to run, as far as known.
        epochs: trial-epochs of these.
        epochs_done: of trials that ended, and of those under way.
        waits_for: the stage whose choice it waits for; empty once it is open.
        ended: trials by outcome.
    """

    name: str
    trials: int
    epochs: float
    epochs_done: float = 0.0
    waits_for: str = ""
    ended: dict[str, int] = field(default_factory=dict)


@dataclass
class PackState:
    """A pack that runs.

    Attributes:
        label: model and layer.
        trials: its members without a result.
        epoch: the last that is over; -1 before the first report, while the process starts and loads.
        epochs: of each member.
        loss: mean training NLL of the members in that epoch, nats a token.
        where: host and device; empty before the first report.
        since: when it was handed out, seconds since 1970.
        names: its members' names by id, for `memory-sweep ctl stop`.
    """

    label: str
    trials: int
    epochs: int
    since: float
    epoch: int = -1
    loss: float | None = None
    where: str = ""
    names: dict[str, str] = field(default_factory=dict)


@dataclass
class SweepState:
    """A sweep at a moment.

    Attributes:
        name: of the sweep.
        phase: what is going on, in words.
        started: when this run began, seconds since 1970.
        updated: the moment.
        left_s: seconds until everything has run, if it can be told.
        stages: in order.
        packs: those that run.
        best: the best trial so far, beside the pretrained model, in a line.
        trouble: what failed, a line for each kind, with its count.
        steering: what people asked of the sweep, a line each, the latest last.
        paused_by: who has paused it; empty while it goes on.
        locked: whether a lock says that the run lives; else only the age of this does.
    """

    name: str
    phase: str
    started: float
    updated: float
    left_s: float | None = None
    stages: list[StageState] = field(default_factory=list)
    packs: list[PackState] = field(default_factory=list)
    best: str = ""
    trouble: list[str] = field(default_factory=list)
    steering: list[str] = field(default_factory=list)
    paused_by: str = ""
    locked: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SweepState:
        """Make it of plain JSON values.

        Raises:
            TypeError: they are something else.
            KeyError: likewise.
        """
        parts = {
            "stages": [StageState(**stage) for stage in values["stages"]],
            "packs": [PackState(**pack) for pack in values["packs"]],
        }
        return cls(**{**values, **parts})

    @property
    def running(self) -> int:
        """Trials under way."""
        return sum(pack.trials for pack in self.packs)

    @property
    def ended(self) -> Counter[str]:
        """Trials of all stages by outcome."""
        return sum((Counter(stage.ended) for stage in self.stages), Counter())

    @property
    def trials(self) -> int:
        """Trials of all stages."""
        return sum(stage.trials for stage in self.stages)


def read_state(storage: SweepStorage, name: str) -> SweepState | None:
    """Return what a sweep's driver said last; None where it said nothing, or nothing that can be read."""
    try:
        return SweepState.from_dict(read_plain_json(storage.read(f"{name}/{STATE_FILE}")))
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None
