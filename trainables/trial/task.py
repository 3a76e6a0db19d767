"""One trial as it travels to a worker: plain data, light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.trial.asking import Asking, own_askings
from trainables.trial.identity import identity
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec


@dataclass(frozen=True)
class TrialTask:
    """One training to run, with what is asked of it; or one that is stored, and is only asked.

    Attributes:
        id: the training's id.
        spec: canonical, with model and data as the user named them.
        folder: where its files go and, if it is stored, where they are: path or URI.
        checkpoint: where its checkpoint is, path or URI.
        askings: what is asked; None for what the spec's own fields say.
        stored: nothing is trained: the weights in the folder are asked.
        start: the files whose weights it starts from, paths or URIs; none where it starts anew.
    """

    id: str
    spec: TrialSpec
    folder: str
    checkpoint: str
    askings: tuple[Asking, ...] | None = None
    stored: bool = False
    start: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[Asking, ...]:
        """What is asked."""
        return tuple(own_askings(identity(self.spec))) if self.askings is None else self.askings

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as it travels to a worker."""
        askings = None if self.askings is None else [asking.to_dict() for asking in self.askings]
        return {**vars(self), "spec": dict(vars(self.spec)), "askings": askings, "start": list(self.start)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrialTask:
        """Read what `to_dict` gave."""
        told = plain.get("askings")
        askings = None if told is None else tuple(Asking.from_dict(asking) for asking in told)
        spec, stored = make_spec(plain["spec"]), bool(plain.get("stored"))
        start = tuple(plain.get("start") or ())
        return cls(plain["id"], spec, plain["folder"], plain["checkpoint"], askings, stored, start)
