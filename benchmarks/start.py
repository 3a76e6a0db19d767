"""What a sweep takes besides its trials: `sample.py`, small and whole, and the same command with nothing left to run.

Everything is as a user has it: Ray is started and ended, MLflow fed, the report written. The models are made before.
Beside it stands what the packages alone take: Ray Tune with trials that only load the model, and MLflow's runs.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import typer

from benchmarks.common import OUT, OutFile, Repeats, Table, keep, spread, told
from benchmarks.sweeps import fresh_folder, run_command
from sweep.records.record import seconds_since_epoch
from sweep.records.sweep_storage import SweepStorage
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.lm.sample.models import ensure_sample_model

TARGETS_S = {"small": 9.0, "whole": 22.0, "nothing": 2.0}
"""Seconds aimed at on two idle cores, when the small form had nine trials that no probe asked about forgetting."""
TOLD = {"small": "sample --small", "whole": "sample", "nothing": "sample --small again, nothing to run"}
PARTS = ("before", "trials", "after")
BARE = (2, 11)
"""Trials of plain Ray Tune: one for each process at a time, and as many as the small form has."""


def run(arguments: list[str], storage: Path, folder: Path) -> dict[str, float]:
    """Run `sweep.run` once; return its seconds, and those before the first trial, of trials and after the last one."""
    timed = run_command("sweep.run", [*arguments, "--storage", storage], folder)
    heads = SweepStorage(str(storage)).index(set_aside=False).values()
    records = [head.record() for head in heads]
    first = min(seconds_since_epoch(record["started_at"]) for record in records)
    last = max(seconds_since_epoch(record["finished_at"]) for record in records)
    found = {"seconds": timed.exit_s, "records": float(len(records))}
    if first > timed.started:
        ended = timed.started + timed.exit_s
        found |= {"before": first - timed.started, "trials": last - first, "after": ended - last}
    return found


def measure(repeats: int) -> Table:
    """Run all three in turn."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in TARGETS_S}
    bare: dict[int, list[float]] = {trials: [] for trials in BARE}
    with fresh_folder() as folder:
        with patch.dict(os.environ, {"MEMORY_SWEEP_CACHE": str(folder / "cache")}):  # that of the commands
            models = [ensure_sample_model(name) for name in SAMPLE_MODELS]
        for number in range(repeats):
            small, whole = folder / f"small-{number}", folder / f"whole-{number}"
            rounds["small"].append(run(["sample", "--small"], small, folder))
            rounds["nothing"].append(run(["sample", "--small"], small, folder))
            rounds["whole"].append(run(["sample"], whole, folder))
            for trials, found in bare.items():
                own = folder / f"bare-{trials}-{number}"
                own.mkdir()
                found.append(run_command("benchmarks.bare_tune", [models[0], trials, own], folder).exit_s)
    table: Table = {
        name: {"records": each[0]["records"], "target": TARGETS_S[name]}
        | {part: spread([found[part] for found in each]) for part in ("seconds", *PARTS) if part in each[0]}
        for name, each in rounds.items()
    }
    return table | {"bare": {str(trials): spread(seconds) for trials, seconds in bare.items()}}


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = []
    for name in TARGETS_S:
        found = table[name]
        parts = ", ".join(f"{told(found[part], 1)} {part} them" for part in PARTS if part in found and part != "trials")
        trials = f"; {told(found['trials'], 1)} of trials, {parts}" if parts else ""
        shown.append(
            f"{TOLD[name]}: {told(found['seconds'], 1)} s (target {found['target']:g}), "
            f"{found['records']:.0f} records{trials}"
        )
    for trials, seconds in table["bare"].items():
        shown.append(f"plain Ray Tune, {trials} trials that only load the model, and MLflow: {told(seconds, 1)} s")
    return shown


def command(repeats: Repeats = 1, out: OutFile = OUT) -> None:
    """Time whole commands on the sample world, to see what their start and their end take."""
    table = measure(repeats)
    keep(out, "start", table)
    typer.echo("\n".join(lines(table)))
