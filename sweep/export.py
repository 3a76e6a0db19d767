"""`python -m sweep.export STORAGE[/NAME] --to FOLDER`: results as CSV or Parquet files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import LocationArgument, user_errors
from sweep.records.columns import TABLES
from sweep.records.frame import load_results
from trainables.errors import ConfigError, nearest

HELP = """Write results as tables: one CSV file each, or Parquet. docs/results.md says what the columns mean.

\b
Examples:
  python -m sweep.export outputs/sample --to tables
  python -m sweep.export outputs --to tables --parquet --table answers --table trials
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=HELP)
def main(
    location: LocationArgument,
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="where to write")],
    table: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(TABLES)}; default: all but answers; may be repeated")
    ] = None,
    parquet: Annotated[bool, typer.Option("--parquet", help="Parquet instead of CSV")] = False,
) -> None:
    """Write results as tables."""
    with user_errors():
        wanted = table or [name for name in TABLES if name != "answers"]
        for name in wanted:
            if name not in TABLES:
                raise ConfigError(f"--table {name}: must be one of {', '.join(TABLES)}{nearest(name, TABLES)}")
        try:
            to.mkdir(parents=True, exist_ok=True)
            for name in wanted:
                frame = load_results(location, name)  # type: ignore[arg-type]
                path = to / f"{name}.{'parquet' if parquet else 'csv'}"
                if parquet:
                    frame.to_parquet(path, index=False)
                else:
                    frame.to_csv(path, index=False)
                typer.echo(f"wrote {path}: {len(frame):,} rows")
        except OSError as error:
            raise ConfigError(f"--to {to}: cannot be written ({error.strerror or error})") from None


if __name__ == "__main__":
    app()
