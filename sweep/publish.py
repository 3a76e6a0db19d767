"""`python -m sweep.publish STORAGE[/NAME]`: bring MLflow and the results tables up to date with the records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from sweep.cli import user_errors
from sweep.records.table import write_results
from sweep.report.study import split_location
from sweep.tracking.layout import EXPERIMENT, resolve_tracking, ui_command
from sweep.tracking.publish import Progress, publish

__all__ = ["app", "main", "publish"]

HELP = """Bring MLflow and results.parquet up to date with the records of a storage; a repeat changes nothing.

\b
Examples:
  python -m sweep.publish outputs
  python -m sweep.publish outputs/inductive --tracking-uri http://mlflow.lab:5000
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=HELP)
def main(
    location: Annotated[str, typer.Argument(metavar="STORAGE[/NAME]", help="a storage, or one sweep in it")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="default: MLFLOW_TRACKING_URI, else mlflow.db in the storage")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help=f"default: {EXPERIMENT}")] = None,
) -> None:
    """Bring MLflow and results.parquet up to date with the records of a storage."""
    with user_errors():
        store, name = split_location(location)
        names = [name] if name else store.sweeps()
        tracking = resolve_tracking(store, tracking_uri, experiment)
        with ExitStack() as locks:
            for each in names:
                locks.enter_context(store.lock(each))
                path = write_results(store, each)
                typer.echo(f"wrote {store.full(path)}")
            with shown_progress() as progress:
                counts = publish(store, names, tracking, progress)
        typer.echo("MLflow runs: " + ", ".join(f"{number} {what}" for what, number in counts.items() if number))
        typer.echo(f"look at them: {ui_command(tracking)}")


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show on stderr, where that is a terminal, how many records have been dealt with and how long the rest takes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("MLflow"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("MLflow", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    app()
