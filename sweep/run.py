"""`python -m sweep.run SPACE`: plan a space, run what has no record, track it in MLflow."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sweep.cli.ending import end_without_search
from sweep.cli.options import (
    DataCacheOption,
    DataOption,
    ExperimentOption,
    NameOption,
    NoBaselineOption,
    NoLockOption,
    NotifyOption,
    ProbeOption,
    ReportOption,
    RetryFailedOption,
    SeedOption,
    SelectByOption,
    SettingsOption,
    SmallOption,
    SpaceArgument,
    StageOption,
    StorageOption,
    TrackingUriOption,
    parsed_pack_size,
    show,
    use_data_cache,
    user_errors,
)
from sweep.planning.load import asked_space
from sweep.planning.plan_of import costed_plan
from sweep.records.sweep_storage import SweepStorage, check_name
from sweep.running.outcome_text import show_results
from sweep.running.results import EXIT_INTERRUPTED
from sweep.running.run_options import RunOptions
from sweep.running.run_sweep import run_space

EXAMPLES = """
Examples:

  python -m sweep.run sample

  python -m sweep.run inductive --plan

  python -m sweep.run search_spaces/inductive.py --address auto --gpus-per-trial 1

  python -m sweep.run search_spaces/inductive.py --set model=FOLDER --set num_documents=10,50 --data FOLDER

Exit status: 0 all trials have a result, 1 some failed or have none yet, 2 a mistake in the call, 130 interrupted.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def main(
    space: SpaceArgument,
    plan: Annotated[bool, typer.Option("--plan", help="say what would run and what it costs; start nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --plan: one JSON object")] = False,
    settings: SettingsOption = None,
    small: SmallOption = False,
    stage: StageOption = None,
    select_by: SelectByOption = None,
    executor: Annotated[
        str, typer.Option(help="ray, or local: packs one after the other in this process, without Ray")
    ] = "ray",
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto or HOST:PORT; else RAY_ADDRESS, else a Ray of our own")
    ] = None,
    storage: StorageOption = "outputs",
    name: NameOption = None,
    tracking_uri: TrackingUriOption = None,
    experiment: ExperimentOption = None,
    data: DataOption = None,
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
    retry_failed: RetryFailedOption = False,
    no_lock: NoLockOption = False,
    notify: NotifyOption = None,
    seed: SeedOption = None,
    probe: ProbeOption = None,
    no_baseline: NoBaselineOption = False,
    report: ReportOption = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="print only how it ended, and mistakes")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="print every trial that ends, and every failure with its traceback")
    ] = False,
    cache_gb: Annotated[
        float | None,
        typer.Option(
            min=0, help="limit of a node's cache of hidden states, GB; default: half of what its disk would have free"
        ),
    ] = None,
    spread_corpus: Annotated[
        bool,
        typer.Option(
            "--spread-corpus",
            help="more than 10,000 documents: tokens and signatures by Ray Data on all nodes, to equal results; can "
            "pay where these have more CPUs than there are packs",
        ),
    ] = False,
) -> None:
    """Run a search space: every trial that has no record yet, stage after stage, on Ray or in this process."""
    end_without_search()
    with user_errors():
        use_data_cache(data_cache)
        options = RunOptions(
            executor=executor,
            stage=stage,
            retry_failed=retry_failed,
            device=device,
            pack_size=parsed_pack_size(pack_size),
            address=address,
            gpus=gpus_per_trial,
            cpus=cpus_per_trial,
            max_concurrent=max_concurrent,
            tracking_uri=tracking_uri,
            experiment=experiment,
            cache_bytes=None if cache_gb is None else int(cache_gb * 1e9),
            spread_corpus=spread_corpus,
            lock=not no_lock,
            report=report,
            verbose=verbose,
            notify=notify or "",
        )
        found = asked_space(
            space,
            settings=settings or (),
            small=small,
            select_by=select_by,
            data=data,
            seed=seed,
            probes=probe or (),
            baseline=not no_baseline,
        )
        kept_in, sweep_name = SweepStorage(storage), check_name(name or found.name)
        if plan or as_json:
            show(costed_plan(found, kept_in, sweep_name, stage, retry_failed), as_json)
            return
        try:
            results = run_space(found, kept_in, sweep_name, options, progress=not quiet)
        except KeyboardInterrupt:  # before any trial ran; later ones end with results
            print("interrupted", file=sys.stderr, flush=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    show_results(results, tracking_uri, experiment)
    sys.stdout.flush()
    raise typer.Exit(results.exit_code)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    app()
