"""One trial as it travels to a worker: plain data, light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainables.trial.spec import TrialSpec, make_spec


@dataclass(frozen=True)
class TrialTask:
    """One trial to run.

    Attributes:
        id: the trial's id.
        spec: canonical, with model and data as the user named them.
        folder: where its files go, path or URI.
        checkpoint: where its checkpoint is, path or URI.
    """

    id: str
    spec: TrialSpec
    folder: str
    checkpoint: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as it travels to a worker."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialTask:
        """Read what `to_dict` gave."""
        return cls(plain["id"], make_spec(plain["spec"]), plain["folder"], plain["checkpoint"])
