"""Jobs: a training with all that is asked of it for several trials, or a stored training that is only asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sweep.planning.due import Due, Records
from sweep.planning.packs import Pack, PackSize, make_ask_packs, make_packs
from sweep.planning.points import Point
from sweep.running.known_trials import KnownTrials
from sweep.running.waiting_starts import WaitingStarts
from trainables.trial.asking import Asking, label_of


@dataclass(frozen=True)
class Job:
    """One training with what is asked of it, or a stored one that is only asked.

    Attributes:
        points: the trials that it gives a result to, the first of which says how it is run.
        askings: what is asked.
        asks: whether nothing is trained.
    """

    points: tuple[Point, ...]
    askings: tuple[Asking, ...]
    asks: bool

    @property
    def lead(self) -> Point:
        """The first of its trials."""
        return self.points[0]


class Jobs:
    """The jobs of a run that are queued or under way, one for a training at most.

    Args:
        known: the trials of the sweep; those that get a job are added.
        records: says what trials lack.
        starts: holds back those whose weights to start from are not there.
        states_bytes: of hidden states that a pack may need at a time.
    """

    def __init__(self, known: KnownTrials, records: Records, starts: WaitingStarts, states_bytes: float) -> None:
        """Begin without jobs."""
        self._known, self._records, self._starts, self._states_bytes = known, records, starts, states_bytes
        self._jobs: dict[str, Job] = {}
        self._later: dict[str, list[Point]] = {}

    def __contains__(self, training: str) -> bool:
        """Whether a training has a job."""
        return training in self._jobs

    def __getitem__(self, training: str) -> Job:
        """Return the job of a training."""
        return self._jobs[training]

    def make(self, points: Iterable[Point]) -> list[Point]:
        """Make jobs of what some trials lack, one for each training, and return their first trials.

        A trial whose training is under way waits for it, and one that starts from weights that are not there for those.
        """
        dues: dict[str, list[tuple[Point, Due]]] = {}
        for point in points:
            due = self._records.due(point)
            if point.id in self._known.index and not (due and due.trains and not due.again):
                self._known.statuses[point.id] = self._known.index[point.id].status
            if due is not None and point.training in self._jobs:
                self._later.setdefault(point.training, []).append(point)
            elif due is not None and not (due.trains and self._starts.waits(point)):
                dues.setdefault(point.training, []).append((point, due))
        self._known.points |= {point.id: point for found in dues.values() for point, _ in found}
        self._jobs |= {training: _job(found) for training, found in dues.items()}
        return [self._jobs[training].lead for training in dues]

    def packs(self, leads: Iterable[Point], size: int | PackSize, slots: int) -> list[Pack]:
        """Put jobs into packs: those that train, and those that only ask.

        Args:
            leads: the first trial of each.
            size: members of a pack at most.
            slots: packs that can run at once.
        """
        to_train, to_ask = [], []
        for point in leads:
            job = self._jobs[point.training]
            if job.asks:
                to_ask.append((point, job.askings))
            else:
                to_train.append(point)
        told = size, slots, self._states_bytes
        return [*make_packs(to_train, *told), *make_ask_packs(to_ask, *told)]

    def end(self, training: str) -> Job:
        """Take out the job of a training, which is over, and return it."""
        return self._jobs.pop(training)

    def take_later(self, training: str) -> list[Point]:
        """Return, once, the trials that have waited for a training to be over."""
        return self._later.pop(training, [])

    def trials_of(self, training: str) -> tuple[str, ...]:
        """Return the ids of the trials that a job gives a result to; none where the training has no job."""
        return tuple(point.id for point in self._jobs[training].points) if training in self._jobs else ()

    def points_of(self, pack: Pack) -> list[Point]:
        """Return all trials that a pack gives a result to."""
        return [point for lead in pack.points for point in self._jobs[lead.training].points]

    def still_due(self, job: Job) -> bool | None:
        """Say what is still due of a job: False for training, True for asking as it does, None for something else."""
        dues = [due for point in job.points if (due := self._records.due(point)) is not None]
        if any(due.trains for due in dues):
            return False
        asked = {asking.id for due in dues for asking in due.askings}
        return True if asked == {asking.id for asking in job.askings} else None


def _job(found: list[tuple[Point, Due]]) -> Job:
    """Put what some trials of one training lack into one job; each asking at all the epochs at which one wants it."""
    stated = found[0][0].identity  # the labels are those within the first trial, whose record is written
    asked = {
        asking.id: replace(asking, label=label_of(asking.probe, asking.settings, stated))
        for _, due in found
        for asking in due.askings
    }
    for _, due in found:
        for asking in due.askings:
            epochs = {*asked[asking.id].epochs, *asking.epochs}
            asked[asking.id] = replace(asked[asking.id], epochs=tuple(sorted(epochs)))
    asks = not any(due.trains for _, due in found)
    return Job(tuple(point for point, _ in found), tuple(asked.values()), asks)
