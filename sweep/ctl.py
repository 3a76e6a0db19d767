"""`python -m sweep.ctl STORAGE[/NAME] COMMAND`: steer a sweep that runs, from any machine that reaches its storage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Annotated, Any

import typer

from sweep.cli import completion
from sweep.cli.options import LocationArgument, user_errors
from sweep.planning.additions import CLONES
from sweep.planning.inputs import check_added, kept_commits
from sweep.planning.kept_space import kept_space
from sweep.planning.overrides import override_values
from sweep.planning.plan import Plan
from sweep.planning.plan_of import plan_of
from sweep.planning.points import Point, PointMaker
from sweep.records.locks import who_holds
from sweep.records.manifest import manifest_stages
from sweep.records.steering import (
    ADD,
    CLONE,
    COMMANDS,
    FINISH_EARLY,
    PAUSE,
    RESUME,
    STOP,
    Steering,
    Wish,
    new_wish,
    read_steering,
    waiting_wishes,
    write_wish,
)
from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import RecordIndex, SweepStorage, one_sweep
from sweep.running.state import read_state
from sweep.space import aliases
from trainables.errors import ConfigError, nearest
from trainables.trial.asking import plain_value
from trainables.trial.making import make_spec

HELP = """Steer a sweep while it runs; takes effect within an epoch, on every node and with both executors.

\b
  pause              nothing starts any more; what runs ends after its epoch with a checkpoint, and the run waits
  resume             the run goes on
  stop TRIAL         the trial ends after its epoch; it is recorded as stopped, with its curves, and never run again
  resume TRIAL       ... unless it is resumed: it goes on, also in a later run
  add --set F=V,V    the points that the same space has with these values join the sweep
  clone TRIAL --set F=V,V   a trial like another, but for these values; in a stage of its own, which no choice counts
  finish-early       nothing starts any more; what runs is finished, and the run ends

\b
Examples:
  python -m sweep.ctl outputs/inductive pause
  python -m sweep.ctl outputs/inductive add --set alpha=0.1,10
  python -m sweep.ctl s3://bucket/outputs/inductive stop 1f3a9c

TRIAL is an id or its beginning; `stop` without it lists what runs. What is asked lies in the storage: where no run
hears it, the next run does (finish-early is refused then).
Exit status: 0 done, or left for the run; 1 refused by the run; 2 a mistake.
"""
WAIT_S = 15.0
"""How long an answer is waited for: a run looks for wishes every 1 or 5 s, in this process after an epoch."""
FRESH_S = 60.0
"""Age of a run's last word up to which it is taken to live where no lock says so (`--no-lock`)."""
SHORTEST = 4
"""Fewest characters of an id that may stand for it (ours)."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _commands_from(incomplete: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(incomplete)]


@app.command(help=HELP)
def main(
    location: LocationArgument,
    command: Annotated[str, typer.Argument(metavar="COMMAND", help=", ".join(COMMANDS), autocompletion=_commands_from)],
    trial: Annotated[str | None, typer.Argument(metavar="[TRIAL]", help="an id, or its beginning")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=V[,V...]",
            help="with add and clone; may be repeated",
            autocompletion=completion.settings,
        ),
    ] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="with add: only this stage gets points")] = None,
    wait_s: Annotated[float, typer.Option("--wait", min=0.0, help="seconds to wait for the run's answer")] = WAIT_S,
) -> None:
    """Steer a sweep while it runs."""
    with user_errors():
        storage, name = one_sweep(location)
        _check_words(command, trial, settings or (), stage)
        control = Control(storage, name)
        if command == STOP and trial is None:
            typer.echo("\n".join(control.running_lines()) or f"{name}: no trial is running")
            return
        wish = control.wish(command, trial, tuple(settings or ()), stage or "")
        if wish is None:
            return
        write_wish(storage, name, wish)
        raise typer.Exit(control.answer(wish, wait_s))


def _check_words(command: str, trial: str | None, settings: Sequence[str], stage: str | None) -> None:
    """Refuse a command that there is not, and words that it has no use for or lacks."""
    if command not in COMMANDS:
        raise ConfigError(f"no command {command!r}{nearest(command, COMMANDS)}; there are {', '.join(COMMANDS)}")
    if trial is not None and command not in (STOP, RESUME, CLONE):
        raise ConfigError(f"{command} {trial}: {command} is for the whole sweep; leave {trial!r} out")
    if settings and command not in (ADD, CLONE):
        raise ConfigError(f"{command}: has no use for --set; leave it out")
    if stage is not None and command != ADD:
        raise ConfigError(f"{command}: has no use for --stage; leave it out")
    if command in (ADD, CLONE) and not settings:
        raise ConfigError(f"{command}: say what is to be different: --set FIELD=V[,V...]")
    if command == CLONE and trial is None:
        raise ConfigError("clone: say which trial: clone TRIAL --set FIELD=V[,V...]")


class Control:
    """What a storage tells of one sweep, as far as it is needed to ask something of it.

    Args:
        storage: the storage.
        name: of the sweep.
    """

    def __init__(self, storage: SweepStorage, name: str) -> None:
        """Read what was asked before, and who works on it."""
        self._storage, self._name = storage, name
        self._state = read_state(storage, name)
        self._who = who_holds(storage, name)
        state = self._state
        if not self._who and state and not state.locked and state.phase != "ended":
            self._who = "a run without a lock" if time.time() - state.updated < FRESH_S else ""
        steering = read_steering(storage, name)
        for wish in waiting_wishes(storage, name, {wish.id for wish in steering.wishes}):
            steering = steering.having(wish)
        self._steering = steering

    def wish(self, command: str, trial: str | None, settings: tuple[str, ...], stage: str) -> Wish | None:
        """Return the wish to be written; None where there is nothing to ask, which is said.

        Raises:
            ConfigError: it makes no sense now, or what is asked for cannot be run.
            DataError: data or a model file that is missing or broken.
        """
        where = self._storage.full(self._name)
        if command == PAUSE and self._steering.paused:
            paused = self._steering.paused
            typer.echo(f"{self._name}: is paused already, by {paused.by}, {paused.at[:16]}")
            return None
        if command == FINISH_EARLY and not self._who:
            raise ConfigError(f"{where}: no run works on it, so there is nothing to finish")
        if command == RESUME and trial is None and not (self._steering.paused or self._steering.finishing):
            raise ConfigError(f"{where}: is not paused; to take a stopped trial up: resume TRIAL")
        if command == ADD:
            return self._checked(new_wish(ADD, settings=settings, stage=stage))
        if command == CLONE:
            return self._clone(str(trial), settings)
        return new_wish(command, trial=self._meant(trial) if trial else "")

    def answer(self, wish: Wish, wait_s: float) -> int:
        """Wait for the run's answer and say it; return the exit status."""
        if not self._who:
            typer.echo(f"{self._name}: no run works on it now; the next one will do it: {wish.asked}")
            return 0
        until = time.monotonic() + wait_s
        while True:
            taken = {found.id: found for found in read_steering(self._storage, self._name).wishes}
            if wish.id in taken:
                told = taken[wish.id]
                typer.echo(f"{self._name}: {told.asked}: {'refused, ' * told.refused}{told.outcome}")
                return int(told.refused)
            if time.monotonic() >= until:
                typer.echo(f"{self._name}: {wish.asked}: the run ({self._who}) has not heard of it yet; it will")
                return 0
            time.sleep(0.25)

    def running_lines(self) -> list[str]:
        """Return a line for each trial that runs: its id and its name."""
        packs = self._state.packs if self._state and self._who else []
        return [f"{trial}  {name}" for pack in packs for trial, name in sorted(pack.names.items())]

    def _meant(self, text: str) -> str:
        """Return the id of the only trial of the sweep that a text is the beginning of.

        Raises:
            ConfigError: there is none, or there are several.
        """
        listed = [trial for _, trials in manifest_stages(self._storage, self._name) for trial in trials]
        running = [trial for pack in (self._state.packs if self._state else ()) for trial in pack.names]
        known = dict.fromkeys([*listed, *running])
        found = [trial for trial in known if trial == text] or [t for t in known if t.startswith(text)]
        where = self._storage.full(self._name)
        if len(text) < SHORTEST:
            raise ConfigError(f"trial {text!r}: give at least {SHORTEST} characters of its id")
        if not found:
            raise ConfigError(f"trial {text!r}: none of {where}{nearest(text, known)}; `stop` alone lists what runs")
        if len(found) > 1:
            raise ConfigError(f"trial {text!r}: begins the ids of {len(found)} trials: {', '.join(found[:4])}, …")
        return found[0]

    def _planned(self, steering: Steering, index: RecordIndex) -> Plan:
        space, until = kept_space(self._storage, self._name)
        choices = read_sweep_file(self._storage, self._name, CHOICES) or {}
        return plan_of(space, index, choices, self._storage, self._name, until, steering=steering)

    def _checked(self, wish: Wish) -> Wish:
        """Plan the sweep with a wish's points and check them, so that the run need not refuse them."""
        index = self._storage.index(set_aside=False)
        before = self._planned(self._steering, index)
        after = self._planned(self._steering.having(wish), index)
        new = after.trials - before.trials
        if not new:
            sampled = [stage.name for stage in after.stages if stage.stage.sampling]
            why = f"; {', '.join(sampled)} is sampled, for more of it run again with --set num_samples=…" * bool(
                sampled
            )
            raise ConfigError(f"{wish.asked}: all its points are in the sweep already{why}")
        for note in check_added(before, after, download=False):
            typer.echo(f"note: {note}", err=True)
        typer.echo(f"{self._name}: {len(new)} trials more")
        return wish

    def _clone(self, trial: str, settings: Sequence[str]) -> Wish:
        index = self._storage.index(set_aside=False)
        source = self._point(self._meant(trial), index)
        if source.spec.start_from:
            raise ConfigError(f"clone: trial {source.id} starts from another's weights; run the space again")
        values, commits = override_values(settings), kept_commits(self._storage, self._name)
        points = []
        for combination in product(*values.values()):
            changed = dict(zip(values, combination, strict=True))
            fields = {name: value for name, value in asdict(source.spec).items() if name not in _same(changed)}
            spec = make_spec({**fields, **changed})
            _check_used(source, PointMaker(commits).point(spec), changed)
            points.append({**asdict(spec), "stage": CLONES})
        plain = tuple({name: plain_value(value) for name, value in fields.items()} for fields in points)
        return self._checked(
            new_wish(CLONE, trial=source.id, settings=tuple(settings), points=plain, added=source.added)
        )

    def _point(self, trial: str, index: RecordIndex) -> Point:
        """Return a trial of the sweep, recorded or planned."""
        if trial in index:
            return PointMaker(kept_commits(self._storage, self._name)).recorded(index[trial].record())
        for stage in self._planned(self._steering, index).stages:
            for point in stage.points:
                if point.id == trial:
                    return point
        raise ConfigError(f"trial {trial}: its fields are not known yet; clone it once it has begun")


def _check_used(source: Point, clone: Point, changed: Mapping[str, Any]) -> None:
    """Refuse a value that a trial like this has no use for: the clone would not have it.

    Raises:
        ConfigError: which.
    """
    for name, value in changed.items():
        if name != "depth" and getattr(clone.spec, name) != value:
            has = f"method={source.spec.method}, allocation={source.spec.allocation}"
            raise ConfigError(f"clone: {name}={value} means nothing to this trial ({has}); set what uses it too")


def _same(changed: Mapping[str, Any]) -> set[str]:
    """Return the fields that some values replace, a block's depth by its index and the other way round."""
    return {alias for name in changed for alias in aliases(name)}


if __name__ == "__main__":
    app()
