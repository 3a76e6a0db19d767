"""Command line: `python -m sweep.report STORAGE[/NAME]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.ending import end_without_search
from sweep.cli.heartbeat import Heartbeat
from sweep.cli.options import ExperimentOption, LocationArgument, TrackingUriOption, user_errors

EXAMPLES = """
Examples:

  python -m sweep.report outputs/inductive         one sweep, finished or not

  python -m sweep.report outputs                   every sweep of the storage in one report

  python -m sweep.report outputs --name few_shot --name memory_content
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
@user_errors()
def report(
    location: LocationArgument,
    name: Annotated[list[str] | None, typer.Option(help="Only this sweep of STORAGE; may be repeated.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; default STORAGE/NAME/report, or STORAGE/report for several sweeps."),
    ] = None,
    target_nll: Annotated[
        float | None,
        typer.Option(help="NLL per token of the figure on speed; default 80 % of the fall of plain memorising."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, help="Bootstrap samples.")] = 2000,
    samples: Annotated[
        bool, typer.Option("--samples", help="Write all answers, too, as lm-evaluation-harness writes its samples.")
    ] = False,
    mlflow: Annotated[bool, typer.Option(help="Log the folder to each sweep's run in MLflow.")] = True,
    tracking_uri: TrackingUriOption = None,
    experiment: ExperimentOption = None,
) -> None:
    """Write tables, figures and statistics on what the sweeps have recorded so far."""
    from sweep.records.sweep_storage import split_location
    from sweep.report.build import Options, build_report, written
    from sweep.report.study import load_study
    from sweep.tracking.report_artifacts import log_report

    end_without_search()
    storage, only = split_location(location)
    with Heartbeat(True, sys.stderr) as beat:
        beat.say("reading what is recorded")
        study = load_study(storage, [only] if only else name or [])
        for line in study.unreadable:
            beat.say(f"note: {line}")
        beat.say(f"comparing and drawing {len(study.trials):,} trials")
        with written(study, build_report(study, Options(target_nll, resamples)), out) as (folder, page):
            with beat.paused():
                typer.echo(f"{len(study.trials):,} trials, {study.missing:,} points missing: {page}")
            names = [sweep.name for sweep in study.sweeps]
            for line in log_report(storage, names, folder, tracking_uri, experiment) if mlflow else ():
                beat.say(line)
        if samples:
            from sweep.report.sample_files import store_samples

            beat.say("writing all answers")
            count, place = store_samples(study, out and out / "samples")
            with beat.paused():
                typer.echo(f"{count:,} files of answers: {place}")


if __name__ == "__main__":
    app()
