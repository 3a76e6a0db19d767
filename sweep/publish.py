"""`python -m sweep.publish STORAGE[/NAME]`: bring MLflow and the results tables up to date with the records."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from sweep.cli.ending import end_without_search
from sweep.cli.heartbeat import LINE_EVERY_S, Heartbeat
from sweep.cli.options import ExperimentOption, LocationArgument, NoLockOption, TrackingUriOption, user_errors
from sweep.records.mend import mend_storage_file, problems_of
from sweep.records.results_table import write_results
from sweep.records.sweep_storage import split_location
from sweep.report.findings import publish_compared
from sweep.tracking.address import resolve_tracking
from sweep.tracking.link import view_link
from sweep.tracking.publish import Progress
from trainables.errors import ConfigError
from trainables.node.addresses import shown

HELP = """Bring MLflow and results.parquet up to date with the records of a storage; a repeat changes nothing.

\b
Examples:
  python -m sweep.publish outputs
  python -m sweep.publish outputs/inductive --tracking-uri http://mlflow.lab:5000
  python -m sweep.publish outputs/inductive --register best
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=HELP)
def main(
    location: LocationArgument,
    tracking_uri: TrackingUriOption = None,
    experiment: ExperimentOption = None,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="best|TRIAL", help="log this trial's memory as a model: the one with the best answers, or an id"
        ),
    ] = None,
    no_lock: NoLockOption = False,
) -> None:
    """Bring MLflow and results.parquet up to date with the records of a storage."""
    end_without_search()
    with user_errors():
        storage, name = split_location(location)
        if register and not name:
            raise ConfigError(f"{location}: --register takes one sweep; give STORAGE/NAME")
        names = [name] if name else storage.sweeps()
        tracking = resolve_tracking(storage, tracking_uri, experiment)
        with ExitStack() as locks, Heartbeat(True, sys.stderr) as beat:
            for each in names:
                locks.enter_context(storage.lock(each, without=no_lock))
            beat.say("reading what is recorded")
            index = storage.index()
            notes = [*index.warnings, *mend_storage_file(storage)]
            notes += [line for each in names for line in problems_of(storage, each, index)]
            for line in notes:
                beat.say(f"note: {shown(line)}")
            for each in names:
                place = storage.full(write_results(storage, each, index))
                with beat.paused():
                    typer.echo(f"wrote {place}")
            beat.say(f"bringing MLflow up to date with {len(index):,} records")
            with shown_progress(beat) as progress:
                counts = publish_compared(storage, names, tracking, progress, index)
        typer.echo("MLflow runs: " + ", ".join(f"{number} {what}" for what, number in counts.items() if number))
        if register and name:
            from sweep.tracking.model import register_memory

            typer.echo(register_memory(storage, name, tracking, register, index))
        for each in names:
            typer.echo(f"MLflow: {view_link(storage, tracking, each)}")


@contextmanager
def shown_progress(beat: Heartbeat) -> Iterator[Progress]:
    """Show on stderr how many records have been dealt with: a bar on a terminal, elsewhere a line every 30 s."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    if not sys.stderr.isatty():
        last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= LINE_EVERY_S:
                last = time.monotonic()
                beat.say(f"{done:,} of {total:,} records")

        yield tell
        return
    columns = (TextColumn("MLflow"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with beat.paused(), Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("MLflow", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    app()
