"""How time grows: one trial with the number of documents, a sweep with the number of trials; fits and a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.stats import linregress

from benchmarks.common import (
    OUT,
    Epochs,
    MemoryDim,
    Model,
    OutFile,
    Table,
    fever_questions,
    keep,
    own_data,
    rising_numbers,
)
from benchmarks.sweeps import SPACES, Swept, model_path, sweep

DOCUMENTS, SAMPLE_DOCUMENTS, TRIALS = (10, 30, 100, 300, 1000), (4, 8, 16, 32, 60), (6, 12, 24, 48, 96)
PARTS = {
    "data_s": "reading data",
    "trunk_s": "trunk",
    "train_s": "training",
    "measure_s": "memorisation error",
    "evaluate_s": "claims",
}
WHOLE = {"trials_s": "first trial to last", "command_s": "whole command"}
PLOT = Path("benchmarks-growth.png")


def fit(x: Sequence[float], y: Sequence[float]) -> Table:
    """Fit a line, and the exponent of a power law.

    Returns:
        `slope`, `intercept` and `r2` of the line; `exponent`, the slope of log y over log x (None where a y is 0).
    """
    line = linregress(x, y)
    exponent = float(linregress(np.log(x), np.log(y)).slope) if min(y) > 0 else None
    return {
        "slope": float(line.slope),
        "intercept": float(line.intercept),
        "r2": float(line.rvalue**2),
        "exponent": exponent,
    }


def by_documents(settings: Mapping[str, Any], counts: Sequence[int], threads: int, repeats: int) -> Table:
    """Time one trial by its number of documents, each from an empty cache.

    Args:
        settings: fields of the trial; `model` and `data` are folders.
        counts: numbers of documents.
        threads: of the trial.
        repeats: rounds; the median of each part is taken.
    """
    rounds: list[list[Swept]] = [[] for _ in counts]
    for _ in range(repeats):
        for place, count in enumerate(counts):
            options = ("--cpus-per-trial", threads)
            rounds[place].append(sweep(SPACES / "one_trial.py", {**settings, "num_documents": count}, options))
    seconds: dict[str, list[float]] = {
        part: [median(swept.parts().get(part, 0.0) for swept in found) for found in rounds] for part in PARTS
    }
    seconds["trials_s"] = [median(swept.trials_s for swept in found) for found in rounds]
    seconds["command_s"] = [median(swept.exit_s for swept in found) for found in rounds]
    sizes = [_sizes({**settings, "num_documents": count}) for count in counts]
    x: list[float] = list(counts)
    return {
        "documents": list(counts),
        "remaining": [size["documents"] for size in sizes],
        "tokens": [size["tokens"] for size in sizes],
        "claims": [size["claims"] for size in sizes],
        "seconds": seconds,
        "fits": {part: fit(x, values) for part, values in seconds.items()},
        "fits_by_tokens": {
            part: fit([size["tokens"] for size in sizes], seconds[part]) for part in ("trunk_s", "train_s", "measure_s")
        },
    }


def by_trials(settings: Mapping[str, Any], counts: Sequence[int], repeats: int) -> Table:
    """Time sweeps of that many trials that differ in the seed of their allocation.

    Args:
        settings: fields of the trials; `model` and `data` are folders.
        counts: numbers of trials.
        repeats: rounds; medians are taken.
    """
    rounds: list[list[Swept]] = [[] for _ in counts]
    for _ in range(repeats):
        for place, count in enumerate(counts):
            seeds = {"allocation": "random", "mem_seed": list(range(count))}
            rounds[place].append(sweep(SPACES / "one_trial.py", {**settings, **seeds}))
    seconds = {
        "trials_s": [median(swept.trials_s for swept in found) for found in rounds],
        "compute_s": [median(swept.compute_s() for swept in found) for found in rounds],
        "command_s": [median(swept.exit_s for swept in found) for found in rounds],
    }
    packs = [len({record["pack"] for record in found[-1].records.values()}) for found in rounds]
    x: list[float] = list(counts)
    fits = {name: fit(x, values) for name, values in seconds.items()}
    return {"trials": list(counts), "packs": packs, "seconds": seconds, "fits": fits}


def _sizes(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the documents that remain, and the tokens and claims that a trial works on."""
    from sweep.planning.load import load_space
    from sweep.space import stage_base
    from trainables.pack.process_cache import ProcessCache
    from trainables.trial.canonical import canonical
    from trainables.trial.making import make_spec

    space = load_space(SPACES / "one_trial.py")
    spec = canonical(make_spec({**stage_base(space, space.stages[0]), **settings}))
    texts = ProcessCache(torch.device("cpu"), None).texts(spec)
    return {
        "documents": len(texts.documents),
        "tokens": sum(len(text.tree) for text in texts.train),
        "claims": len(fever_questions(texts)),
    }


def draw(table: Table, path: Path) -> None:
    """Draw both growths with their fitted lines, to a PNG or, for a name that ends in `.svg`, an SVG."""
    from sweep.report.figures.drawing import finish, panels

    with panels(1, 2, width=5.4, height=4.2, share_y=False) as (canvas, axes):
        found = table["documents"]
        parts = {name: label for name, label in PARTS.items() if max(found["seconds"][name]) > 0}
        _panel(axes[0, 0], found, found["documents"], {**parts, **WHOLE}, "documents of one trial")
        axes[0, 0].set_title(f"{table['documents_model']}, {found['tokens'][-1]:,} tokens at the right end")
        found = table["trials"]
        labels = {"compute_s": "computing, all workers", **WHOLE}
        _panel(axes[0, 1], found, found["trials"], labels, "trials of one sweep")
        axes[0, 1].set_title(f"{table['trials_model']}, {' / '.join(map(str, found['packs']))} packs")
        figure = finish(canvas, "growth", "Growth", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(figure.svg if path.suffix == ".svg" else figure.png)


def _panel(axis: Any, found: Table, x: Sequence[int], labels: Mapping[str, str], x_label: str) -> None:
    """Draw seconds over counts with the fitted lines; over a wide range both axes are logarithmic, which bends them."""
    from sweep.report.figures.drawing import colour_of, marker_of

    is_wide = x[-1] > 30 * x[0]
    smooth = np.geomspace(x[0], x[-1], 100)
    for place, (name, label) in enumerate(labels.items()):
        line, colour = found["fits"][name], colour_of(place)
        values = [value if value > 0 else math.nan for value in found["seconds"][name]]
        axis.plot(x, values, marker_of(place), color=colour, label=f"{label}: {_told(line)}")
        fitted = line["intercept"] + line["slope"] * smooth
        axis.plot(smooth, np.where(fitted > 0, fitted, math.nan), "-", color=colour, linewidth=1.0)
    if is_wide:
        axis.set_xscale("log")
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set_xticks(x, [f"{value:,}" for value in x])
    axis.minorticks_off()
    axis.set_xlabel(x_label)
    axis.set_ylabel("seconds")
    axis.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _told(line: Table) -> str:
    power = "" if line["exponent"] is None else f", power {line['exponent']:.2f}"
    return f"{line['intercept']:.2f} s + {1000 * line['slope']:.1f} ms each (R² {line['r2']:.3f}{power})"


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    found = table["documents"]
    shown = [
        f"{table['documents_model']}: one trial, {table['epochs']} epochs, {table['threads']} threads, empty cache",
        "  " + _row("", [*found["seconds"]]),
    ]
    for place, count in enumerate(found["documents"]):
        sizes = f"{count:,} documents, {found['tokens'][place]:,} tokens, {found['claims'][place]:,} claims"
        shown.append("  " + _row(sizes, [f"{values[place]:.2f}" for values in found["seconds"].values()]))
    shown += [f"  {name:<11} {_told(line)}" for name, line in found["fits"].items()]
    for name, line in found["fits_by_tokens"].items():
        shown.append(f"  {name:<11} by tokens: {1e6 * line['slope']:.1f} us each (R² {line['r2']:.3f})")
    found = table["trials"]
    shown.append(f"{table['trials_model']}: sweeps of {', '.join(map(str, found['trials']))} trials")
    shown.append("  " + _row("", [*found["seconds"]]))
    for place, count in enumerate(found["trials"]):
        packs = f"{count} trials, {found['packs'][place]} packs"
        shown.append("  " + _row(packs, [f"{values[place]:.2f}" for values in found["seconds"].values()]))
    return [*shown, *(f"  {name:<11} {_told(line)}" for name, line in found["fits"].items())]


def _row(first: str, cells: Sequence[str]) -> str:
    return f"{first:<46}" + "".join(f"{cell:>12}" for cell in cells)


def command(
    model: Model = "pythia-70m",
    data: Annotated[str, typer.Option(help="sample or a folder, with wiki_docs.jsonl for 1,000 documents")] = "sample",
    documents: Annotated[str | None, typer.Option(help="numbers of documents, N,N,…; default by the data")] = None,
    epochs: Epochs = 2,
    segment_tokens: Annotated[int, typer.Option(min=2)] = 128,
    max_segments: Annotated[int, typer.Option(min=1, help="of a document")] = 1,
    memory_dim: MemoryDim = 128,
    claims_per_page: Annotated[int, typer.Option(min=1, help="claims asked of a page at most")] = 4,
    trials: Annotated[str, typer.Option(help="numbers of trials, N,N,…")] = ",".join(map(str, TRIALS)),
    trials_model: Annotated[str, typer.Option(help="model of the trials that are counted")] = "sample-neox",
    repeats: Annotated[int, typer.Option(min=1, help="rounds, of which medians are taken")] = 1,
    plot: Annotated[Path, typer.Option(help="PNG or SVG file")] = PLOT,
    out: OutFile = OUT,
) -> None:
    """Time one trial by its number of documents and a sweep by its number of trials; fit lines and draw them."""
    document_counts = rising_numbers(documents) if documents else SAMPLE_DOCUMENTS if data == "sample" else DOCUMENTS
    trial_counts = rising_numbers(trials)
    threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    shared: dict[str, Any] = {
        "epochs": epochs,
        "segment_tokens": segment_tokens,
        "max_segments": max_segments,
        "memory_dim": memory_dim,
        "claims_per_page": claims_per_page,
    }
    settings = {"model": model_path(model), "data": own_data(data), **shared}
    tiny = {"model": model_path(trials_model), "data": own_data("sample"), **shared}
    table = {
        "documents_model": Path(settings["model"]).name,
        "trials_model": Path(tiny["model"]).name,
        "threads": threads,
        **shared,
        "documents": by_documents(settings, document_counts, threads, repeats),
        "trials": by_trials(tiny, trial_counts, repeats),
        "plot": str(plot),
    }
    draw(table, plot)
    keep(out, "growth", table)
    typer.echo("\n".join([*lines(table), f"plot: {plot}"]))
