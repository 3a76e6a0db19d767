"""Whole sweeps from the command to the last result: ours against plain Ray Tune, and stages against the full grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow.parquet as pq
import typer

from benchmarks.common import (
    OUT,
    TOLERANCE,
    Data,
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
    own_data,
    ratio,
    spread,
    told,
)
from benchmarks.plain import TrialTimes
from benchmarks.sweeps import (
    ROOT,
    SPACES,
    Swept,
    fresh_folder,
    model_path,
    planned,
    run_command,
    set_arguments,
    sweep_in,
)
from benchmarks.trial import PARTS, check_same

STUDY = ROOT / "search_spaces" / "inductive.py"
ENDS = ("last_s", "exit_s")


def run_ours(settings: dict[str, Any]) -> tuple[Table, dict[str, TrialTimes]]:
    """Run the 24 trials with `sweep.run`; return its times, and what each trial gave."""
    with fresh_folder() as folder:
        swept = sweep_in(folder, SPACES / "one_layer.py", settings)
        return _times(swept), {trial: _measured(swept, trial) for trial in swept.records}


def run_plain_tune(settings: dict[str, Any]) -> tuple[Table, dict[str, TrialTimes]]:
    """Run the same grid with the rival."""
    with fresh_folder() as folder:
        out = folder / "plain"
        arguments = [SPACES / "one_layer.py", *set_arguments(settings), "--out", out]
        timed = run_command("benchmarks.plain_sweep", arguments, folder)
        files = sorted(out.glob("*.json"))
        found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
        times = {
            "last_s": max(path.stat().st_mtime for path in files) - timed.started,
            "exit_s": timed.exit_s,
            "parts": {part: sum(f[part] for f in found.values()) for part in PARTS if part != "warm_s"},
        }
        fields = TrialTimes.__dataclass_fields__
        return times, {trial: TrialTimes(**{name: f[name] for name in fields}) for trial, f in found.items()}


def compare(settings: dict[str, Any], repeats: int) -> Table:
    """Run both programs in turn on the same grid and return ratios with their spread.

    Args:
        settings: fields of `spaces/one_layer.py` to set; `model` and `data` are folders.
        repeats: rounds.

    Raises:
        NotTheSame: another set of trials, or other losses or answers in one of them.
    """
    times: dict[str, list[Table]] = {"ours": [], "plain": []}
    trials: dict[str, TrialTimes] = {}
    for _ in range(repeats):
        ours_times, trials = run_ours(settings)
        rival_times, rivals = run_plain_tune(settings)
        check_sweeps(trials, rivals)
        times["ours"].append(ours_times)
        times["plain"].append(rival_times)
    return {
        "model": Path(settings["model"]).name,
        "settings": {name: value for name, value in settings.items() if name not in ("model", "data")},
        "trials": len(trials),
        "claims": len(next(iter(trials.values())).letters),
        "answered": sum(letter is not None for found in trials.values() for letter in found.letters),
        "repeats": repeats,
        "seconds": {name: {end: spread([t[end] for t in found]) for end in ENDS} for name, found in times.items()},
        "worker_seconds": {name: found[-1]["parts"] for name, found in times.items()},
        "ratios": {end: ratio([t[end] for t in times["plain"]], [t[end] for t in times["ours"]]) for end in ENDS},
    }


def check_sweeps(ours: dict[str, TrialTimes], rival: dict[str, TrialTimes]) -> None:
    """Compare two sweeps trial by trial.

    Raises:
        NotTheSame: they differ.
    """
    if ours.keys() != rival.keys():
        raise NotTheSame(f"plain: {len(rival)} trials, {len(ours)} in ours, {len(ours.keys() & rival.keys())} in both")
    for trial in ours:
        check_same(ours[trial], rival[trial], f"plain, trial {trial}")


def staged_against_grid(settings: dict[str, Any]) -> Table:
    """Compare the plan in stages with the full grid: the study's on paper, a small one on paper and by running it.

    Args:
        settings: fields of `spaces/staged.py` to set; `model` is a folder.

    Raises:
        NotTheSame: a trial of the stages is not in the grid, or learns something else there.
    """
    with fresh_folder() as folder:
        study = planned(STUDY, {}, folder)
        before = planned(SPACES / "staged.py", settings, folder)
        staged = sweep_in(folder, SPACES / "staged.py", settings)
        after = planned(SPACES / "staged.py", settings, folder)
    with fresh_folder() as folder:
        grid = sweep_in(folder, SPACES / "full_grid.py", settings)
    for trial, record in staged.records.items():
        if trial not in grid.records:
            raise NotTheSame(f"staged: trial {trial} is not among those of the full grid")
        mine, other = record["metrics"]["memory/nll"], grid.records[trial]["metrics"]["memory/nll"]
        check_close(f"staged, trial {trial}", "memory/nll and the full grid's", [mine], [other], TOLERANCE["float32"])
    times = {"staged": _times(staged), "grid": _times(grid)}
    return {
        "study": _on_paper(study),
        "small": _on_paper(before),
        "small_with_choices": _on_paper(after),
        "trials": {"staged": len(staged.records), "grid": len(grid.records)},
        "seconds": times,
        "ratios": {
            "trials": len(grid.records) / len(staged.records),
            "train_flops": _train_flops(grid) / _train_flops(staged),
            **{name: times["grid"][name] / times["staged"][name] for name in ("compute_s", "trials_s", *ENDS)},
        },
    }


def _on_paper(plan: Table) -> Table:
    """Return points and FLOPs of a plan and of its full grid, with their ratios."""
    costs = plan["estimate"]
    staged = sum(stage["points"] - stage["equivalent"] for stage in plan["stages"])
    return {
        "grid_points": plan["grid_points"],
        "unique_points": plan["unique_points"],
        "staged_trials": staged,
        "grid_flops": costs["full_grid_flops"],
        "staged_flops": costs["staged_flops"],
        "flop_ratio": costs["full_grid_flops"] / costs["staged_flops"],
        "trial_ratio": plan["unique_points"] / staged,
    }


def _train_flops(swept: Swept) -> float:
    return float(sum(record["flops"] for record in swept.records.values()))


def _times(swept: Swept) -> Table:
    return {
        "last_s": swept.last_s,
        "exit_s": swept.exit_s,
        "trials_s": swept.trials_s,
        "compute_s": swept.compute_s(),
        "parts": swept.parts(),
    }


def _measured(swept: Swept, trial: str) -> TrialTimes:
    record, folder = swept.records[trial], swept.folders[trial]
    curves: dict[str, list[list[float]]] = record["curves"]
    return TrialTimes(
        load_s=record["timings"].get("load_s", 0.0),
        train_s=record["timings"]["train_s"],
        measure_s=record["timings"]["measure_s"],
        evaluate_s=record["timings"].get("evaluate_s", 0.0),
        curve=[value for _, value in curves["train/nll"]],
        nll=record["metrics"]["memory/nll"],
        letters=pq.read_table(next(folder.glob("probes/*/answers.parquet")))["parsed"].to_pylist(),
        leakage=[value for _, value in curves.get("train/leakage", [])],
    )


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = _whole_lines(table["whole"]) if "whole" in table else []
    return shown + (_stage_lines(table["stages"]) if "stages" in table else [])


def _whole_lines(whole: Table) -> list[str]:
    shown = [
        f"{whole['model']}: {whole['trials']} trials at one layer, {whole['claims']} claims each "
        f"({whole['answered']} answers parsed in all); same losses and answers in every trial"
    ]
    for name, found in whole["seconds"].items():
        parts = "  ".join(f"{part} {seconds:.1f}" for part, seconds in whole["worker_seconds"][name].items())
        shown.append(
            f"  {name:<6} last result {found['last_s']['median']:8.1f} s  exit {found['exit_s']['median']:8.1f} s  "
            f"(workers: {parts})"
        )
    for end, words in zip(ENDS, ("to the last result", "to the end of the process"), strict=True):
        shown.append(f"  plain {words:<26} {told(whole['ratios'][end])} x ours")
    return shown


def _stage_lines(stages: Table) -> list[str]:
    shown = []
    names = {"study": "inductive.py", "small": "small grid", "small_with_choices": "same, layer chosen"}
    for name, words in names.items():
        paper = stages[name]
        shown.append(
            f"  {words:<20} {paper['unique_points']:,} different points of {paper['grid_points']:,}, "
            f"{paper['staged_trials']:,} trials in stages: {paper['trial_ratio']:.2f} x the trials, "
            f"{paper['flop_ratio']:.2f} x the FLOPs on paper"
        )
    found = stages["ratios"]
    shown.append(
        f"  small grid, run      {stages['trials']['grid']} trials against {stages['trials']['staged']}: "
        f"{found['compute_s']:.2f} x the seconds of computing, {found['trials_s']:.2f} x from first trial to last, "
        f"{found['last_s']:.2f} x from the command to the last record"
    )
    return shown


def command(
    model: Model = "pythia-70m",
    data: Data = "sample",
    documents: Documents = 4,
    epochs: Epochs = 5,
    memory_dim: MemoryDim = 128,
    claims_per_page: Annotated[int | None, typer.Option(min=1, help="ask at most so many; default all")] = None,
    staged_model: Annotated[str, typer.Option(help="model of the small staged sweep")] = "pythia-70m",
    repeats: Repeats = 1,
    part: Annotated[Literal["all", "plain", "stages"], typer.Option(help="plain: the 24 trials")] = "all",
    out: OutFile = OUT,
) -> None:
    """Time whole sweeps: 24 trials at one layer against plain Ray Tune, and a plan in stages against its full grid."""
    settings = {
        "model": model_path(model),
        "data": own_data(data),
        "num_documents": documents,
        "epochs": epochs,
        "memory_dim": memory_dim,
    }
    if claims_per_page:
        settings["claims_per_page"] = claims_per_page
    table: Table = {}
    if part != "stages":
        table["whole"] = compare(settings, repeats)
    if part != "plain":
        table["stages"] = staged_against_grid({"model": model_path(staged_model), "data": "sample"})
    keep(out, "sweep", table)
    typer.echo("\n".join(lines(table)))
