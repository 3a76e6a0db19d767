"""Makes the choices of a sweep: each as soon as all its candidates have a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sweep.planning.choices import (
    ChoiceQuestion,
    NoCandidate,
    Undecided,
    awaits_retry,
    chosen_line,
    decide,
    reconcile,
    reopened,
)
from sweep.records.record import Record, timestamp
from sweep.records.sweep_files import CHOICES, write_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.running.known_trials import KnownTrials
from trainables.node.patience import patiently


class Choosing:
    """The questions of a sweep that are open, and those that are settled.

    Args:
        questions: of its plan.
        choices: recorded choices by key; those that are made are added, and written down.
        known: the sweep's trials.
        storage: of the sweep.
        sweep: its name.
        say: prints a line for the user.
        chosen: hears of each choice that is made, in a line.

    Attributes:
        choices: as given.
        settled: what later stages take, by key: choices that hold in this run.
    """

    def __init__(
        self,
        questions: Iterable[ChoiceQuestion],
        choices: dict[str, Any],
        known: KnownTrials,
        storage: SweepStorage,
        sweep: str,
        say: Callable[[str], None],
        chosen: Callable[[str], None],
    ) -> None:
        """Begin with nothing settled."""
        self.choices, self.settled = choices, dict[str, Any]()
        self._known, self._storage, self._sweep = known, storage, sweep
        self._say, self._chosen = say, chosen
        self._open = {question.key: question for question in questions}

    def adopt(self, questions: Iterable[ChoiceQuestion]) -> None:
        """Go on with the questions of another plan of the same sweep."""
        self._open |= {question.key: question for question in questions if question.key not in self.settled}

    def settle(self) -> bool:
        """Settle the questions whose candidates are all recorded; say whether there were any."""
        before = len(self.settled)
        for key, question in list(self._open.items()):
            self._try_to_settle(key, question)
        return len(self.settled) != before

    def open_lines(self) -> list[str]:
        """Return a line for each question that is not decided, with how many of its candidates have a result."""
        lines = []
        for question in self._open.values():
            ids = [point.id for point in question.candidates]
            ended = sum(trial in self._known.statuses for trial in ids)
            lines.append(f"not chosen: {question}: {ended} of {len(ids)} candidates have a result")
        return lines

    def _try_to_settle(self, key: str, question: ChoiceQuestion) -> None:
        recorded = self.choices.get(key)
        if recorded is not None and awaits_retry(question, recorded, self._known.statuses):
            return
        fresh, trouble = None, ""
        try:
            fresh = self._decided(question)
        except (NoCandidate, Undecided) as error:
            trouble = str(error)
        stays = recorded is not None and recorded["value"] in question.values
        if trouble and not stays:
            self._say(f"stage cannot go on: {trouble}")
            del self._open[key]
            return
        if fresh is None:
            if recorded is not None and stays:
                self.settled[key] = recorded
            return
        choice, warning = reconcile(question, recorded, fresh)
        if warning:
            self._say(f"note: {warning}")
        self.settled[key] = choice
        del self._open[key]
        anew = recorded is not None and reopened(recorded, fresh)
        if recorded is None or anew:
            self.choices[key] = choice
            patiently(write_sweep_file, self._storage, self._sweep, CHOICES, self.choices)
        if anew or not stays:
            line = f"{question} is {chosen_line(choice)}"
            self._say(f"chosen: {line}")
            self._chosen(line)

    def _decided(self, question: ChoiceQuestion) -> dict[str, Any] | None:
        """Decide a question; None while a candidate has no result."""
        records: dict[str, Record] | None = self._known.records_of_all([point.id for point in question.candidates])
        return None if records is None else decide(question, records, timestamp())
