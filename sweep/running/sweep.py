"""One run of a sweep, from its plan to its results."""

from __future__ import annotations

import io
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from sweep.cli.heartbeat import Heartbeat
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
from sweep.planning.packs import STATES_BYTES, auto_pack_sizes
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
from sweep.records.sweep_storage import SweepStorage
from sweep.running.closing import Closing, Ended, why_ended
from sweep.running.display import Display
from sweep.running.exchange import PackExchange, trunk_layers
from sweep.running.executor import Capacity, Executor
from sweep.running.interrupts import INTERRUPTED, Interrupts
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.running.progress import SweepProgress
from sweep.running.results import Results
from sweep.running.run_options import RunOptions, executor_for
from sweep.running.voice import Voice
from sweep.running.wishes import WITHOUT_PLAN, Wishes
from sweep.space import Space
from sweep.tracking.address import Tracking
from trainables.errors import SweepError


class _Nowhere(io.StringIO):
    """A stream for what nobody wants to see."""

    def write(self, text: str) -> int:
        return len(text)


class SweepRun:
    """One run of one sweep.

    Attributes:
        voice: tells people how it goes.
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
        self._tracking, self._interrupts = tracking, interrupts
        started = time.monotonic()
        self.voice = Voice(name, beat, options.notify, storage.full(name))
        beat.say(f"{name}: reading what is recorded and planning")
        self._index = storage.index()
        self.voice.say_notes((*self._index.warnings, *mend(storage, name, self._index)))
        self._closing = Closing(storage, name, self._index, options, tracking, interrupts, self.voice, started)
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
        self.voice.say_notes(check_added(self._plan, plan))
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

        options, say = self._options, self.voice.say
        self._check_hub_models()
        plan = self._plan
        say(plan.space.title)
        failed = sum(stage.failed for stage in plan.stages)
        if failed:
            say(f"note: {failed} trials failed in an earlier run; {RETRY}")
        self.voice.say_notes(plan.shortages)
        to_ask = f", {plan.num_to_ask} to ask" if plan.num_to_ask else ""
        say(f"{self._name}: {plan.num_to_run} trials to run{to_ask}, results in {self._storage.full(self._name)}")
        for why, count in plan.trained_again.items():
            say(f"note: {count} trials are trained again: {why}")
        for why, count in plan.blocked.items():
            say(f"note: {count} trials cannot start: {why}")
        self.voice.say_notes(moved_notes(plan, self._commits, self._index))
        executor = executor_for(options) if plan.num_left or self._is_asked_for_more() else None
        if executor:
            executor.check()
        self._storage.check_writable()
        self.voice.say_notes(keep_commits(plan, self._storage, self._name))
        if self._space is not None:
            keep_space(self._storage, self._name, self._space, options.stage)
        self._prepare_inputs()
        with self._closing:
            return self._closing.close(self._plan, self._choices, self._ended(executor))

    def _ended(self, executor: Executor | None) -> Ended:
        """Run what is to be run and return what it came to, together with what is there already."""
        if executor:
            return self._execute(executor)
        if not self.amends:
            wanted = [MANIFEST, *([DRAWS] if any(stage.stage.sampling for stage in self._plan.stages) else [])]
            is_lost = not all(self._storage.exists(f"{self._name}/{file}") for file in wanted)
            if is_lost or len(self._choices) < len(self._plan.questions):
                self._ledger(Packing(lambda point: 1, 1))  # makes again what was lost of plan and choices
        return Ended(self._counts_of_what_is_there())

    def _is_asked_for_more(self) -> bool:
        """Whether somebody has asked for trials since the last run, so that there may be some though none is left."""
        waiting = waiting_wishes(
            self._storage, self._name, {w.id for w in read_steering(self._storage, self._name).wishes}
        )
        return not self.amends and any(wish.command not in WITHOUT_PLAN or wish.trial for wish in waiting)

    def _check_hub_models(self) -> None:
        """Plan again if the Hub tells a commit only now: it is part of what a trial is."""
        found = check_hub_models(self._plan)
        if found:
            self._commits |= found
            self._plan = self._planned()

    def _prepare_inputs(self) -> None:
        """Read data and check models now, so that a mistake in them is said before anything starts."""
        self.voice.say("reading data and checking models")
        self.voice.say_notes(read_data(points_to_run(self._plan)))
        samples = {p.card.name for s in self._plan.stages for p in s.left if p.card.is_sample}
        if samples:
            from trainables.lm.sample.models import ensure_sample_models

            ensure_sample_models(sorted(samples))
        self.voice.say_notes(check_points(points_to_run(self._plan)))

    def _execute(self, executor: Executor) -> Ended:
        """Run the trials and return what they came to."""
        from sweep.tracking.live_feed import LiveFeed
        from sweep.tracking.run_names import Naming

        storing = self._closing.storing
        self._closing.expect_report()
        self.voice.say(self._options.starting)
        with ExitStack() as session:
            capacity = session.enter_context(executor.session(self._storage))
            hub_models = [card for card in models_to_run(self._plan) if card.is_hub]
            executor.prepare(data_to_read(self._plan), hub_models)
            ledger = self._ledger(self._packing(capacity))
            naming = Naming.of(self._known_fields(ledger.models))
            feed = LiveFeed(self._storage, self._name, self._tracking, naming)
            progress = SweepProgress(self._name, self._plan, naming.of_record)
            progress.state.locked = self._options.lock
            stream = None if self._beat.shown else _Nowhere()
            self.voice.display = display = Display(
                progress,
                stream,
                verbose=self._options.verbose,
                on_failure=self.voice.tell_failure,
                beat=self._beat,
            )
            wishes = Wishes(ledger, self.voice.say, None if self.amends else self._with_more_points)
            exchange = PackExchange(ledger, feed, display, trunk_layers(self._plan), wishes)
            try:
                with (
                    display,
                    self._interrupts.graceful(ledger.stop_file.note, lambda: self._announce(ledger)),
                ):
                    executor.run(exchange)
            except KeyboardInterrupt:
                ledger.stop_file.note(INTERRUPTED)
            except (OSError, SweepError) as error:
                ledger.stop_file.note(why_ended(error))
            else:
                early = ledger.steering.finishing
                if early and not ledger.stopping:
                    self.voice.say_all(ledger.backlog.choosing.open_lines())
                    storing(wishes.end)
                    ledger.stop_file.note(f"finished early, as {early.by} asked")
            finally:
                self.voice.display = None
                progress.phase(ledger.stopping and f"stopped: {ledger.stopping}" or "ended")
                storing(ledger.release_all)
                storing(ledger.backlog.stages.write)
                storing(exchange.write_state)
                feed.close(timeout_s=10.0 if ledger.stopping else 60.0)
            if executor.ends_beside and not ledger.stopping:  # no pack is under way
                self._closing.end_beside(session.pop_all().close)
        storing(ledger.clear)
        failures = display.summary()
        self.voice.say_all(ledger.waiting_lines())
        return Ended(
            ledger.outcome(), ledger.stopping or self._closing.trouble, sum(progress.state.ended.values()), failures
        )

    def _announce(self, ledger: Ledger) -> None:
        """Tell the workers and the user that the sweep is stopping."""
        self.voice.say("stopping: running trials finish their epoch and keep a checkpoint (again to end at once)")
        ledger.stop_file.announce()

    def _ledger(self, packing: Packing) -> Ledger:
        return Ledger(
            self._plan,
            self._storage,
            self._name,
            self._index,
            self._choices,
            packing,
            self._options.retry_failed,
            self.voice.say,
            self.amends,
            read_steering(self._storage, self._name),
            self.voice.tell_choice,
        )

    def _packing(self, capacity: Capacity) -> Packing:
        size, cache = self._options.pack_size, self._options.cache_bytes
        states = STATES_BYTES if cache is None else min(STATES_BYTES, cache / 2)  # beside those of other packs
        if size is not None:
            return Packing(lambda point: size, capacity.slots, states)
        memory = capacity.pack_memory_bytes()
        return Packing(auto_pack_sizes(memory, capacity.on_gpu), capacity.slots, states)

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
