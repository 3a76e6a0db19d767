"""What packing trials gains: training throughput of K trials in one forward pass against K = 1."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from statistics import mean
from typing import Annotated, Any

import psutil
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
    OutFile,
    Repeats,
    Table,
    check_close,
    in_turn,
    keep,
    local_model,
    ratio,
    rising_numbers,
    seconds,
    spread,
    start_pack,
    told,
)
from sweep.planning.packs import auto_pack_size
from sweep.planning.points import PointMaker
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

DEFAULT_MODELS = ("sample-neox", "pythia-160m")
LEAST_S = 0.5
WITHIN = 0.95
"""Share of the best throughput at which a smaller pack counts as being on the plateau."""


def member_specs(settings: dict[str, Any], members: int) -> list[TrialSpec]:
    """Return the members of a pack: trials that differ in alpha and learning rate, each with an inductive loss."""
    specs = []
    for k in range(members):
        own = {"allocation": "partitioned", "alpha": 0.1 * (k + 1), "lr": 1e-3 / (k + 1)}
        specs.append(canonical(make_spec({**settings, **own, "probes": [], "checkpoint_every_s": 1e9})))
    return specs


def train(specs: Sequence[TrialSpec], cache: ProcessCache) -> tuple[float, list[list[float]]]:
    """Train some trials as one pack; return the seconds of training and each member's losses by epoch."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        run = start_pack(specs, cache, folder)
        if cache.device.type == "cuda":
            torch.cuda.synchronize()

        def epochs() -> None:
            while not run.done:
                run.step()

        taken = seconds(epochs)
        return taken, [[value for _, value in curves["train/loss"]] for curves in run.log.curves]


def compare(
    settings: dict[str, Any], sizes: Sequence[int], repeats: int, device: str = "cpu", least_s: float = LEAST_S
) -> Table:
    """Train packs of several sizes in turn and return throughput, ratios to K = 1 and the plateau.

    Args:
        settings: fields of the trials; a memory at one layer.
        sizes: members of a pack; 1 is added if it is not there.
        repeats: rounds.
        device: `cpu` or `cuda`.
        least_s: seconds of training that make one measurement; short ones are repeated.

    Raises:
        NotTheSame: a member's losses depend on the size of its pack.
    """
    sizes = sorted({1, *sizes})
    cache = ProcessCache(torch.device(device), None)
    specs = member_specs(settings, sizes[-1])
    first = specs[0]
    tolerance, card, texts = TOLERANCE[first.dtype], cache.card(first), cache.texts(first)
    _, (first_alone,) = train(specs[:1], cache)
    _, (last_alone,) = train(specs[-1:], cache)

    def pack_s(size: int) -> float:
        times: list[float] = []
        while sum(times) < least_s:
            taken_s, losses = train(specs[:size], cache)
            times.append(taken_s)
            check_close(f"{card.name}, member 1 of {size}", "losses", losses[0], first_alone, tolerance)
            if size == sizes[-1]:
                check_close(f"{card.name}, member {size} of {size}", "losses", losses[-1], last_alone, tolerance)
        return mean(times)

    for size in sizes:  # the first pass of a size takes longer: memory is allocated, kernels are chosen
        train(specs[:size], cache)
    taken = in_turn({str(size): partial(pack_s, size) for size in sizes}, repeats)
    tokens = first.epochs * sum(len(text.tree) for text in texts.train)
    speeds = {size: spread([size * tokens / found for found in taken[str(size)]]) for size in sizes}
    gains = {size: ratio(taken["1"], [found / size for found in taken[str(size)]]) for size in sizes}
    best = max(found["median"] for found in speeds.values())
    memory = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else psutil.virtual_memory().total / 2
    return {
        "model": card.name,
        "device": device,
        "dtype": first.dtype,
        "documents": len(texts.documents),
        "tokens": tokens // first.epochs,
        "epochs": first.epochs,
        "layer": first.layer,
        "blocks": card.num_blocks,
        "step_tokens": first.batch_size * tokens / first.epochs / len(texts.train),
        "repeats": repeats,
        "tokens_per_s": {str(size): found for size, found in speeds.items()},
        "gain": {str(size): found for size, found in gains.items()},
        "plateau": min(size for size in sizes if speeds[size]["median"] >= WITHIN * best),
        "auto_pack_size": auto_pack_size(PointMaker().point(first), memory, device == "cuda"),
    }


def lines(table: Table) -> list[str]:
    """Return the tables of all models as text."""
    shown = []
    for found in table["models"]:
        shown.append(
            f"{found['model']} on {found['device']}: {found['documents']} documents, {found['tokens']} tokens, "
            f"{found['step_tokens']:.0f} a step, {found['epochs']} epochs, block {found['layer']} of "
            f"{found['blocks']}; same losses for every size"
        )
        for size, speed in found["tokens_per_s"].items():
            gain = f"   {told(found['gain'][size])} x K = 1" if size != "1" else ""
            shown.append(f"  K = {size:<4}{speed['median']:12,.0f} member tokens/s{gain}")
        shown.append(
            f"  smallest K within {100 - 100 * WITHIN:.0f} % of the best: {found['plateau']}; "
            f"--pack-size auto takes {found['auto_pack_size']}"
        )
    return shown


def command(
    model: Annotated[
        list[str] | None,
        typer.Option(help="folder, sample model, or alias (its shape with random weights); may be repeated"),
    ] = None,
    data: Data = "sample",
    documents: Documents = 4,
    epochs: Epochs = 1,
    sizes: Annotated[str, typer.Option(help="members of a pack, joined by commas")] = "1,2,4,8,16",
    depth: Depth = 0.75,
    memory_dim: MemoryDim = 128,
    device: Device = "cpu",
    dtype: DType = "float32",
    repeats: Repeats = 3,
    out: OutFile = OUT,
) -> None:
    """Train packs of K trials against K = 1, and compare the best size with the one that is chosen by itself."""
    table: Table = {"models": []}
    pack_sizes = rising_numbers(sizes)
    for name in model or DEFAULT_MODELS:
        settings = {
            "model": local_model(name, getattr(torch, dtype)),
            "data": data,
            "num_documents": documents,
            "epochs": epochs,
            "depth": depth,
            "memory_dim": memory_dim,
            "dtype": dtype,
        }
        table["models"].append(compare(settings, pack_sizes, repeats, device))
    keep(out, "packing", table)
    typer.echo("\n".join(lines(table)))
