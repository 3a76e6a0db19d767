"""The console command `memory-sweep`: each of its commands is a module's own, as `python -m` runs it.

A command is one line of `COMMANDS`. Its module is imported when the command is called, so that the list of commands,
and a command that needs neither torch nor Ray, come at once.
"""

from __future__ import annotations

import importlib
import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import sweep
from sweep.cli.options import user_errors
from trainables.errors import ConfigError, nearest

COMMANDS = {
    "run": ("sweep.run:app", "Run a search space: every trial that has no record yet."),
    "plan": ("sweep.plan:app", "Say what a search space would run and what it costs; start nothing."),
    "evaluate": ("sweep.evaluate:app", "Ask finished trials something else; nothing is trained."),
    "status": ("sweep.status:app", "Say how far a sweep is, from its storage alone: here, or on another machine."),
    "ctl": ("sweep.ctl:app", "Steer a sweep while it runs: pause, resume, stop a trial, add points, finish early."),
    "report": ("sweep.report.__main__:app", "Write tables, figures and statistics on what is recorded."),
    "compare": ("sweep.compare:app", "Compare two sweeps on the settings that they share, in pairs."),
    "export": ("sweep.export:app", "Write results as CSV or Parquet tables."),
    "new": ("sweep.new:app", "Write a commented search space to start from."),
    "doctor": ("sweep.doctor:app", "Check versions, devices, cluster, storage, MLflow, models and data."),
    "fields": ("sweep.fields:app", "List the fields of a trial: type, default, role, meaning."),
    "data": ("sweep.data:app", "Prepare data for nodes without a network, or check the sources."),
    "ui": ("sweep.ui:app", "Show the runs in MLflow: start the server that fits a storage, print and open the link."),
    "publish": ("sweep.publish:app", "Bring MLflow and the results table up to date with the records."),
}
"""By name: the module and its typer app, and the line for the list of commands. A new command is a line here."""


class _Commands(TyperGroup):
    """Commands that are imported when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            with user_errors():
                guess = nearest(cmd_name, COMMANDS)
                raise ConfigError(f"no command {cmd_name!r}{guess}; there are {', '.join(COMMANDS)}")
        module, _, app = COMMANDS[cmd_name][0].partition(":")
        return typer.main.get_command(getattr(importlib.import_module(module), app))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in COMMANDS.items()])


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"memory-sweep {sweep.__version__}")
        raise typer.Exit


@app.callback(epilog="`memory-sweep COMMAND --help` explains a command; `python -m sweep.COMMAND` is the same.")
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Large sweeps of memory-adapter experiments on frozen language models."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


if __name__ == "__main__":
    app()
