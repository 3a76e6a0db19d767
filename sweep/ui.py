"""`python -m sweep.ui STORAGE[/NAME]`: open a sweep's trials in the MLflow UI."""

from __future__ import annotations

import signal
import time
import webbrowser
from contextlib import ExitStack
from typing import Annotated

import typer

from sweep.cli.options import ExperimentOption, LocationArgument, TrackingUriOption, user_errors
from sweep.records.sweep_storage import SweepStorage, split_location
from sweep.tracking.address import Tracking, is_web, resolve_tracking
from sweep.tracking.client import TrackingError
from sweep.tracking.link import no_database, pages, server_version
from sweep.tracking.saved_views import on_server
from sweep.tracking.server import ui_server

HELP = """Open the trials of a sweep in the MLflow UI, starting a server for the storage's database where none keeps it.

\b
Examples:
  python -m sweep.ui outputs/inductive
  python -m sweep.ui outputs/inductive --port 5000 --no-open
  python -m sweep.ui outputs/inductive --tracking-uri http://mlflow.lab:5000

The server listens on this machine alone and ends with Ctrl-C. From elsewhere: ssh -L 5000:127.0.0.1:5000 MACHINE.
"""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(help=HELP)
def main(
    location: LocationArgument,
    tracking_uri: TrackingUriOption = None,
    experiment: ExperimentOption = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="default: a free one")] = None,
    browser: Annotated[bool, typer.Option("--open/--no-open", help="open the link in a browser")] = True,
) -> None:
    """Open the trials of a sweep in the MLflow UI."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the server is to end with this process
        signal.signal(kind, _stop)
    with user_errors(), ExitStack() as stack:
        storage, name = split_location(location)
        tracking = resolve_tracking(storage, tracking_uri, experiment)
        missing = no_database(storage, tracking)
        if missing:
            raise TrackingError(missing)
        served = tracking
        if not is_web(tracking.uri):
            served = Tracking(stack.enter_context(ui_server(tracking, port)), tracking.experiment)
        first = show_links(storage, [name] if name else storage.sweeps(), served)
        if browser:
            webbrowser.open(first)
        if served is not tracking:
            typer.echo("The server runs until Ctrl-C.")
            while True:
                time.sleep(3600)


def _stop(kind: int, _: object) -> None:
    raise SystemExit(0)


def show_links(storage: SweepStorage, names: list[str], tracking: Tracking) -> str:
    """Print the addresses of some sweeps' views on a server and return the first."""
    version = server_version(tracking.uri)
    first = ""
    for name in names:
        for page in pages(storage, tracking, name, version):
            address = on_server(tracking.uri, page.path)
            first = first or address
            typer.echo(f"{page.title}: {address}" + (f"  ({page.note})" if page.note else ""))
    return first


if __name__ == "__main__":
    app()
