"""One run of a sweep, from its plan to its results."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

from sweep.heartbeat import Heartbeat
from sweep.planning.inputs import (
    check_added,
    check_hub_models,
    check_points,
    data_to_read,
    download_models,
    keep_commits,
    kept_commits,
    models_to_run,
    moved_notes,
    points_to_run,
    read_data,
)
from sweep.planning.kept_space import keep_space
from sweep.planning.load import asked_space
from sweep.planning.packs import auto_pack_size
from sweep.planning.plan import Plan
from sweep.planning.plan_of import plan_of
from sweep.planning.show import RETRY
from sweep.records.manifest import manifest_stages
from sweep.records.mend import mend
from sweep.records.names import ModelNames
from sweep.records.starts import START
from sweep.records.steering import Steering, read_steering, waiting_wishes
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import CHOICES, DRAWS, read_sweep_file
from sweep.records.sweep_storage import SweepStorage, check_name
from sweep.records.table import RESULTS
from sweep.report.kept import PAGE_FILE, REPORT_FOLDER, SweepReport, kept_report
from sweep.running.exchange import PackExchange, trunk_layers
from sweep.running.executor import Capacity, Executor
from sweep.running.interrupts import INTERRUPTED, Interrupts, handled_signals
from sweep.running.ledger import Ledger, Packing
from sweep.running.made import Made
from sweep.running.notify import CHOICE, END, FAILURE, Notifier
from sweep.running.options import RunOptions, executor_for
from sweep.running.progress import Display
from sweep.running.results import EXIT_FAILED, EXIT_INTERRUPTED, Results
from sweep.running.state import SweepProgress
from sweep.running.wishes import WITHOUT_PLAN, Wishes
from sweep.space import Space
from sweep.tracking.address import Tracking, resolve_tracking
from trainables.errors import SweepError, failure_kind
from trainables.node.addresses import shown

T = TypeVar("T")


def run_sweep(
    space: Space | str | Path,
    storage: str | Path = "outputs",
    *,
    executor: Literal["ray", "local"] = "ray",
    name: str | None = None,
    settings: Sequence[str] = (),
    small: bool = False,
    select_by: str | None = None,
    data: str | Sequence[str] | None = None,
    seed: int | None = None,
    stage: str | None = None,
    retry_failed: bool = False,
    device: str = "auto",
    pack_size: int | None = None,
    address: str | None = None,
    gpus_per_trial: float | None = None,
    cpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
    tracking_uri: str | None = None,
    experiment: str | None = None,
    cache_gb: float | None = None,
    spread_corpus: bool = False,
    lock: bool = True,
    progress: bool = False,
    probes: Sequence[str] = (),
    baseline: bool = True,
    report: bool = False,
    notify: str = "",
) -> Results:
    """Run every trial of a space that has no record yet, stage after stage, and return what is there then.

    The same call again goes on where the last one ended, also after it was interrupted or killed.

    Args:
        space: a `Space`, the path of a search-space file, or the name of a shipped one.
        storage: where results are kept: a folder or `s3://...`.
        executor: `ray`, or `local`: packs one after the other in this process, so that breakpoints work.
        name: of the sweep; None for the space's.
        settings: as after `--set`: `"FIELD=V[,V...]"`.
        small: the space's small form, on the sample world.
        select_by: metric that decides between stages.
        data: folders, or data by name: `fever`, `counterfact`, `sample`, `hub`.
        seed: of all trials.
        stage: only up to this stage.
        retry_failed: failed trials are run again.
        device: auto, cpu or cuda.
        pack_size: trials in a pack at most; None to choose.
        address: of the Ray cluster; None for RAY_ADDRESS or a Ray of its own.
        gpus_per_trial: GPUs of a pack, may be a fraction; None for one where there are any.
        cpus_per_trial: CPUs of a pack; None for 1 with Ray, and for torch's own number of threads in this process.
        max_concurrent: packs at once; None for as many as fit.
        tracking_uri: MLflow's address; None for MLFLOW_TRACKING_URI, else a SQLite file in the storage.
        experiment: MLflow experiment.
        cache_gb: limit of each node's cache of hidden states; None for half of the disk (`HiddenCache`).
        spread_corpus: have Ray Data tokenise and hash more than 10,000 documents on all nodes; the results are equal.
        lock: keep a second run of this name away; False for a storage that cannot, where you see to it yourself.
        progress: print what the command would print on the way.
        probes: what all trials are asked besides, as after `--probe`: `"fever:num_shots=5"`.
        baseline: with the pretrained models to compare with.
        report: write the report at the end; its sentences are in the results.
        notify: a command for the end, a new kind of failure and a choice, as after `--notify`.

    Raises:
        LockLost: another run has taken the sweep over, as this one had not been heard of for a minute.
        ConfigError: a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    options = RunOptions(
        executor=executor,
        stage=stage,
        retry_failed=retry_failed,
        device=device,
        pack_size=pack_size,
        address=address,
        gpus=gpus_per_trial,
        cpus=cpus_per_trial,
        max_concurrent=max_concurrent,
        tracking_uri=tracking_uri,
        experiment=experiment,
        cache_bytes=None if cache_gb is None else int(cache_gb * 1e9),
        spread_corpus=spread_corpus,
        lock=lock,
        report=report,
        notify=notify,
    )
    found = asked_space(
        space,
        settings=settings,
        small=small,
        select_by=select_by,
        data=data,
        seed=seed,
        probes=probes,
        baseline=baseline,
    )
    return run_space(found, SweepStorage(str(storage)), check_name(name or found.name), options, progress)


def run_space(space: Space, storage: SweepStorage, name: str, options: RunOptions, progress: bool) -> Results:
    """Run a space, as asked for, under a name; this process alone may work on it meanwhile.

    Raises:
        ConfigError: a mistake found before anything was started.
        DataError: data or a model file that is missing or broken.
    """
    tracking = resolve_tracking(storage, options.tracking_uri, options.experiment)
    storage.check_answers()
    with handled_signals() as interrupts, storage.lock(name, without=not options.lock):
        with Heartbeat(progress) as beat:
            run = SweepRun(space, storage, name, options, tracking, beat, interrupts)
            with run.told():
                return run.run()


def _reason(error: OSError | SweepError) -> str:
    """Return what ended a run after trials had run: then it is no mistake in the call, whatever its class.

    Raises:
        OSError: the error itself, if it is no failure of a disk, a storage or a network.
    """
    kind = failure_kind(error)
    if not isinstance(error, SweepError) and kind != "io":
        raise error
    return f"{kind}: {error}"


class _Nowhere(io.StringIO):
    """A stream for what nobody wants to see."""

    def write(self, text: str) -> int:
        return len(text)


class SweepRun:
    """One run of one sweep.

    Attributes:
        amends: whether the sweep's plan stays as it is, and what is done is added to it.
    """

    amends = False

    def __init__(
        self,
        space: Space | None,
        storage: SweepStorage,
        name: str,
        options: RunOptions,
        tracking: Tracking,
        beat: Heartbeat,
        interrupts: Interrupts,
    ) -> None:
        """Read what there is and plan."""
        self._storage, self._name, self._options, self._beat = storage, name, options, beat
        self._tracking = tracking
        self._interrupts = interrupts
        self._started = time.monotonic()
        self._notes: list[str] = []
        self._display: Display | None = None
        self._failures: list[str] = []
        self._num_ended = 0
        self._trouble = ""
        self._notifier = Notifier(options.notify, name, storage.full(name), self._say)
        beat.say(f"{name}: reading what is recorded and planning")
        self._index = storage.index()
        for line in (*self._index.warnings, *mend(storage, name, self._index)):
            self._say(f"note: {line}")
        self._choices: dict[str, Any] = read_sweep_file(storage, name, CHOICES) or {}
        self._space, self._commits = space, kept_commits(storage, name)
        self._plan = self._planned()

    def _planned(self, steering: Steering | None = None) -> Plan:
        options = self._options
        assert self._space is not None
        return plan_of(
            self._space,
            self._index,
            self._choices,
            self._storage,
            self._name,
            options.stage,
            options.retry_failed,
            self._commits,
            steering,
        )

    def _with_more_points(self, steering: Steering) -> Plan:
        """Plan the sweep with points that were added while it runs; what is new is checked as everything was before.

        Raises:
            ConfigError: values at odds with each other, the models or the data.
            DataError: data or a model file that is missing or broken.
        """
        plan = self._planned(steering)
        self._say_notes(check_added(self._plan, plan))
        if self._options.executor == "local":
            known = {card.key for card in models_to_run(self._plan)}
            download_models(card for card in models_to_run(plan) if card.is_hub and card.key not in known)
        keep_commits(plan, self._storage, self._name)
        self._plan = plan
        return plan

    def run(self) -> Results:
        """Do it."""
        if self._plan.num_left:
            # All that the end needs is imported at the start: sources may be updated while a long run goes on.
            import sweep.report.at_end  # noqa: F401

        options = self._options
        self._check_hub_models()
        plan = self._plan
        self._say(plan.space.title)
        failed = sum(stage.failed for stage in plan.stages)
        if failed:
            self._say(f"note: {failed} trials failed in an earlier run; {RETRY}")
        for line in plan.shortages:
            self._say(f"note: {line}")
        to_ask = f", {plan.num_to_ask} to ask" if plan.num_to_ask else ""
        self._say(f"{self._name}: {plan.num_to_run} trials to run{to_ask}, results in {self._storage.full(self._name)}")
        for why, count in plan.trained_again.items():
            self._say(f"note: {count} trials are trained again: {why}")
        for why, count in plan.blocked.items():
            self._say(f"note: {count} trials cannot start: {why}")
        self._say_notes(moved_notes(plan, self._commits, self._index))
        executor = executor_for(options) if plan.num_left or self._is_asked_for_more() else None
        if executor:
            executor.check()
        self._storage.check_writable()
        self._say_notes(keep_commits(plan, self._storage, self._name))
        if self._space is not None:
            keep_space(self._storage, self._name, self._space, options.stage)
        self._prepare_inputs()
        if executor:
            stopped, counts = self._execute(executor)
        elif self.amends:
            stopped, counts = "", self._counts_of_what_is_there()
        else:
            wanted = [MANIFEST, *([DRAWS] if any(stage.stage.sampling for stage in plan.stages) else [])]
            is_lost = not all(self._storage.exists(f"{self._name}/{file}") for file in wanted)
            if is_lost or len(self._choices) < len(plan.questions):
                self._ledger(Packing(lambda point: 1, 1), self._say)  # makes again what was lost of plan and choices
            stopped, counts = "", self._counts_of_what_is_there()
        return self._close(stopped, counts)

    def _is_asked_for_more(self) -> bool:
        """Whether somebody has asked for trials since the last run, so that there may be some though none is left."""
        waiting = waiting_wishes(
            self._storage, self._name, {w.id for w in read_steering(self._storage, self._name).wishes}
        )
        return not self.amends and any(wish.command not in WITHOUT_PLAN or wish.trial for wish in waiting)

    def _say(self, line: str) -> None:
        line = shown(line)
        self._notes.append(line)
        if self._display:
            self._display.say(line)
        else:
            self._beat.say(line)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Have the user's command run when the block ends, however it does."""
        try:
            yield
        except BaseException as error:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            self._notifier.tell(END, f"{self._name}: {shown(kind)}", status="error")
            raise
        finally:
            self._notifier.close()

    def _say_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(line)

    def _say_notes(self, notes: Iterable[str]) -> None:
        for note in notes:
            self._say(f"note: {note}")

    def _check_hub_models(self) -> None:
        """Plan again if the Hub tells a commit only now: it is part of what a trial is."""
        found = check_hub_models(self._plan)
        if found:
            self._commits |= found
            self._plan = self._planned()

    def _prepare_inputs(self) -> None:
        """Read data and check models now, so that a mistake in them is said before anything starts."""
        self._say("reading data and checking models")
        self._say_notes(read_data(points_to_run(self._plan)))
        samples = {p.card.name for s in self._plan.stages for p in s.left if p.card.is_sample}
        if samples:
            from trainables.lm.sample.models import ensure_sample_models

            ensure_sample_models(sorted(samples))
        self._say_notes(check_points(points_to_run(self._plan)))

    def _execute(self, executor: Executor) -> tuple[str, dict[str, int]]:
        """Run the trials; return why it stopped early, if it did, and the counts by status."""
        from sweep.tracking.live_feed import LiveFeed
        from sweep.tracking.naming import Naming

        self._say(self._options.starting)
        with executor.session(self._storage) as capacity:
            hub_models = [card for card in models_to_run(self._plan) if card.is_hub]
            executor.prepare(data_to_read(self._plan), hub_models)
            ledger = self._ledger(self._packing(capacity), self._say)
            naming = Naming.of(self._known_fields(ledger.models))
            feed = LiveFeed(self._storage, self._name, self._tracking, naming)
            progress = SweepProgress(self._name, self._plan, naming.of_record)
            progress.state.locked = self._options.lock
            stream = None if self._beat.shown else _Nowhere()
            self._display = display = Display(
                progress,
                stream,
                verbose=self._options.verbose,
                on_failure=lambda line: self._notifier.tell(FAILURE, f"{self._name}: {line}"),
                beat=self._beat,
            )
            wishes = Wishes(ledger, self._say, None if self.amends else self._with_more_points)
            exchange = PackExchange(ledger, feed, display, trunk_layers(self._plan), wishes)
            try:
                with (
                    display,
                    self._interrupts.graceful(ledger.note_stop, lambda: self._announce(ledger)),
                ):
                    executor.run(exchange)
            except KeyboardInterrupt:
                ledger.note_stop(INTERRUPTED)
            except (OSError, SweepError) as error:
                ledger.note_stop(_reason(error))
            else:
                early = ledger.steering.finishing
                if early and not ledger.stopping:
                    self._say_all(ledger.open_lines())
                    self._storing(wishes.end)
                    ledger.note_stop(f"finished early, as {early.by} asked")
            finally:
                self._display = None
                progress.phase(ledger.stopping and f"stopped: {ledger.stopping}" or "ended")
                self._storing(ledger.release_all)
                self._storing(ledger.write_manifest)
                self._storing(exchange.write_state)
                feed.close(timeout_s=10.0 if ledger.stopping else 60.0)
        self._num_ended = sum(progress.state.ended.values())
        self._storing(ledger.clear)
        self._failures = display.summary()
        for line in ledger.waiting_lines():
            self._say(line)
        return ledger.stopping or self._trouble, ledger.outcome()

    def _announce(self, ledger: Ledger) -> None:
        """Tell the workers and the user that the sweep is stopping."""
        self._say("stopping: running trials finish their epoch and keep a checkpoint (again to end at once)")
        ledger.announce_stop()

    def _storing(self, call: Callable[[], T]) -> T | None:
        """Write something at the end; a storage that fails then ends the run as it would have before."""
        try:
            return call()
        except (OSError, SweepError) as error:
            self._trouble = self._trouble or _reason(error)
            return None

    def _ledger(self, packing: Packing, say: Callable[[str], None]) -> Ledger:
        return Ledger(
            self._plan,
            self._storage,
            self._name,
            self._index,
            self._choices,
            packing,
            self._options.retry_failed,
            say,
            self.amends,
            read_steering(self._storage, self._name),
            lambda line: self._notifier.tell(CHOICE, f"{self._name}: {line}"),
        )

    def _packing(self, capacity: Capacity) -> Packing:
        size = self._options.pack_size
        if size is not None:
            return Packing(lambda point: size, capacity.slots)
        memory = capacity.pack_memory_bytes()
        return Packing(lambda point: auto_pack_size(point, memory, capacity.on_gpu), capacity.slots)

    def _known_fields(self, models: ModelNames) -> list[dict[str, Any]]:
        points = [point for stage in self._plan.stages for point in stage.points]
        return [
            {**vars(p.spec), "model": models.named(p.card).name, START: p.start.spec.stage if p.start else None}
            for p in points
        ]

    def _counts_of_what_is_there(self) -> dict[str, int]:
        """Count the recorded trials by status."""
        drawn = dict(manifest_stages(self._storage, self._name))
        ids: set[str] = set()
        for stage in self._plan.stages:
            ids |= set(drawn.get(stage.name, ())) if stage.stage.sampling else {point.id for point in stage.points}
        found = Counter(self._index[trial].status for trial in ids if trial in self._index)
        found["missing"] = sum(self._plan.blocked.values())
        return {status: found[status] for status in ("done", "stopped", "diverged", "failed", "missing")}

    def _close(self, stopped: str, counts: dict[str, int]) -> Results:
        """Write the table and the report, bring MLflow up to date, unless all that is there as the last run left it."""
        report, report_trouble, trouble = None, "", ""
        files = (RESULTS, *((f"{REPORT_FOLDER}/{PAGE_FILE}",) if self._options.report else ()))
        made = Made(self._storage, self._name, self._index, self._tracking, files)
        if not (self._plan.num_left or self._num_ended) and made.is_there():
            report = kept_report(self._storage, self._name) if self._options.report else None
        else:
            report, report_trouble, trouble = self._make_all(stopped)
            if not (stopped or self._trouble or report_trouble or trouble):
                self._storing(made.note)
        stopped = stopped or self._trouble
        code = EXIT_FAILED if stopped or counts["missing"] or counts["failed"] else 0
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        ended = f"{told}; {stopped}" if stopped else told
        self._notifier.tell(
            END, f"{self._name}: {ended}", status="stopped" if stopped else "ok" if not code else "failed"
        )
        full = self._storage.full
        return Results(
            name=self._name,
            exit_code=EXIT_INTERRUPTED if stopped == INTERRUPTED else code,
            counts=counts,
            num_run=self._plan.num_to_run or (0 if self._plan.num_to_ask else self._num_ended),
            num_asked=self._plan.num_to_ask,
            stopped=stopped,
            choices=self._choices,
            failures=tuple(self._failures),
            notes=tuple(self._notes),
            paths={
                "folder": full(self._name),
                "results": full(f"{self._name}/{RESULTS}"),
                "plan": full(f"{self._name}/plan.json"),
                "choices": full(f"{self._name}/choices.json"),
                **({"report": report.page} if report else {}),
            },
            tracking_uri=self._tracking.uri,
            tracking_trouble=trouble,
            on_sample_world=any(point.card.is_sample for stage in self._plan.stages for point in stage.points),
            seconds=time.monotonic() - self._started,
            storage=self._storage,
            conclusions=report.conclusions if report else {},
            report_trouble=report_trouble,
        )

    def _make_all(self, stopped: str) -> tuple[SweepReport | None, str, str]:
        """Make what is made from records; return the report, why there is none, and what MLflow lacks."""
        from sweep.records.table import write_results
        from sweep.report.findings import publish
        from sweep.tracking.client import TrackingError

        if self._plan.num_left or self._num_ended:
            self._say("writing the results table")
        self._storing(lambda: write_results(self._storage, self._name, self._index))
        report, report_trouble = self._report(stopped)
        if self._plan.num_left or self._num_ended:
            self._say("bringing MLflow up to date")
        try:
            publish(self._storage, [self._name], self._tracking, index=self._index)
        except TrackingError as error:
            return report, report_trouble, str(error)
        return report, report_trouble, ""

    def _report(self, stopped: str) -> tuple[SweepReport | None, str]:
        """Write the report, if it is asked for, before MLflow gets it; or say why there is none."""
        if not self._options.report or not self._index:
            return None, ""
        if stopped == INTERRUPTED:
            return None, "the run was interrupted"
        from sweep.report.at_end import report_of_sweep

        try:
            with self._interrupts.skippable():
                return report_of_sweep(self._storage, self._name, self._index, self._say), ""
        except KeyboardInterrupt:
            return None, "it was interrupted"
        except Exception as error:  # the trials have run: whatever is wrong with the report, the run ends as it would
            return None, f"{type(error).__name__}: {error}"
