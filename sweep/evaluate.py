"""`python -m sweep.evaluate STORAGE[/NAME] --probe NAME[:key=value,…]`: ask finished trials something else."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sweep.cli import completion
from sweep.cli.ending import end_without_search
from sweep.cli.options import (
    DataCacheOption,
    ExperimentOption,
    LocationArgument,
    NoBaselineOption,
    NoLockOption,
    ReportOption,
    TrackingUriOption,
    parsed_pack_size,
    show,
    use_data_cache,
    user_errors,
)
from sweep.running.evaluate import AskRequest, evaluate_sweep, evaluation_plan, sweeps_at
from sweep.running.outcome_text import show_results
from sweep.running.results import EXIT_INTERRUPTED
from sweep.running.run_options import RunOptions
from trainables.errors import ConfigError
from trainables.trial.asking import check_probes

EXAMPLES = """
Examples:

  python -m sweep.evaluate outputs/inductive --probe fever:num_shots=5 --plan

  python -m sweep.evaluate outputs --probe fever:num_shots=0,seed=0 --probe counterfact

What a probe leaves open is as the trial's own fields say. The settings of a probe are those fields of a trial that it
uses: `python -m sweep.fields`.

Exit status: 0 all trials have answers, 1 some have none, 2 a mistake in the call, 130 interrupted.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def main(
    location: LocationArgument,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            "--probe",
            metavar="NAME[:key=value,…]",
            help="what to ask; may be repeated",
            autocompletion=completion.probes,
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what would be asked and what it costs")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --plan: one JSON object for each sweep")] = False,
    executor: Annotated[
        str, typer.Option(help="ray, or local: packs one after the other in this process, without Ray")
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto or HOST:PORT; else RAY_ADDRESS, else a Ray of our own")
    ] = None,
    tracking_uri: TrackingUriOption = None,
    experiment: ExperimentOption = None,
    data_cache: DataCacheOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a pack, may be a fraction; default 1 where there are any")
    ] = None,
    cpus_per_trial: Annotated[
        float | None, typer.Option(min=0.01, help="CPUs of a pack; default 1, with --executor local all")
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="packs at once; default as many as fit")] = None,
    pack_size: Annotated[str, typer.Option(help="trials that share a forward pass: auto or a number")] = "auto",
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="what failed to be asked is asked again")
    ] = False,
    no_baseline: NoBaselineOption = False,
    no_lock: NoLockOption = False,
    report: ReportOption = True,
) -> None:
    """Ask the finished trials of a sweep, or of a storage: their stored weights are loaded, nothing is trained."""
    end_without_search()
    code = 0
    with user_errors():
        use_data_cache(data_cache)
        if not probe:
            raise ConfigError("--probe: say what to ask, such as --probe fever:num_shots=5")
        options = RunOptions(
            executor=executor,
            retry_failed=retry_failed,
            device=device,
            pack_size=parsed_pack_size(pack_size),
            address=address,
            gpus=gpus_per_trial,
            cpus=cpus_per_trial,
            max_concurrent=max_concurrent,
            tracking_uri=tracking_uri,
            experiment=experiment,
            lock=not no_lock,
            report=report,
        )
        asked = AskRequest(check_probes(probe), not no_baseline, retry_failed)
        storage, names = sweeps_at(location)
        for name in names:
            if plan or as_json:
                show(evaluation_plan(storage, name, asked), as_json)
                continue
            try:
                results = evaluate_sweep(storage, name, asked, options, progress=True)
            except KeyboardInterrupt:  # before anything was asked; later ones end with results
                print("interrupted", file=sys.stderr, flush=True)
                raise typer.Exit(EXIT_INTERRUPTED) from None
            show_results(results, tracking_uri, experiment)
            code = max(code, results.exit_code)
            if results.exit_code == EXIT_INTERRUPTED:
                break
    sys.stdout.flush()
    raise typer.Exit(code)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    app()
