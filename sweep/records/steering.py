"""What people ask of a sweep while it runs, and what became of it: wishes on their way, and those that were taken in.

A wish is a small file of its own, `wishes/ID.json`, written whole by whoever asks, on any machine. The run takes it in
once: it appends it, with what came of it, to the sweep's `steering.json` and removes the file. What holds of a sweep
(whether it is paused, which trials are stopped, which points were added) follows from that list alone, so that it also
holds for the next run, however the last one ended.
"""

from __future__ import annotations

import getpass
import socket
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sweep.records.record import timestamp
from sweep.records.sweep_files import STEERING, read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import SweepStorage
from trainables.errors import DataError
from trainables.node.checksums import read_plain_json, sealed, unsealed

WISHES = "wishes"
"""In a sweep's folder: wishes that no run has taken in yet."""
PAUSE, RESUME, STOP, ADD, CLONE, FINISH_EARLY = "pause", "resume", "stop", "add", "clone", "finish-early"
COMMANDS = (PAUSE, RESUME, STOP, ADD, CLONE, FINISH_EARLY)


@dataclass(frozen=True)
class Wish:
    """One thing that somebody asks of a sweep.

    Attributes:
        id: of the wish; ids of later wishes are larger.
        command: one of `COMMANDS`.
        by: who asks: user and machine.
        at: when, as ISO 8601 in UTC.
        trial: id of the trial that is meant; empty where it is the whole sweep.
        settings: of `add` and `clone`: `FIELD=V[,V...]`.
        stage: of `add`: the only stage that gets points; empty for all.
        points: of `clone`: all fields of each new trial.
        added: of `clone`: what its trials are asked besides, as after `--probe`.
        taken_at: when a run took it in; empty until then.
        outcome: what came of it, in words.
        refused: whether the run could not do it.
        under_way: of `finish-early`: the trainings that were running.
        over: of `finish-early`: whether the run has ended that it was meant for.
    """

    id: str
    command: str
    by: str
    at: str
    trial: str = ""
    settings: tuple[str, ...] = ()
    stage: str = ""
    points: tuple[Mapping[str, Any], ...] = ()
    added: tuple[str, ...] = ()
    taken_at: str = ""
    outcome: str = ""
    refused: bool = False
    under_way: tuple[str, ...] = ()
    over: bool = False

    @property
    def asked(self) -> str:
        """The command as it was typed, in short: `stop 1f3a…`, `add --set alpha=2`."""
        sets = [f"--set {setting}" for setting in self.settings]
        stage = [f"--stage {self.stage}"] if self.stage else []
        return " ".join([self.command, *([self.trial[:12]] if self.trial else []), *sets, *stage])

    @property
    def line(self) -> str:
        """What was asked, by whom, when, and what came of it, for people."""
        told = f"{self.at[:16].replace('T', ' ')} UTC, {self.by}: {self.asked}"
        if not self.taken_at:
            return f"{told}: not taken in yet"
        return f"{told}: {'refused, ' * self.refused}{self.outcome}"

    @property
    def labels(self) -> dict[str, str]:
        """What the records of trials that it added say of it."""
        origin = {"cloned_from": self.trial} if self.command == CLONE else {}
        return {**origin, "added_by": self.by, "added_at": self.at, "added_as": self.asked}


def origin_text(labels: Mapping[str, str], named: Callable[[str], str] = str) -> str:
    """Say by whom, when and how a trial was added to its sweep (`Wish.labels`); empty where its space has it.

    Args:
        labels: of its record.
        named: prints the trial that it is a clone of.
    """
    if "added_by" not in labels:
        return ""
    source = labels.get("cloned_from")
    lead = f"A clone of trial {named(source)}, added" if source else "Added"
    when = str(labels.get("added_at", ""))[:16].replace("T", " ")
    return f"{lead} to the sweep by {labels['added_by']}, {when} UTC (ctl {labels.get('added_as', '')})."


@dataclass(frozen=True)
class Steering:
    """The wishes that a sweep's runs have taken in, oldest first, and what holds because of them."""

    wishes: tuple[Wish, ...] = field(default=())

    @property
    def paused(self) -> Wish | None:
        """The wish that holds the sweep; None where it may go on."""
        last = self._last(lambda wish: not wish.trial and wish.command in (PAUSE, RESUME, FINISH_EARLY))
        return last if last and last.command == PAUSE else None

    @property
    def finishing(self) -> Wish | None:
        """The wish that ends the run once its packs have ended; None where there is none."""
        last = self._last(lambda wish: not wish.trial and wish.command in (PAUSE, RESUME, FINISH_EARLY))
        return last if last and last.command == FINISH_EARLY and not last.over else None

    @property
    def stopped(self) -> dict[str, Wish]:
        """The trials that are to be stopped, or were."""
        return {trial: wish for trial, wish in self._of_trials().items() if wish.command == STOP}

    @property
    def resumed(self) -> dict[str, Wish]:
        """The trials that had been stopped and are to go on."""
        return {trial: wish for trial, wish in self._of_trials().items() if wish.command == RESUME}

    @property
    def additions(self) -> tuple[Wish, ...]:
        """The wishes that gave the sweep more points."""
        return tuple(wish for wish in self.wishes if wish.command in (ADD, CLONE) and not wish.refused)

    def _of_trials(self) -> dict[str, Wish]:
        return {wish.trial: wish for wish in self.wishes if wish.command in (STOP, RESUME) and self._holds(wish)}

    def _holds(self, wish: Wish) -> bool:
        return bool(wish.trial) and not wish.refused

    def _last(self, fits: Any) -> Wish | None:
        return next((wish for wish in reversed(self.wishes) if not wish.refused and fits(wish)), None)

    def having(self, wish: Wish) -> Steering:
        """Return the list with a wish at its end, or in its old place where it is there already."""
        if any(known.id == wish.id for known in self.wishes):
            return Steering(tuple(wish if known.id == wish.id else known for known in self.wishes))
        return Steering((*self.wishes, wish))


NOTHING_ASKED = Steering()


def new_wish(command: str, **parts: Any) -> Wish:
    """Return a wish of whoever runs this process."""
    now_ns = time.time_ns()
    now = timestamp(now_ns / 1e9)
    moment = f"{now[:19].replace('-', '').replace(':', '')}.{now_ns % 10**9:09d}"
    return Wish(f"{moment}-{uuid.uuid4().hex[:8]}", command, who(), now, **parts)


def who() -> str:
    """Return the user and the machine of this process."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def write_wish(storage: SweepStorage, name: str, wish: Wish) -> None:
    """Put a wish where the sweep's run finds it.

    Raises:
        StorageError: it cannot be written.
    """
    storage.write_json(f"{name}/{WISHES}/{wish.id}.json", sealed(_plain(wish)))


def waiting_wishes(storage: SweepStorage, name: str, taken: Collection[str] = ()) -> list[Wish]:
    """Return the wishes that lie in the storage, oldest first; one that cannot be read as refused.

    Args:
        storage: the storage.
        name: of the sweep.
        taken: ids of those that were taken in already and are left out: their file may outlive them.

    Raises:
        StorageError: the storage cannot be read.
    """
    found = []
    for file in storage.files(f"{name}/{WISHES}"):
        wish, is_json = file.removesuffix(".json"), file.endswith(".json") and not file.startswith(".")
        if not is_json or wish in taken:
            continue
        try:
            found.append(_wish(unsealed(read_plain_json(storage.read(f"{name}/{WISHES}/{file}")))))
        except FileNotFoundError:
            continue
        except (ValueError, TypeError, KeyError) as error:
            found.append(Wish(wish, "?", "unknown", timestamp(), outcome=f"not readable ({error})", refused=True))
    return found


def remove_wish(storage: SweepStorage, name: str, wish: Wish) -> None:
    """Remove the file of a wish."""
    storage.delete(f"{name}/{WISHES}/{wish.id}.json")


def read_steering(storage: SweepStorage, name: str) -> Steering:
    """Return what a sweep's runs were asked; nothing where there is no file, or a broken one.

    Raises:
        DataError: the file is of another version.
        StorageError: the storage cannot be read.
    """
    found = read_sweep_file(storage, name, STEERING) or {"wishes": ()}
    try:
        return Steering(tuple(_wish(wish) for wish in found["wishes"]))
    except TypeError as error:
        raise DataError(f"{storage.full(f'{name}/{STEERING}')}: of another version ({error})") from None


def write_steering(storage: SweepStorage, name: str, steering: Steering) -> None:
    """Write down what a sweep's runs were asked."""
    write_sweep_file(storage, name, STEERING, {"format": 1, "wishes": [_plain(wish) for wish in steering.wishes]})


def _plain(wish: Wish) -> dict[str, Any]:
    """Return a wish as plain JSON values; what it does not use is left out."""
    given = {name: value for name, value in asdict(wish).items() if value not in ("", (), False)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def _wish(values: Any) -> Wish:
    """Make a wish of plain JSON values; parts that a later version may have added are left out.

    Raises:
        TypeError: they are something else.
    """
    kinds = {part.name: str(part.type) for part in fields(Wish)}
    if not isinstance(values, Mapping) or values.get("command") not in (*COMMANDS, "?"):
        raise TypeError("no such command")
    given: dict[str, Any] = {name: value for name, value in values.items() if name in kinds}
    for name, value in given.items():
        kind = list if kinds[name].startswith("tuple") else bool if kinds[name] == "bool" else str
        if not isinstance(value, kind):
            raise TypeError(f"{name} is not what a wish has there")
        if isinstance(value, list) and not all(isinstance(each, dict if name == "points" else str) for each in value):
            raise TypeError(f"{name} is not what a wish has there")
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(Wish("", "", "", ""), **given)
