"""`python -m sweep.run SPACE`: plan a space, run what has no record, track it in MLflow."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sweep.cli import user_errors
from sweep.plan import plan_of, show_plan
from sweep.planning.load import load_space
from sweep.planning.overrides import apply_overrides, select_by, small_form
from sweep.records.store import Store, check_name
from sweep.space import Space
from trainables.errors import ConfigError

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130
EXAMPLES = """
Examples:

  python -m sweep.run search_spaces/sample.py

  python -m sweep.run search_spaces/inductive.py --plan

  python -m sweep.run search_spaces/inductive.py --address auto --gpus-per-trial 1

  python -m sweep.run search_spaces/inductive.py --set model=FOLDER --set num_documents=10,50 --data FOLDER

Exit status: 0 all trials have a result, 1 some failed, 2 a mistake in the call, 130 interrupted.
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Options:
    """What the command line says beyond the space.

    Attributes:
        name: of the sweep.
        address: of the Ray cluster; None for RAY_ADDRESS or a Ray of our own.
        tracking_uri: MLflow's address; None for the environment's or the default.
        experiment: MLflow experiment.
        stage: the last stage to run; None for all.
        device: auto, cpu or cuda.
        gpus: GPUs of a pack; None for one where there are any.
        cpus: CPUs of a pack.
        max_concurrent: packs at once; None for as many as fit.
        pack_size: trials in a pack; None to choose.
        retry_failed: run failed trials again.
        cache_bytes: limit of each node's cache of hidden states; None for half of its free disk.
    """

    name: str
    address: str | None
    tracking_uri: str | None
    experiment: str | None
    stage: str | None
    device: str
    gpus: float | None
    cpus: float
    max_concurrent: int | None
    pack_size: int | None
    retry_failed: bool
    cache_bytes: int | None


@app.command(epilog=EXAMPLES)
def main(
    space: Annotated[str, typer.Argument(help="a search space: a Python file with a `space`", metavar="SPACE")],
    plan: Annotated[bool, typer.Option("--plan", help="say what would run and what it costs; start nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --plan: one JSON object")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=V[,V...]", help="restrict or override an axis or a fixed field"),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="the space's small form, on the sample world")] = False,
    stage: Annotated[str | None, typer.Option(help="run only up to this stage")] = None,
    select_by_metric: Annotated[
        str | None, typer.Option("--select-by", metavar="METRIC", help="metric that decides between stages")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster: auto or HOST:PORT; else RAY_ADDRESS, else a Ray of our own")
    ] = None,
    storage: Annotated[str, typer.Option(help="where results go: a folder or s3://...")] = "outputs",
    name: Annotated[str | None, typer.Option(help="name of the sweep; default: the space's")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow; default MLFLOW_TRACKING_URI, else a SQLite file in the storage")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow experiment")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH|sample|hub", help="data: folders, the sample world or the hub; may be repeated"),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    gpus_per_trial: Annotated[
        float | None, typer.Option(min=0, help="GPUs of a pack, may be a fraction; default 1 where there are any")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(min=0.01, help="CPUs of a pack")] = 1.0,
    max_concurrent: Annotated[int | None, typer.Option(min=1, help="packs at once; default as many as fit")] = None,
    pack_size: Annotated[str, typer.Option(help="trials that share a forward pass: auto or a number")] = "auto",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="run failed trials again")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="seed of all trials")] = None,
    cache_gb: Annotated[
        float | None, typer.Option(min=0, help="limit of a node's cache of hidden states, GB; default half its disk")
    ] = None,
) -> None:
    """Run a search space: every trial that has no record yet, stage after stage, on Ray."""
    with user_errors():
        found = load_space(space)
        if small:
            found = small_form(found)
        found = apply_overrides(found, settings or [], data=",".join(data) if data else None, seed=seed, device=device)
        if select_by_metric:
            found = select_by(found, select_by_metric)
        store = Store(storage)
        sweep_name = check_name(name or found.name)
        if plan or as_json:
            show_plan(found, store, sweep_name, stage, retry_failed, as_json)
            return
        options = Options(
            name=sweep_name,
            address=address,
            tracking_uri=tracking_uri,
            experiment=experiment,
            stage=stage,
            device=device,
            gpus=gpus_per_trial,
            cpus=cpus_per_trial,
            max_concurrent=max_concurrent,
            pack_size=_pack_size(pack_size),
            retry_failed=retry_failed,
            cache_bytes=None if cache_gb is None else int(cache_gb * 1e9),
        )
        code = run_sweep(found, store, options)
    sys.stdout.flush()
    raise typer.Exit(code)


def run_sweep(space: Space, store: Store, options: Options) -> int:
    """Run a space to its end.

    Returns:
        The exit status.

    Raises:
        ConfigError: a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    with store.lock(options.name), ExitStack() as stack:
        return _Runner(space, store, options, stack).run()


class _Runner:
    """One run of one sweep, from its plan to its summary."""

    def __init__(self, space: Space, store: Store, options: Options, stack: ExitStack) -> None:
        self._space, self._store, self._options, self._stack = space, store, options, stack
        self._started = time.monotonic()
        self._index = store.index()
        for warning in self._index.warnings:
            print(f"note: {warning}", flush=True)
        self._choices: dict[str, Any] = store.read_json(f"{options.name}/choices.json") or {}
        self._plan = plan_of(
            space, self._index, self._choices, store, options.name, options.stage, options.retry_failed
        )

    def run(self) -> int:
        """Do it and return the exit status."""
        # All that the end needs is imported at the start: sources may be updated while a long run goes on.
        import sweep.publish
        import sweep.records.table  # noqa: F401
        from sweep.running.ray_cluster import check_reachable
        from sweep.tracking.layout import resolve_tracking

        plan, options = self._plan, self._options
        print(f"{self._space.title}", flush=True)
        where = self._store.full(options.name)
        print(f"{options.name}: {plan.num_to_run} trials to run, results in {where}", flush=True)
        if plan.num_to_run:
            check_reachable(options.address)
        self._prepare_inputs()
        self._store.check_writable()
        tracking = resolve_tracking(self._store, options.tracking_uri, options.experiment)
        stopped = ""
        outcome: dict[str, int] = {}
        if plan.num_to_run:
            stopped, outcome = self._tune(tracking)
        return self._close(tracking, stopped, outcome)

    def _prepare_inputs(self) -> None:
        """Read the data and make the sample models now, so that a mistake in them is said before anything starts."""
        from trainables.data.corpus import load_corpus
        from trainables.data.counterfact import load_counterfact
        from trainables.pack.check import check_trials

        asked: dict[tuple[str, bool, int, bool], None] = {}
        for stage in self._plan.stages:
            for point in stage.to_run:
                spec = point.spec
                with_records = spec.page_order == "subjects" or "counterfact" in spec.probes
                asked[spec.data, spec.detokenize, spec.num_documents, with_records] = None
        for data, detokenize, num_documents, with_records in asked:
            load_corpus(data, detokenize).select(num_documents)
            if with_records:
                load_counterfact(data)
        samples = {p.card.name for s in self._plan.stages for p in s.to_run if p.card.is_sample}
        if samples:
            from trainables.lm.sample.models import ensure_sample_models

            ensure_sample_models(sorted(samples))
        check_trials([(p.spec, p.card) for s in self._plan.stages for p in s.to_run], self._options.address)

    def _tune(self, tracking: Any) -> tuple[str, dict[str, int]]:
        """Run the trials on Ray; return why it stopped early, if it did, and the counts by status."""
        from sweep.running.ledger import Ledger
        from sweep.running.progress import Display
        from sweep.running.ray_cluster import check_shared_storage, ray_session
        from sweep.tracking.live_feed import LiveFeed

        options = self._options
        nodes = self._stack.enter_context(ray_session(options.address))
        from sweep.running.ray_tune import Resources, run_tune
        from trainables.lm.check import check_device

        check_device(options.device, any(nodes.gpus))
        gpus = options.gpus if options.gpus is not None else float(any(nodes.gpus) and options.device != "cpu")
        slots = min(nodes.slots(options.cpus, gpus), options.max_concurrent or 10**6)
        if len(nodes.cpus) > 1:
            check_shared_storage(self._store)
        display = Display(self._plan.num_to_run)
        ledger = Ledger(
            self._plan,
            self._store,
            options.name,
            self._index,
            self._choices,
            self._packing(slots, gpus),
            options.retry_failed,
            display.say,
        )
        feed = LiveFeed(self._store, options.name, tracking)
        try:
            run_tune(
                ledger,
                feed,
                display,
                Resources(options.cpus, gpus, slots, options.device, options.cache_bytes),
                self._trunk_layers(),
            )
        except KeyboardInterrupt:
            ledger.stopping = ledger.stopping or "interrupted"
        finally:
            display.close()
            ledger.write_manifest()
            feed.close(timeout_s=10.0 if ledger.stopping else 60.0)
        for line in display.summary():
            print(f"failed: {line[:300]}", flush=True)
        return ledger.stopping, ledger.outcome()

    def _packing(self, slots: int, gpus: float) -> Any:
        from sweep.planning.packs import auto_pack_size
        from sweep.running.ledger import Packing
        from sweep.running.ray_cluster import pack_memory_bytes

        size = self._options.pack_size
        if size is not None:
            return Packing(lambda point: size, slots)
        memory = pack_memory_bytes(gpus, slots)
        return Packing(lambda point: auto_pack_size(point, memory, gpus > 0), slots)

    def _trunk_layers(self) -> dict[str, list[int]]:
        """Return the layers that the trials of each model ask for, stage by stage the same trunk pass."""
        layers: dict[str, set[int]] = {}
        for stage in self._plan.stages:
            for point in stage.points:
                if point.spec.layer is not None and not stage.waits_for:
                    layers.setdefault(point.card.key, set()).add(point.spec.layer)
        return {key: sorted(found) for key, found in layers.items()}

    def _close(self, tracking: Any, stopped: str, outcome: dict[str, int]) -> int:
        """Write the table, bring MLflow up to date, say where everything is."""
        from sweep.publish import publish
        from sweep.records.table import write_results
        from sweep.tracking.client import TrackingError
        from sweep.tracking.layout import ui_command

        options = self._options
        write_results(self._store, options.name)
        try:
            publish(self._store, [options.name], tracking)
        except TrackingError as error:
            print(f"note: {error}", flush=True)
            print(f"      later: {_python()} -m sweep.publish {self._store.full(options.name)}", flush=True)
        if outcome:
            told = ", ".join(f"{count} {status}" for status, count in outcome.items() if count)
            print(f"\n{told}; {time.monotonic() - self._started:.0f} s", flush=True)
        else:
            print("\nnothing to run: every trial has a record", flush=True)
        if any(card.is_sample for card in {p.card for s in self._plan.stages for p in s.points}):
            print("The sample world and its models are for trying and testing: no claim about real models follows.")
        print(f"results:  {self._store.full(options.name + '/results.parquet')}")
        print(f"report:   {_python()} -m sweep.report {self._store.full(options.name)}")
        shown = ui_command(tracking)
        print(f"MLflow:   {f'{_python()} -m {shown}' if shown.startswith('mlflow') else shown}", flush=True)
        if stopped == "interrupted":
            return EXIT_INTERRUPTED
        if stopped:
            print(f"stopped: {stopped}", flush=True)
        missing = outcome.get("missing", 0) + outcome.get("failed", 0)
        failed_before = sum(self._index[i].status == "failed" for i in self._known_ids() if i in self._index)
        return EXIT_FAILED if stopped or missing or (not outcome and failed_before) else 0

    def _known_ids(self) -> set[str]:
        return {point.id for stage in self._plan.stages for point in stage.points}


def _python() -> str:
    """Return this interpreter as a person would type it here."""
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith("..") else near


def _pack_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"pack-size={text!r}: must be auto or a whole number above 0")
    return int(text)


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    app()
