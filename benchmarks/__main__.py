"""`python -m benchmarks [MEASURE]`: ratios against plain rivals as tables, and the same as JSON."""

from __future__ import annotations

from collections.abc import Callable

import torch
import typer
from transformers.utils import logging

from benchmarks import corpus, driver, floor, full, gpu, growth, identity, memory, packing, parts, start, trial, whole
from benchmarks.common import NotTheSame
from sweep.cli.options import user_errors

MEASURES: dict[str, Callable[..., None]] = {
    "trial": trial.command, "parts": parts.command,
    "floor": floor.command, "packing": packing.command, "full": full.command, "memory": memory.command,
    "sweep": whole.command, "start": start.command, "growth": growth.command, "corpus": corpus.command,
    "driver": driver.command, "identity": identity.command, "gpu": gpu.command,
}  # fmt: skip

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, invoke_without_command=True
)
for name, command in MEASURES.items():
    app.command(name)(command)


@app.callback()
def main(
    context: typer.Context,
    threads: int = typer.Option(2, min=1, help="torch threads"),
) -> None:
    """Measure what the README claims. Without a measure's name: all of them, on models that need no download."""
    torch.set_num_threads(threads)
    logging.disable_progress_bar()  # of loading and writing weights, between the tables
    if context.invoked_subcommand is not None:
        return
    for each, run in MEASURES.items():
        if each == "gpu" and not torch.cuda.is_available():
            typer.echo("== gpu: left out, torch sees no CUDA device here")
            continue
        typer.echo(f"== {each}")
        run()


if __name__ == "__main__":
    try:
        with user_errors():
            app()
    except NotTheSame as error:
        typer.echo(f"no ratio: {error}", err=True)
        raise SystemExit(1) from None
