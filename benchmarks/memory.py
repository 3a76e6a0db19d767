"""Memory of a trial and of the trunk pass against the plain trial with the whole model, each in a fresh process.

Compared is what each adds to a process that has its libraries imported and its texts tokenised. On a CPU that is
resident memory: the kernel's own peak of it, and, sampled, the part that the process alone holds (`anon`) beside the
pages of mapped files that processes share (`file`). On a GPU it is the memory of tensors.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import typer

from benchmarks.common import (
    OUT,
    TOLERANCE,
    Data,
    Depth,
    Device,
    Documents,
    DType,
    Epochs,
    MemoryDim,
    Model,
    OutFile,
    Repeats,
    Table,
    ask_process,
    check_close,
    keep,
    local_model,
    own_data,
    ratio,
    spread,
    told,
)
from trainables.lm.card import model_card
from trainables.lm.weights import model_folder

CONTENDERS = {
    "trunk": ("trunk", "trunk pass"), "cold": ("trial", "trial, cold cache"),
    "warm": ("trial", "trial"), "plain": ("plain", "plain trial, whole model"),
}  # fmt: skip
CACHE_VARIABLE = "MEMORY_SWEEP_CACHE"
GIB = 2**30


def ask(contender: str, settings: Mapping[str, Any], device: str, cache: Path) -> Table:
    """Run a contender in a fresh process with a cache folder of its own and return what it found."""
    request = {"contender": contender, "settings": settings, "device": device, "threads": torch.get_num_threads()}
    return ask_process("benchmarks.memory_child", [json.dumps(request)], {CACHE_VARIABLE: str(cache)})


def compare(settings: Mapping[str, Any], repeats: int, device: str = "cpu") -> Table:
    """Run every contender in turn, each in its own process, and return peaks and shares of the plain trial's.

    Args:
        settings: fields of the trial, without an entry set; FEVER asked.
        repeats: rounds.
        device: `cpu` or `cuda`.

    Raises:
        NotTheSame: ours and the plain trial had different losses.
    """
    card = model_card(str(settings["model"]))
    settings = {**settings, "model": str(model_folder(card)), "data": own_data(str(settings["data"]))}
    rounds: dict[str, list[Table]] = {name: [] for name in CONTENDERS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
            for name, (kind, _) in CONTENDERS.items():
                # Trunk pass and cold trial each start with an empty cache; the latter fills it for the warm trial.
                cache = Path(scratch) / ("trunk" if name == "trunk" else "trial")
                rounds[name].append(ask(kind, settings, device, cache))
        for name in ("cold", "warm"):
            mine, theirs = rounds[name][-1]["curve"], rounds["plain"][-1]["curve"]
            check_close(f"{card.name}, {name}", "losses", mine, theirs, TOLERANCE[settings.get("dtype", "float32")])
    table: Table = {
        "model": card.name,
        "device": device,
        **{key: settings[key] for key in ("depth", "num_documents", "epochs")},
        "repeats": repeats,
        "peak_bytes": {},
        "share": {},
        "phases": {},
        "weight_bytes": {name: rounds[name][0]["weights"] for name in ("warm", "plain")},
        "hidden_bytes": rounds["trunk"][0]["hidden"],
        "before_bytes": {name: found[0]["before"] for name, found in rounds.items()},
    }
    parts = ("all",) if device == "cuda" else ("all", "anon", "file")
    for name, tables in rounds.items():
        table["phases"][name] = tables[-1]["phases"]
        table["peak_bytes"][name] = {part: spread(_peaks(tables, part)) for part in parts}
        table["share"][name] = {part: ratio(_peaks(tables, part), _peaks(rounds["plain"], part)) for part in parts}
    return table


def _peaks(rounds: Sequence[Table], part: str) -> list[float]:
    return [float(max(phase[part] for phase in found["phases"].values())) for found in rounds]


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    weights = table["weight_bytes"]
    shown = [
        f"{table['model']} on {table['device']}, memory at {table['depth']:g} of the depth, "
        f"{table['num_documents']} documents, {table['epochs']} epochs; GiB above a process with libraries and texts",
        f"  weights held: {weights['warm'] / GIB:.2f} of {weights['plain'] / GIB:.2f} "
        f"({100 * weights['warm'] / weights['plain']:.0f} %)",
    ]
    parts = table["peak_bytes"]["plain"]
    shown.append(f"  {'peak':<28}" + "".join(f"{part:>10}" for part in parts) + "   share of the plain trial's peak")
    for name, (_, title) in CONTENDERS.items():
        peaks = "".join(f"{table['peak_bytes'][name][part]['median'] / GIB:10.2f}" for part in parts)
        share = "" if name == "plain" else "   " + ", ".join(
            f"{part} {told(found)}" for part, found in table["share"][name].items() if part != "file"
        )  # fmt: skip
        shown.append(f"  {title:<28}{peaks}{share}")
    for phase, found in table["phases"]["warm"].items():
        peaks = "".join(f"{found[part] / GIB:10.2f}" for part in parts)
        shown.append(f"    {'trial, ' + phase:<26}{peaks}")
    return shown


def command(
    model: Model = "pythia-410m",
    data: Data = "sample",
    documents: Documents = 2,
    epochs: Epochs = 1,
    depth: Depth = 0.75,
    memory_dim: MemoryDim = 128,
    device: Device = "cpu",
    dtype: DType = "float32",
    repeats: Repeats = 1,
    out: OutFile = OUT,
) -> None:
    """Compare the peak memory of a trial and of the trunk pass with the plain trial's."""
    settings = {
        "model": local_model(model, getattr(torch, dtype)),
        "data": data,
        "num_documents": documents,
        "epochs": epochs,
        "depth": depth,
        "memory_dim": memory_dim,
        "dtype": dtype,
    }
    table = compare(settings, repeats, device)
    keep(out, "memory", table)
    typer.echo("\n".join(lines(table)))
