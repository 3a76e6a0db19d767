"""One trial, ours against the plain ones: the same losses and answers, and how long each takes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import torch
import typer

from benchmarks.common import (
    OUT,
    TOLERANCE,
    Data,
    Depth,
    Documents,
    Epochs,
    MemoryDim,
    Model,
    NotTheSame,
    OutFile,
    Repeats,
    Table,
    check_close,
    keep,
    local_model,
    ratio,
    spread,
    start_pack,
    told,
)
from benchmarks.plain import TrialTimes, run_plain
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

RIVALS = ("plain", "plain-nograd")
PARTS = ("load_s", "train_s", "evaluate_s", "warm_s", "measure_s")


def run_ours(spec: TrialSpec, cache: ProcessCache) -> TrialTimes:
    """Run one trial as a pack of one; loading and the trunk pass are counted apart."""
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        start = time.perf_counter()
        run = start_pack([spec], cache, folder)
        cache.take_timings()
        loaded = time.perf_counter()
        while not run.done:
            run.step()
        (result,) = run.finish()
        letters = pq.read_table(next(Path(folder).glob("probes/*/answers.parquet")))["parsed"].to_pylist()
        curve = [value for _, value in result.curves["train/nll"]]
        leaked = [value for _, value in result.curves.get("train/leakage", [])]
        timings = result.timings
        taken = (loaded - start, timings["train_s"], timings["measure_s"], timings["evaluate_s"])
        return TrialTimes(*taken, curve, result.metrics["memory/nll"], letters, leaked)
    finally:
        shutil.rmtree(folder)


def check_same(ours: TrialTimes, rival: TrialTimes, name: str) -> None:
    """Compare loss curves, the memorisation error and every answer.

    Raises:
        NotTheSame: they differ.
    """
    for what, mine, theirs in (("loss", ours.curve, rival.curve), ("leakage", ours.leakage, rival.leakage)):
        check_close(name, f"{what} curves", mine, theirs, TOLERANCE["float32"])
    check_close(name, "memorisation errors", [ours.nll], [rival.nll], TOLERANCE["float32"])
    if len(ours.letters) != len(rival.letters):
        raise NotTheSame(f"{name}: {len(rival.letters)} answers instead of {len(ours.letters)}")
    different = sum(a != b for a, b in zip(ours.letters, rival.letters, strict=True))
    if different:
        raise NotTheSame(f"{name}: {different} of {len(ours.letters)} answers differ")


def compare(settings: dict[str, Any], repeats: int, rivals: Sequence[str] = RIVALS) -> Table:
    """Run ours and the rivals in turn and return ratios with their spread.

    The first of our runs also fills the cache; loading and the trunk pass are never part of a ratio.

    Args:
        settings: fields of the trial; a memory at one layer, FEVER asked.
        repeats: rounds.
        rivals: of `RIVALS`.

    Raises:
        NotTheSame: a rival gave other losses or answers.
    """
    spec = canonical(make_spec(settings))
    cache = ProcessCache(torch.device("cpu"), None)
    card, texts, tokenizer = cache.card(spec), cache.texts(spec), cache.tokenizer(spec)
    rows: dict[str, list[TrialTimes]] = {name: [] for name in ("ours", *rivals)}
    for _ in range(repeats):
        rows["ours"].append(run_ours(spec, cache))
        for name in rivals:
            rows[name].append(run_plain(card, spec, texts, tokenizer, nograd=name == "plain-nograd"))
            check_same(rows["ours"][-1], rows[name][-1], name)
    cold = rows["ours"][0]
    table: Table = {
        "model": card.name,
        "documents": len(texts.documents),
        "segments": len(texts.segments),
        "tokens": sum(len(t.tree) for t in texts.segments),
        "claims": len(cold.letters),
        "epochs": spec.epochs,
        "layer": spec.layer,
        "memory_dim": spec.memory_dim,
        "repeats": repeats,
        "cold_load_s": cold.load_s,
        "seconds": {},
        "ratios": {},
    }
    for name, found in rows.items():
        table["seconds"][name] = {part: spread([getattr(m, part) for m in found]) for part in PARTS}
    for name in rivals:
        table["ratios"][name] = {
            part: ratio([getattr(m, part) for m in rows[name]], [getattr(m, part) for m in rows["ours"]])
            for part in PARTS[1:]
        }
    return table


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = [
        f"{table['model']}: {table['documents']} documents, {table['tokens']} tokens, {table['epochs']} epochs, "
        f"{table['claims']} claims, block {table['layer']}; same losses and answers"
    ]
    for name, found in table["seconds"].items():
        shown.append(f"  {name:<14}" + "  ".join(f"{part} {found[part]['median']:8.2f}" for part in PARTS))
    shown.append(f"  ours, cold cache: {table['cold_load_s']:.2f} s of loading and trunk pass, once per node")
    for name, ratios in table["ratios"].items():
        for part, found in ratios.items():
            shown.append(f"  {name + ' ' + part:<26} {told(found)} x ours")
    return shown


def command(
    model: Model = "sample-neox",
    data: Data = "sample",
    documents: Documents = 20,
    epochs: Epochs = 10,
    depth: Depth = 0.75,
    memory_dim: MemoryDim = 128,
    nograd: Annotated[bool, typer.Option(help="also the rival without a graph below the memory")] = True,
    repeats: Repeats = 3,
    out: OutFile = OUT,
) -> None:
    """Time one trial, training and evaluation, with hidden states cached, against the plain programs."""
    settings = {
        "model": local_model(model),
        "data": data,
        "num_documents": documents,
        "epochs": epochs,
        "depth": depth,
        "memory_dim": memory_dim,
    }
    table = compare(settings, repeats, RIVALS if nograd else RIVALS[:1])
    keep(out, "trial", table)
    typer.echo("\n".join(lines(table)))
