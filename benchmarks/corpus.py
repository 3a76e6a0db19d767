"""How time and memory grow with the documents of a corpus: tokenise, group, allocate, make masks, analyse."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import OUT, OutFile, Table, ask_process, keep, rising_numbers
from benchmarks.growth import fit

COUNTS = (1000, 3000, 10_000, 30_000, 100_000)
PARTS = {
    "tokenise": "tokenise into an Arrow file", "group": "group (LSH)", "allocate": "allocate, seven kinds",
    "masks": "masks of 250 steps, seven times", "analyse": "analyse, seven kinds",
}  # fmt: skip
PLOT = Path("benchmarks-corpus.png")
GIB = 2**30
TARGET_GIB, TARGET_R2 = 4.0, 0.99


def grow(counts: Sequence[int], settings: Mapping[str, Any], plain_up_to: int) -> Table:
    """Measure every size in a process of its own.

    Args:
        counts: numbers of documents, rising.
        settings: the other arguments of `corpus_child.measure`.
        plain_up_to: most documents of which all pairs are looked at as well, as a reference.
    """

    def ask(what: str, count: int) -> Table:
        request = {"what": what, "documents": count, "threads": torch.get_num_threads(), **settings}
        return ask_process("benchmarks.corpus_child", [json.dumps(request)])

    sizes = []
    for count in counts:
        sizes.append(ask("measure", count))
        typer.echo(f"  {count:>9,} documents: {_seconds(sizes[-1]):,.1f} s", err=True)
    seconds = {part: [size["seconds"][part] for size in sizes] for part in PARTS}
    seconds["all"] = [_seconds(size) for size in sizes]
    return {
        "documents": list(counts),
        "tokens": [size["tokens"] for size in sizes],
        "token_file_bytes": [size["token_file_bytes"] for size in sizes],
        "seconds": seconds,
        "wall_s": [sum(size["wall_s"][part] for part in PARTS) for size in sizes],
        "peak_bytes": [max(size["peak_bytes"].values()) for size in sizes],
        "start_bytes": [size["peak_bytes"]["start"] for size in sizes],
        "fits": {part: fit(list(counts), values) for part, values in seconds.items()},
        "found": [size["found"] for size in sizes],
        "plain": {str(count): ask("plain", count) for count in counts if count <= plain_up_to},
    }


def _seconds(size: Table) -> float:
    return float(sum(size["seconds"][part] for part in PARTS))


def draw(table: Table, path: Path) -> None:
    """Draw seconds and peak memory over documents, to a PNG or, for a name that ends in `.svg`, an SVG."""
    from sweep.report.figures.drawing import colour_of, finish, marker_of, panels

    x = table["documents"]
    plain = {int(count): found for count, found in table["plain"].items()}
    with panels(1, 2, width=5.4, height=4.2, share_y=False) as (canvas, axes):
        for place, (part, label) in enumerate({"all": "all of it", **PARTS}.items()):
            values, line = table["seconds"][part], table["fits"][part]
            axes[0, 0].plot(
                x, values, marker_of(place) + "-", color=colour_of(place), linewidth=2.0 if part == "all" else 1.0,
                label=f"{label}: {1e6 * line['slope']:,.0f} µs each (R² {line['r2']:.4f})",
            )  # fmt: skip
        all_pairs = [sum(found["seconds"].values()) for found in plain.values()]
        axes[0, 0].plot(list(plain), all_pairs, "x--", color="#888888", label="all pairs: group, analyse one kind")
        axes[0, 0].set_ylabel("seconds of processor time")
        peaks = {"blocks and near pairs": (x, table["peak_bytes"])}
        peaks["all pairs"] = list(plain), [max(found["peak_bytes"].values()) for found in plain.values()]
        for place, (label, (counts, values)) in enumerate(peaks.items()):
            style, colour = ("x--", "#888888") if place else (marker_of(0) + "-", colour_of(0))
            axes[0, 1].plot(counts, np.array(values) / GIB, style, color=colour, label=label)
        axes[0, 1].axhline(TARGET_GIB, color=colour_of(1), linestyle=":", label=f"{TARGET_GIB:g} GiB")
        axes[0, 1].set_ylabel("peak memory of the process, GiB")
        for axis in axes[0]:
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel(f"documents of {table['settings']['tokens']} tokens")
            axis.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        figure = finish(canvas, "corpus", "Growth of a corpus", "")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(figure.svg if path.suffix == ".svg" else figure.png)


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    settings = table["settings"]
    told = ", ".join(f"{name} {value:,}" for name, value in settings.items())
    shown = [
        f"documents made up ({told}); seconds of processor time",
        _row("documents", [*PARTS, "all", "by clock", "peak GiB"]),
    ]
    for place, count in enumerate(table["documents"]):
        values = [f"{table['seconds'][part][place]:,.2f}" for part in (*PARTS, "all")]
        values.append(f"{table['wall_s'][place]:,.1f}")
        shown.append(_row(f"{count:,}", [*values, f"{table['peak_bytes'][place] / GIB:.2f}"]))
    for part, line in table["fits"].items():
        power = "" if line["exponent"] is None else f", power {line['exponent']:.2f}"
        target = f" (target above {TARGET_R2})" if part == "all" else ""
        shown.append(f"  {part:<9} {1e6 * line['slope']:,.0f} us a document, R² {line['r2']:.4f}{power}{target}")
    for count, found in table["plain"].items():
        times, peak = found["seconds"], max(found["peak_bytes"].values()) / GIB
        same = "the same" if found["same_groups"] else "other"
        shown.append(
            f"  by all pairs, {int(count):,} documents: group {times['group']:.1f} s ({same} groups), analyse one kind "
            f"{times['analyse']:.1f} s (the same sets and pairs), peak {peak:.2f} GiB"
        )
    shown.append(f"at {table['documents'][-1]:,} documents (target below {TARGET_GIB:g} GiB):")
    shown += [f"  {name}: {_figures(value)}" for name, value in table["found"][-1].items()]
    return shown


def _figures(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_figures(each)}" for name, each in value.items())
    if isinstance(value, list):
        return " to ".join(map(_figures, value))
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _row(first: str, cells: Sequence[str]) -> str:
    return f"  {first:>10}" + "".join(f"{cell:>10}" for cell in cells)


def command(
    documents: Annotated[str, typer.Option(help="numbers of documents, N,N,…")] = ",".join(map(str, COUNTS)),
    tokens: Annotated[int, typer.Option(min=2, help="of a document")] = 400,
    memory_dim: Annotated[int, typer.Option(min=1)] = 4096,
    clusters: Annotated[int, typer.Option(min=1, help="groups, at most half of the documents")] = 4000,
    entries: Annotated[int, typer.Option(min=1, help="hash functions of a group")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="of the documents")] = 0,
    plain_up_to: Annotated[int, typer.Option(min=0, help="most documents by all pairs")] = 3000,
    plot: Annotated[Path, typer.Option(help="PNG or SVG file")] = PLOT,
    out: OutFile = OUT,
) -> None:
    """Time what happens to a corpus before training, by its number of documents, beside the same by all pairs."""
    settings = {
        "tokens": tokens, "memory_dim": memory_dim, "clusters": clusters, "entries": entries, "seed": seed,
    }  # fmt: skip
    table = grow(rising_numbers(documents), settings, plain_up_to) | {"settings": settings}
    draw(table, plot)
    keep(out, "corpus", table | {"plot": str(plot)})
    typer.echo("\n".join([*lines(table), f"plot: {plot}"]))
