"""Command line: `python -m sweep.report STORAGE[/NAME]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trainables.errors import SweepError

EXAMPLES = """
Examples:

  python -m sweep.report outputs/inductive         one sweep, finished or not

  python -m sweep.report outputs                   every sweep of the storage in one report

  python -m sweep.report outputs --name few_shot --name memory_content
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def report(
    location: Annotated[str, typer.Argument(metavar="STORAGE[/NAME]", help="A storage, or one sweep in it.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Only this sweep of STORAGE; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; default STORAGE/NAME/report, or STORAGE/report for several sweeps."
        ),
    ] = None,
    target_nll: Annotated[
        float | None,
        typer.Option(
            help="NLL per token of the figure on speed; default 80 % of the fall of plain memorising."
        ),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap samples.")] = 2000,
    mlflow: Annotated[bool, typer.Option(help="Log the folder to each sweep's run in MLflow.")] = True,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow address; default as for sweep.run.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment.")] = None,
) -> None:
    """Write tables, figures and statistics on what the sweeps have recorded so far."""
    from sweep.report.build import Options, build_report, written
    from sweep.report.loading import load_study, split_location
    from sweep.report.mlflow_log import log_report

    store, only = split_location(location)
    study = load_study(store, [only] if only else name or [])
    with written(study, build_report(study, Options(target_nll, resamples)), out) as (folder, page):
        typer.echo(f"{len(study.trials):,} trials, {study.missing:,} points missing: {page}")
        names = [sweep.name for sweep in study.sweeps]
        for line in log_report(store, names, folder, tracking_uri, experiment) if mlflow else ():
            typer.echo(line, err=True)


def main() -> int:
    """Run the command; a user's mistake is one line and status 2."""
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except SweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        import click

        if isinstance(error, click.ClickException):
            error.show()
            return 2
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
