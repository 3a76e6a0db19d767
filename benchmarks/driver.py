"""The driver's own costs at the size of a study: planning, trials that do nothing, tables, MLflow, report.

The records are made up, in the form of note 002's grid; the trials return results without any work. Rivals: a plain
Ray Tune function with a process for every trial, and MLflow's fluent API with a call for every value.
"""

from __future__ import annotations

import io
import os
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import OUT, NotTheSame, OutFile, Table, ask_process, keep
from benchmarks.made_up import own_tracking, write_sweep
from sweep.planning.plan_of import costed_plan
from sweep.records.record import Record
from sweep.records.results_table import write_results
from sweep.records.sweep_storage import SweepStorage
from sweep.report.build import build_report, written
from sweep.report.findings import extras_of, publish_compared
from sweep.report.study import load_study
from sweep.space import ALL, Space, Stage
from sweep.tracking.client import Runs
from sweep.tracking.layout import metric_values, run_params, run_tags
from sweep.tracking.run_content import ComparisonResult
from sweep.tracking.run_names import Naming

SWEEP = "made_up"


def taken(run: Callable[[], object]) -> dict[str, float]:
    """Return a call's wall seconds, and the CPU seconds of this process and of those it started and awaited."""
    start, cpu = time.perf_counter(), _cpu_seconds()
    run()
    return {"seconds": time.perf_counter() - start, "cpu_seconds": _cpu_seconds() - cpu}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def space_of(points: int) -> Space:
    """Return a space of one stage with at least so many points, none equivalent to another."""
    axes: dict[str, list[Any]] = {
        "model": ["pythia-6.9b", "llama2-7b"], "depth": [0.15, 0.3, 0.45, 0.6, 0.9], "alpha": [0.2, 0.4, 0.6, 0.8, 1.0],
        "allocation": ["random", "simset2"], "num_documents": [100, 1000],
    }  # fmt: skip
    axes["mem_seed"] = list(range(-(-points // 200)))
    stage = Stage(name="grid", axes=dict.fromkeys(axes, ALL))
    fixed = {"data": "sample", "memory_dim": 4096}
    return Space(name="large", title="Many points", axes=axes, fixed=fixed, stages=(stage,))


def plan(points: int, folder: Path) -> Table:
    """Plan a large space, costs and packs included."""
    space, storage = space_of(points), SweepStorage(str(folder / "none"))
    with redirect_stdout(io.StringIO()):
        return {"points": points, **taken(lambda: print(costed_plan(space, storage, "large")))}


def after(records: int, few: int, folder: Path) -> Table:
    """Write the table, publish and report a finished sweep; publish a few of its records by the fluent API too.

    Raises:
        NotTheSame: the rival's runs hold other params or metrics.
    """
    storage = SweepStorage(str(folder))
    write_sweep(storage, SWEEP, records)
    tracking = own_tracking(storage)
    runs = Runs(tracking, storage.storage_id())  # makes the tables

    def report() -> None:
        study = load_study(storage, [SWEEP])
        with written(study, build_report(study)):
            pass

    found: Table = {"records": records, "results": taken(lambda: write_results(storage, SWEEP, storage.index()))}
    found["publish"] = taken(lambda: publish_compared(storage, [SWEEP], tracking))
    found["publish_again"] = taken(lambda: publish_compared(storage, [SWEEP], tracking))
    found["report"] = taken(report)
    index = storage.index()
    found_out = extras_of(storage, [SWEEP], index).findings
    compared_first = sorted(index.values(), key=lambda head: head.id not in found_out)[:few]
    sample = [(head.record(), found_out.get(head.id, ComparisonResult())) for head in compared_first]
    found["fluent"] = {"records": len(sample), **_fluent(sample, runs, folder)}
    return found


def _fluent(sample: list[tuple[Record, ComparisonResult]], ours: Runs, folder: Path) -> dict[str, float]:
    """Log some records, with how they compare, by MLflow's fluent API and compare with our runs of them."""
    import mlflow

    def log() -> None:
        for record, finding in sample:
            with mlflow.start_run(experiment_id=experiment, run_name=Naming().of_record(record)):
                for name, text in run_params(record).items():
                    mlflow.log_param(name, text)
                for point in metric_values(record):
                    mlflow.log_metric(point.name, point.value, step=point.step)
                mlflow.log_metrics(dict(finding.values), step=0)
                for name, text in run_tags(record, "fluent", {}).items():
                    mlflow.set_tag(name, text)

    before = os.environ.get("MLFLOW_TRACKING_URI")  # which MLflow sets along with its own
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'fluent.db'}")
    try:
        experiment = mlflow.create_experiment("fluent", artifact_location=(folder / "fluent").as_uri())
        used = taken(log)
        logged = mlflow.search_runs([experiment], output_format="list")
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
    theirs = {run.data.tags["trial_id"]: run.data for run in logged}
    client = mlflow.MlflowClient(tracking_uri=ours.tracking.uri)
    for record, _ in sample:
        (head,) = ours.find(trial=record["id"])
        data, other = client.get_run(head.run).data, theirs[record["id"]]
        if (data.params, data.metrics) != (other.params, other.metrics):
            raise NotTheSame(f"trial {record['id']}: the fluent API's run holds other params or metrics than ours")
    return used


def noop(who: str, trials: int, feed: str, folder: Path) -> Table:
    """Run trials that do nothing in a process of their own."""
    found = ask_process("benchmarks.noop", [who, str(trials), feed, str(folder)])
    return {"trials": trials, **found, "ms_per_trial": 1000 * found["seconds"] / trials}


def measure(trials: int, records: int, points: int, plain_trials: int = 20, plain_records: int = 30) -> Table:
    """Measure all of it; without trials, only what needs no Ray.

    Args:
        trials: that do nothing, by our driver.
        records: to make a table, MLflow runs and a report of.
        points: of the space to be planned.
        plain_trials: that do nothing, by the plain function.
        plain_records: to log by the fluent API.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        folder = Path(scratch)
        table: Table = {"plan": plan(points, folder), **after(records, plain_records, folder / "after")}
        table["publish_ratio"] = _per_record(table["fluent"], plain_records) / _per_record(table["publish"], records)
        if trials:
            table["ours"] = noop("ours", trials, "live", folder / "ours")
            table["plain"] = noop("plain", plain_trials, "off", folder / "plain")
            table["trial_ratio"] = table["plain"]["ms_per_trial"] / table["ours"]["ms_per_trial"]
    return table


def _per_record(found: dict[str, float], records: int) -> float:
    return found["seconds"] / records


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = [f"plan of {table['plan']['points']:,} points{'':<10} {_told(table['plan'])}"]
    for part in ("results", "publish", "publish_again", "report"):
        shown.append(f"{part.replace('_', ' ')}, {table['records']:,} records{'':<8} {_told(table[part])}")
    total = sum(table[part]["seconds"] for part in ("results", "publish", "report"))
    shown.append(f"results, publish and report together: {total:.1f} s")
    fluent = table["fluent"]
    shown.append(
        f"fluent API, {fluent['records']} records: {_told(fluent)}, {table['publish_ratio']:.1f} x ours a record"
    )
    for who, text in (("ours", "ours, fed live"), ("plain", "plain function")):
        if who in table:
            found = table[who]
            shown.append(
                f"{text}, {found['trials']:,} trials that do nothing: {found['ms_per_trial']:.0f} ms a trial, "
                f"{_told(found)}, driver's peak {found['peak_bytes'] / 1e9:.2f} GB"
            )
    if "trial_ratio" in table:
        shown.append(f"plain function: {table['trial_ratio']:.1f} x ours a trial")
    return shown


def _told(found: dict[str, float]) -> str:
    return f"{found['seconds']:.1f} s ({found['cpu_seconds']:.1f} s of CPU)"


def command(
    trials: Annotated[int, typer.Option(min=0, help="trials that do nothing; 0: without Ray")] = 2400,
    records: Annotated[int, typer.Option(min=1, help="records for table, MLflow and report")] = 2400,
    points: Annotated[int, typer.Option(min=1, help="points of the space to be planned")] = 100_000,
    out: OutFile = OUT,
) -> None:
    """Time the driver: a large plan, trials that do nothing, table, publish and report of a whole study."""
    table = measure(trials, records, points)
    keep(out, "driver", table)
    typer.echo("\n".join(lines(table)))
