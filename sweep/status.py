"""`python -m sweep.status STORAGE[/NAME]`: how far sweeps are, from their storage alone."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from sweep.cli.options import LocationArgument, user_errors
from sweep.records.locks import who_holds
from sweep.records.manifest import manifest_stages
from sweep.records.sweep_storage import RecordIndex, SweepStorage, split_location
from sweep.running.state import StageState, SweepState, read_state
from sweep.running.state_text import duration, one_line, view

HELP = """Say how far a sweep is: what runs and what has ended, how long the rest takes, what failed.

\b
Examples:
  python -m sweep.status outputs/inductive
  python -m sweep.status s3://bucket/outputs --watch
  python -m sweep.status outputs/inductive --json

Only the storage is read, so it works from any machine that reaches it, and disturbs nothing.
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
STALE_S = 60.0
"""Age of a state from which it is said how old it is: six times as old as a running driver lets it become."""


@app.command(help=HELP)
def main(
    location: LocationArgument,
    watch: Annotated[bool, typer.Option("--watch", help="go on until Ctrl-C")] = False,
    every_s: Annotated[float, typer.Option("--every", min=1.0, help="with --watch: seconds between two looks")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a look")] = False,
) -> None:
    """Say how far sweeps are."""
    with user_errors():
        storage, name = split_location(location)
        names = [name] if name else storage.sweeps()
        if as_json or not watch:
            while True:
                _print(look(storage, names), as_json)
                if not watch:
                    return
                time.sleep(every_s)
        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            while True:
                live.update(_shown(look(storage, names)), refresh=True)
                time.sleep(every_s)


def look(storage: SweepStorage, names: list[str]) -> list[tuple[SweepState, str]]:
    """Return the state of some sweeps, and of each who works on it; empty where nobody does.

    Raises:
        StorageError: the storage cannot be read.
    """
    index = None
    found = []
    for name in names:
        state = read_state(storage, name)
        if state is None:
            index = storage.index(set_aside=False) if index is None else index
            state = recorded_state(storage, name, index)
        found.append((state, who_holds(storage, name)))
    return found


def recorded_state(storage: SweepStorage, name: str, index: RecordIndex) -> SweepState:
    """Return what the records and the manifest tell of a sweep whose driver has left no state."""
    state = SweepState(name, "unknown", 0.0, 0.0)
    for stage, trials in manifest_stages(storage, name):
        ended: dict[str, int] = {}
        for trial in trials:
            if trial in index:
                ended[index[trial].status] = ended.get(index[trial].status, 0) + 1
        done = sum(ended.values())
        state.stages.append(StageState(stage, len(trials), len(trials), done, ended=ended))
    return state


def _note(state: SweepState, who: str) -> str:
    age = time.time() - state.updated
    if not who:
        return "no run works on it now" if state.phase != "ended" else ""
    old = f"; it said this {duration(age)} ago" if state.updated and age > STALE_S else ""
    return f"run by {who}{old}"


def _shown(found: list[tuple[SweepState, str]]) -> RenderableType:
    if len(found) == 1:
        (state, who), *_ = found
        note = _note(state, who)
        return Group(view(state), Text(note)) if note else view(state)
    return Group(*(Text(_line(state, who), no_wrap=True, overflow="ellipsis") for state, who in found))


def _line(state: SweepState, who: str) -> str:
    return f"{state.name}: {one_line(state, _note(state, who))}"


def _print(found: list[tuple[SweepState, str]], as_json: bool) -> None:
    if as_json:
        told: list[dict[str, Any]] = [{**state.to_dict(), "run_by": who} for state, who in found]
        typer.echo(json.dumps(told[0] if len(told) == 1 else told))
        return
    console = Console(highlight=False)
    if console.is_terminal or len(found) == 1:
        console.print(_shown(found))
        return
    for state, who in found:  # whole lines for a pipe, however long
        typer.echo(_line(state, who))


if __name__ == "__main__":
    app()
