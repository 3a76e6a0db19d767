"""`python -m sweep.run SPACE`: plan a space, run what has no record, track it in MLflow."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Annotated

import typer

from sweep.cli import (
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
    show,
    use_data_cache,
    user_errors,
)
from sweep.planning.load import asked_space
from sweep.planning.plan_of import costed_plan
from sweep.planning.show import RETRY
from sweep.records.sweep_storage import SweepStorage, check_name
from sweep.running.options import RunOptions
from sweep.running.results import EXIT_INTERRUPTED, Results
from sweep.running.run_sweep import run_space
from trainables.errors import ConfigError
from trainables.node.addresses import shown

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


def show_results(results: Results, tracking_uri: str | None, experiment: str | None) -> None:
    """Print how a run ended, and where everything is."""
    from sweep.tracking.address import resolve_tracking
    from sweep.tracking.link import view_link

    folder = results.paths["folder"]
    for line in results.failures:
        print(f"failed: {line[:300]}")
    if results.tracking_trouble:
        print(f"note: {results.tracking_trouble}")
        print(f"      later: {_python()} -m sweep.publish {folder}{_tracking_options(tracking_uri, experiment)}")
    if results.counts["failed"]:
        print(f"failed: {results.counts['failed']} trials; {RETRY}")
    if results.num_run or results.num_asked:
        told = ", ".join(f"{count} {status}" for status, count in results.counts.items() if count)
        print(f"\n{told}; {results.seconds:.0f} s")
    else:
        print("\nnothing to run: every trial has a record" + (", failed ones too" if results.counts["failed"] else ""))
    if results.on_sample_world:
        print("The sample world and its models are for trying and testing: no claim about real models follows.")
    print(f"results:  {results.paths['results']}")
    for line in answer_lines(results):
        print(line)
    tracking = resolve_tracking(results.storage, tracking_uri, experiment)
    print(f"MLflow:   {view_link(results.storage, tracking, results.name)}")
    if results.stopped and results.stopped != "interrupted":
        print(f"stopped: {results.stopped}")


def answer_lines(results: Results) -> list[str]:
    """Return the main answer in two sentences and where the report is, or the command that makes one."""
    command = f"{_python()} -m sweep.report {results.paths['folder']}"
    if "report" not in results.paths:
        trouble = [f"note: no report was written: {results.report_trouble[:300]}"] if results.report_trouble else []
        return [*trouble, f"report:   {command}"]
    main = next(iter(results.conclusions.values()), ())
    return [*(f"{'answer:' if not i else '':9} {sentence}" for i, sentence in enumerate(main[:2])),
            f"report:   {results.paths['report']}"]  # fmt: skip


def _tracking_options(uri: str | None, experiment: str | None) -> str:
    """Return the options that name the same place in MLflow, without a password that stands in the address."""
    given = (("--tracking-uri", uri and shown(uri)), ("--experiment", experiment))
    return "".join(f" {name} {shlex.quote(value)}" for name, value in given if value)


def _python() -> str:
    """Return this interpreter as a person would type it here."""
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith("..") else near


def parsed_pack_size(text: str) -> int | None:
    """Return the number of `--pack-size`; None for `auto`.

    Raises:
        ConfigError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"pack-size={text!r}: must be auto or a whole number above 0")
    return int(text)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    app()
