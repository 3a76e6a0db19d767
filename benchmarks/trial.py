"""One trial, ours against the plain ones: the same losses and answers, and how long each takes."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq
import torch

from benchmarks.plain import Measured, run_plain
from trainables.pack import PackRun
from trainables.pack_task import TrialTask
from trainables.spec import TrialSpec, canonical, identity, make_spec, trial_id
from trainables.workbench import Workbench

CURVE_TOLERANCE = 1e-4


class NotTheSame(Exception):
    """Two programs that should compute the same thing did not, so no ratio is printed."""


def run_ours(spec: TrialSpec, bench: Workbench) -> Measured:
    """Run one trial as a pack of one; loading and the trunk pass are counted apart."""
    folder = tempfile.mkdtemp(prefix="benchmark-")
    try:
        start = time.perf_counter()
        run = PackRun([TrialTask(trial_id(identity(spec)), spec, folder, f"{folder}/checkpoint")], bench, (), [None])
        bench.take_timings()
        loaded = time.perf_counter()
        while not run.done:
            run.step()
        trained = time.perf_counter()
        with bench.timing("all"):
            (result,) = run.finish()
        letters = pq.read_table(Path(folder) / "predictions.parquet")["parsed"].to_pylist()
        curve = [value for _, value in result.curves["train/nll"]]
        return Measured(loaded - start, trained - loaded, result.timings["evaluate_s"], curve, letters)
    finally:
        shutil.rmtree(folder)


def check_same(ours: Measured, rival: Measured, name: str) -> None:
    """Compare loss curves and every answer.

    Raises:
        NotTheSame: they differ.
    """
    worst = max(abs(a - b) for a, b in zip(ours.curve, rival.curve, strict=True))
    if worst > CURVE_TOLERANCE:
        raise NotTheSame(f"{name}: loss curves differ by {worst:.2e}, more than {CURVE_TOLERANCE:g}")
    different = sum(a != b for a, b in zip(ours.letters, rival.letters, strict=True))
    if different:
        raise NotTheSame(f"{name}: {different} of {len(ours.letters)} answers differ")


def compare(settings: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Run ours and the rivals in turn and return ratios with their spread.

    Args:
        settings: fields of the trial; a memory at one layer, FEVER asked.
        repeats: rounds; one more is run first and not counted.

    Raises:
        NotTheSame: a rival gave other losses or answers.
    """
    spec = canonical(make_spec(settings))
    device = torch.device("cpu")
    cold_bench = Workbench(device, None)
    card, texts, tokenizer = cold_bench.card(spec), cold_bench.texts(spec), cold_bench.tokenizer(spec)
    cold = run_ours(spec, cold_bench)
    rows: dict[str, list[Measured]] = {"ours": [], "plain": [], "plain-nograd": []}
    for _ in range(repeats):
        rows["ours"].append(run_ours(spec, cold_bench))
        rows["plain"].append(run_plain(card, spec, texts, tokenizer))
        rows["plain-nograd"].append(run_plain(card, spec, texts, tokenizer, nograd=True))
        for name in ("plain", "plain-nograd"):
            check_same(rows["ours"][-1], rows[name][-1], name)
    table: dict[str, Any] = {
        "model": card.name, "documents": len(texts.documents), "segments": len(texts.segments),
        "tokens": sum(len(t.tree) for t in texts.segments), "claims": len(rows["ours"][0].letters),
        "epochs": spec.epochs, "layer": spec.layer, "memory_dim": spec.memory_dim, "threads": torch.get_num_threads(),
        "repeats": repeats, "cold_load_s": cold.load_s, "seconds": {}, "ratios": {},
    }
    for name, found in rows.items():
        table["seconds"][name] = {
            part: median(getattr(m, part) for m in found) for part in ("load_s", "train_s", "evaluate_s", "warm_s")
        }
    for name in ("plain", "plain-nograd"):
        for part in ("train_s", "evaluate_s", "warm_s"):
            ratios = [getattr(r, part) / getattr(o, part) for o, r in zip(rows["ours"], rows[name], strict=True)]
            table["ratios"][f"{name}/{part}"] = {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
    return table
