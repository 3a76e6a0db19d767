"""`python -m benchmarks`: the tables as ratios against plain rivals, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.trial import NotTheSame, compare

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    model: Annotated[str, typer.Option(help="alias or folder")] = "sample-neox",
    data: Annotated[str, typer.Option(help="sample, hub or a folder")] = "sample",
    documents: Annotated[int, typer.Option(min=1, help="pages memorised, all their claims asked")] = 20,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    depth: Annotated[float, typer.Option(help="where the memory is")] = 0.75,
    memory_dim: Annotated[int, typer.Option(min=1)] = 128,
    repeats: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="torch threads")] = 2,
    out: Annotated[Path, typer.Option(help="where the JSON goes")] = Path("benchmarks.json"),
) -> None:
    """Time one trial, training and evaluation, with hidden states cached, against the plain program."""
    torch.set_num_threads(threads)
    settings = {
        "model": model, "data": data, "num_documents": documents, "epochs": epochs, "depth": depth,
        "memory_dim": memory_dim,
    }
    try:
        table = compare(settings, repeats)
    except NotTheSame as error:
        typer.echo(f"no ratio: {error}", err=True)
        raise typer.Exit(1) from None
    out.write_text(json.dumps({"trial": table}, indent=1))
    typer.echo(f"{table['model']}: {table['documents']} documents, {table['tokens']} tokens, {epochs} epochs, "
               f"{table['claims']} claims, block {table['layer']}, {threads} threads; same losses and answers")
    for name, seconds in table["seconds"].items():
        typer.echo(f"  {name:<14}" + "  ".join(f"{part} {value:8.2f}" for part, value in seconds.items()))
    typer.echo(f"  ours, cold cache: {table['cold_load_s']:.2f} s of loading and trunk pass, once per node")
    for name, ratio in table["ratios"].items():
        typer.echo(f"  {name:<26} {ratio['median']:6.2f} x ours  ({ratio['min']:.2f} to {ratio['max']:.2f})")
    typer.echo(f"written to {out}")


if __name__ == "__main__":
    app()
