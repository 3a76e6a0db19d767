"""What is left to do for a trial: train it, or only ask what is stored of it; and why it would be trained again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sweep.planning.points import Point, PointMaker
from sweep.planning.starts import Start
from sweep.records.index import RecordHead, RecordIndex
from sweep.records.sweep_storage import SweepStorage
from trainables.adapters.registry import ADAPTERS
from trainables.trial.asking import Asking

WEIGHTS = ".safetensors"
_ENDED = {"failed": "has failed", "diverged": "has diverged", "stopped": "was stopped early"}
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Due:
    """What a trial lacks.

    Attributes:
        askings: what is to be asked.
        trains: whether it is trained for it; else the stored weights are asked.
        again: why it is trained again though it has been; empty where it has not.
    """

    askings: tuple[Asking, ...]
    trains: bool = True
    again: str = ""


class Records:
    """Says of trials what a storage lacks of them.

    Args:
        index: of the storage; trials that others' trainings and askings make up are added to it.
        storage: the storage.
        retry_failed: what failed is due again.
        wanted: trainings that are due again since others start from their weights, each with the reason.

    Attributes:
        wanted: as given; what has been trained since is to be taken out.
    """

    def __init__(
        self,
        index: RecordIndex,
        storage: SweepStorage,
        retry_failed: bool = False,
        wanted: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Keep them."""
        self.index, self._storage, self._retry_failed = index, storage, retry_failed
        self.wanted = dict(wanted)
        self._stored: dict[str, frozenset[str]] = {}

    def due(self, point: Point) -> Due | None:
        """Return what a trial lacks; None where nothing is left to do, because it has a result or has failed."""
        training = self.index.training(point.training)
        if training is None:
            return Due(point.askings)
        self.index.view(point.identity)
        if training.status == "failed" and self._retry_failed:
            return Due(point.askings)
        if training.status != "done":
            return None  # it diverged, was stopped or failed: there is nothing to ask
        stored = self._stored_files(training)
        own = [asking for asking in point.own if not self._is_answered(point, asking, any_version=True)]
        kept = frozenset(epoch for epoch in point.spec.eval_epochs if _has_weights(stored, f"epochs/{epoch}/"))
        added = [_at_kept(asking, kept) for asking in point.added_askings]
        added = [asking for asking in added if not self._is_answered(point, asking, any_version=False)]
        asked = {asking.id: asking for asking in (*added, *own)}
        why = _lacking(point, own, stored, kept) if asked else ""
        if why:
            return Due(point.askings, again=why)
        if point.training in self.wanted:
            return Due(tuple(asked.values()), again=self.wanted[point.training])
        return Due(tuple(asked.values()), trains=False) if asked else None

    def want(self, trainings: Mapping[str, str]) -> None:
        """Take note of trainings that are due again since others start from their weights, with the reasons."""
        self.wanted = dict(trainings)

    def start(self, point: Point) -> Start:
        """Say what there is of the weights that a trial starts from."""
        training = str(point.spec.start_from)
        heads = self.index.trainings(training)
        missing = ""
        for done in (head for head in heads if head.status == "done"):
            places = [f"{done.folder}/{name}" for name in ADAPTERS[done.record()["identity"]["method"]].files]
            lost = [place for place in places if not self._storage.exists(place)]
            if places and not lost:
                return Start(tuple(places))
            missing = f"{self._storage.full(lost[0])} is missing" if lost else "nothing is stored of it"
        if missing:
            again = f"others start from its weights, of which {missing}"
            return Start(again=again) if point.start else Start(problem=f"training {training}: {missing}")
        head = self.index.training(training)
        if head is None and point.start is None:
            return Start(problem=f"start_from={training}: there is no such training in this storage")
        if head is None or (head.status == "failed" and self._retry_failed):
            return Start()
        error = head.record().get("error") or {}
        told = f" ({error.get('class')}: {' '.join(str(error.get('message')).split())[:160]})" if error else ""
        retry = "; --retry-failed runs it again" if head.status == "failed" else ""
        return Start(problem=f"trial {head.id} of stage {head.record()['stage']} {_ENDED[head.status]}{told}{retry}")

    def has_failed(self, point: Point) -> bool:
        """Say whether a trial's record says that it failed."""
        return point.id in self.index and self.index[point.id].status == "failed"

    def recorded(self, maker: PointMaker, trial: str) -> Point | None:
        """Return a trial that has been trained; None where nothing says what it is."""
        record = self.index.stated(trial)
        return maker.recorded(record) if record and record["status"] == "done" else None

    def old_versions(self, points: Iterable[Point]) -> list[str]:
        """Return a line on each probe that some of these trials were asked by another version than this code has."""
        counts: Counter[tuple[str, int, int]] = Counter()
        for point in points:
            for asking in point.own:
                found = self.index.answer(point.training, asking)
                asked = found.record()["version"] if found else asking.version
                if asked != asking.version:
                    counts[asking.probe, asked, asking.version] += 1
        return [
            f"{count:,} trials were asked by version {asked} of {probe}, this code has {now}: a few questions differ; "
            f"to ask their stored weights anew: python -m sweep.evaluate STORAGE/NAME --probe {probe}"
            for (probe, asked, now), count in sorted(counts.items())
        ]

    def _is_answered(self, point: Point, asking: Asking, any_version: bool) -> bool:
        found = self.index.answer(point.training, asking, any_version)
        return found is not None and not (found.status == "failed" and self._retry_failed)

    def _stored_files(self, training: RecordHead) -> frozenset[str]:
        """Return the names of the weights that a training has left, with their folders below its own."""
        if training.folder not in self._stored:
            told = training.record().get("files")
            names: Collection[str] = self._storage.files(training.folder) if told is None else told
            self._stored[training.folder] = frozenset(name for name in names if name.endswith(WEIGHTS))
        return self._stored[training.folder]


def _at_kept(asking: Asking, kept: Collection[int]) -> Asking:
    return replace(asking, epochs=tuple(epoch for epoch in asking.epochs if epoch in kept))


def _has_weights(stored: Collection[str], place: str) -> bool:
    return any(name.startswith(place) if place else "/" not in name for name in stored)


def _lacking(point: Point, own: list[Asking], stored: Collection[str], kept: Collection[int]) -> str:
    """Say which weights are missing to ask a trial what it lacks; empty where none are."""
    method = point.spec.method
    if not ADAPTERS[method].trains:
        return ""
    if not _has_weights(stored, ""):
        if not ADAPTERS[method].from_fields(vars(point.spec)).stored_params(point.card):
            return f"a {method} stores no weights"
        return "its weights are not stored (keep_memory=false)"
    wanted = {epoch for asking in own for epoch in asking.epochs} - set(kept)
    if wanted:
        told = ", ".join(map(str, sorted(wanted)))
        return f"its weights after epoch {told} are not stored (eval_epochs, keep_epochs)"
    return ""
