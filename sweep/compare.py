"""`python -m sweep.compare A B`: two sweeps on the settings that they share, in pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as Grid

from sweep.cli.options import user_errors
from sweep.records.sweep_storage import SweepStorage, one_sweep
from sweep.report.comparisons.fever import RESAMPLES
from sweep.report.render import Report, Section, html_page
from sweep.report.study import Study, load_study
from sweep.report.table import MISSING, Table
from sweep.report.two_sweeps import as_records, compare_sweeps, overall_table, pairs_table
from trainables.errors import ConfigError

HELP = """Compare two sweeps on the settings that they share: trials in pairs, with intervals and corrected p.

\b
Examples:
  python -m sweep.compare outputs/layers elsewhere/layers
  python -m sweep.compare short long --storage outputs
  python -m sweep.compare outputs/short outputs/long --html compared.html

A field that has one value in the one sweep and another in the other is what is compared; trials that are equal in all
other fields are pairs. Nothing is changed.
"""
NONE_FOUND = "none"
PRINTED = 20
"""Pairs printed in a terminal; --html has 40, --json all."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=HELP)
def main(
    first: Annotated[str, typer.Argument(metavar="A", help="STORAGE/NAME, or a name with --storage")],
    second: Annotated[str, typer.Argument(metavar="B", help="likewise")],
    storage: Annotated[str | None, typer.Option("--storage", help="storage of sweeps that are given by name")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object, with all pairs")] = False,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="write a page, too")] = None,
    resamples: Annotated[int, typer.Option(min=100, help="bootstrap samples")] = RESAMPLES,
) -> None:
    """Compare two sweeps."""
    with user_errors():
        found = compare_sweeps(_study(first, storage), _study(second, storage), resamples)
        tables = [table for table in (overall_table(found), pairs_table(found)) if table]
        if html is not None:
            title = f"{Path(found.names[1]).name} against {Path(found.names[0]).name}"
            page = html_page(Report(title, " ".join(found.sentences), None, [Section("Compared", tables)]))
            try:
                html.write_text(page, encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"--html {html}: cannot be written ({error.strerror})") from None
        if as_json:
            typer.echo(json.dumps(as_records(found), indent=1))
            return
        for line in found.sentences:
            typer.echo(line)
        console = Console(highlight=False)
        for table in tables:
            typer.echo("")
            console.print(_grid(table))
            if len(table.rows) > PRINTED:
                typer.echo(f"{PRINTED} of {len(found.each):,} pairs; --html FILE has {len(table.rows)}, --json all.")
            console.print(table.legend[0], style="dim")


def _study(location: str, storage: str | None) -> Study:
    if storage is not None:
        return load_study(SweepStorage(storage), [location])
    found, name = one_sweep(location)
    return load_study(found, [name])


def _grid(table: Table) -> Grid:
    """Lay a table out for 80 columns: settings in one column, the uncorrected p left out."""
    grid = Grid(title=table.title, box=None, title_justify="left", padding=(0, 2, 0, 0))
    kept = [i for i, name in enumerate(table.columns) if name not in ("p", "pairs")]
    grid.add_column("setting" if len(table.labels) > 1 else table.labels[0], min_width=18, overflow="fold")
    for i in kept:
        grid.add_column(table.columns[i], justify="right", no_wrap=True)
    for labels, cells in table.rows[:PRINTED]:
        texts = [NONE_FOUND if cells[i].text.startswith("no difference") else cells[i].text for i in kept]
        grid.add_row(", ".join(label for label in labels if label != MISSING), *texts)
    return grid


if __name__ == "__main__":
    app()
