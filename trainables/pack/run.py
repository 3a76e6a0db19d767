"""The life of a pack: K trials that share adapter, model, texts and schedule, each from first epoch to result."""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trainables.adapters.adapter import Adapter, MemberState, PackTexts
from trainables.adapters.registry import adapter_plan
from trainables.errors import ConfigError, DataError
from trainables.lm.segment_texts import target_count
from trainables.node.addresses import shown
from trainables.node.patience import patiently
from trainables.node.storage import read_bytes
from trainables.pack.checkpoint import BadCheckpoint, Checkpoint, write_checkpoint
from trainables.pack.metric_log import MetricLog
from trainables.pack.pack_questions import PackQuestions
from trainables.pack.process_cache import ProcessCache
from trainables.pack.result import TrialResult, write_member_files
from trainables.trial.task import TrialTask

EPOCHS = "epochs"
"""Folder of the weights after epochs before the last, beside a training's record: `epochs/5/memory.safetensors`."""


class UnfitCheckpoint(BadCheckpoint):
    """A whole checkpoint that does not fit its trial: tensors of other names, types or shapes."""

    def __init__(self, trial: str, message: str) -> None:
        """Keep whose it is."""
        super().__init__(message)
        self.trial = trial


class PackRun:
    """Trains and evaluates the members of one pack, an epoch at a time, whatever their adapter.

    A member is over when it has done its epochs or has diverged. `finish` gives its result, whether the others are
    over or not; a pack that goes on is made anew without it (`states`).

    Args:
        tasks: the members; at epochs of their own only where the adapter can give each its own texts.
        cache: what the process keeps.
        trunk_layers: layers of the same model that other packs will want; their hidden states are made along.
        checkpoints: each member's checkpoint, or None to start from scratch.

    Attributes:
        adapter: what is trained.
        log: metrics so far.
        epochs: epochs that each member has done.
        finished: members whose results have been given.
        last_checkpoint: when checkpoints were last written, on the monotonic clock.

    Raises:
        ConfigError: there is nothing to train on.
        DataError: weights to start from that are missing or broken.
        UnfitCheckpoint: a checkpoint is not of a trial of this shape.
    """

    def __init__(
        self,
        tasks: Sequence[TrialTask],
        cache: ProcessCache,
        trunk_layers: Sequence[int],
        checkpoints: Sequence[Checkpoint | None],
    ) -> None:
        """Load what is shared, build the adapter, and go on from the checkpoints."""
        self.tasks, self._cache = list(tasks), cache
        self._spec = tasks[0].spec
        self.log = MetricLog([task.id for task in tasks])
        plans = [adapter_plan(vars(task.spec)) for task in tasks]
        self._trains, self._has_error = plans[0].trains, plans[0].has_error
        self._questions = PackQuestions(tasks, self._spec)
        self._texts = cache.texts(self._spec, self._questions.plans)
        if self._trains and not self._texts.train:
            raise ConfigError(f"content={self._spec.content}: the chosen pages have no text of this kind to train on")
        shared = PackTexts(
            self._texts.train,
            self._texts.segments,
            len(self._texts.documents),
            self._questions.prompts(self._texts),
            tuple(trunk_layers),
            self._titles,
        )
        self.adapter: Adapter[Any] = plans[0].load()(plans, cache.parts(self._spec), shared)
        self._work = [plan.train_token_flops(self.adapter.parts.card) for plan in plans]
        self.epochs, self.finished = [0] * len(tasks), set[int]()
        for k, found in enumerate(checkpoints):
            if found is None:
                self._start(k)
                continue
            self.epochs[k] = found.epoch
            try:
                self.adapter.load_state(k, MemberState(found.weights, found.optimiser))
            except DataError as error:
                raise UnfitCheckpoint(tasks[k].id, f"{shown(tasks[k].checkpoint)}: not used ({error})") from None
            self.log.load_state(k, found.notes)
            self.adapter.active[k] = self.log.diverged_at[k] is None
        self._eval_epochs = [
            self._questions.epochs(k).union(task.spec.eval_epochs) for k, task in enumerate(self.tasks)
        ]
        self.last_checkpoint = time.monotonic()

    def _start(self, member: int) -> None:
        """Let a member that begins take over the weights of an earlier training, if it is to."""
        task, files = self.tasks[member], {}
        if task.spec.start_from is not None and not task.start:
            raise DataError(f"start_from={task.spec.start_from}: its weights were not handed in")
        for path in task.start:
            try:
                files[path.rpartition("/")[2]] = patiently(read_bytes, path)
            except FileNotFoundError:
                raise DataError(
                    f"{shown(path)}: missing; what trial {task.id} starts from has to be trained again"
                ) from None
        if files:
            try:
                self.adapter.start(member, files)
            except DataError as error:
                raise DataError(f"{shown(task.start[0])}: {error}") from None

    @property
    def done(self) -> bool:
        """Whether all members are over and no epoch is left to train."""
        return not self._going_on

    @property
    def epoch(self) -> int:
        """Epochs that the furthest member has done."""
        return max(self.epochs)

    @property
    def _going_on(self) -> list[int]:
        """The members that are not over."""
        return [k for k, epoch in enumerate(self.epochs) if self._trains and self._has_more(k, epoch)]

    def _has_more(self, member: int, epoch: int) -> bool:
        return epoch < self._spec.epochs and self.adapter.active[member]

    def step(self) -> dict[str, dict[str, float]]:
        """Train one epoch of every member that is not over, evaluate where asked, write checkpoints when due.

        Returns:
            Trial id -> the epoch's metrics.
        """
        members = self._going_on
        if begun := [k for k in members if self.epochs[k] == 0]:
            self._measure_untrained(begun)
            self._evaluate([k for k in begun if 0 in self._eval_epochs[k]])
        start = time.perf_counter()
        epochs = {self.epochs[k] for k in members}
        means = self.adapter.train_epoch(*epochs) if len(epochs) == 1 else self.adapter.train_epochs(self.epochs)
        self.log.spend(members, {"train_s": time.perf_counter() - start}, self._work)
        for k in members:
            self.epochs[k] += 1
            if not self.adapter.active[k]:
                self.log.diverged_at[k] = self.epochs[k]
            self.log.add(k, self.epochs[k], means[k])
        left = self._going_on
        self._evaluate([k for k in left if self.epochs[k] in self._eval_epochs[k]])
        self.log.spend(members, self._cache.take_timings())
        if left and time.monotonic() - self.last_checkpoint >= self._spec.checkpoint_every_s:
            self.checkpoint()
        return self.log.progress(members)

    @property
    def unfinished(self) -> list[TrialTask]:
        """The members whose results have not been given."""
        return [task for k, task in enumerate(self.tasks) if k not in self.finished]

    @property
    def reached(self) -> dict[str, int]:
        """Trial id -> epochs that it has done."""
        return {task.id: epoch for task, epoch in zip(self.tasks, self.epochs, strict=True)}

    def earlier_curves(self) -> dict[str, dict[str, list[list[float]]]]:
        """Return trial id -> name -> points in training so far, of members that have trained before."""
        return {
            task.id: {name: list(curve) for name, curve in self.log.curves[k].items() if name.startswith("train/")}
            for k, task in enumerate(self.tasks)
            if self.epochs[k]
        }

    def checkpoint(self, without: Collection[str] = ()) -> None:
        """Write every member's checkpoint; there is none before its first epoch, nor once its result is given.

        Args:
            without: ids of trials that are to keep none.
        """
        for k, task in enumerate(self.tasks):
            if self.epochs[k] and k not in self.finished and task.id not in without:
                write_checkpoint(task.checkpoint, self._state(k), task.id)
        self.last_checkpoint = time.monotonic()

    def states(self, members: Sequence[int]) -> dict[str, Checkpoint]:
        """Return where some members stand, by trial id, in memory: a run that begins from it goes on as this one."""
        return {self.tasks[k].id: self._state(k) for k in members}

    def _state(self, member: int) -> Checkpoint:
        state = self.adapter.state(member)
        return Checkpoint(self.epochs[member], dict(state.weights), dict(state.optimiser), self.log.state(member))

    def finish(self) -> list[TrialResult]:
        """Evaluate the members that are over, write their files and return the results, each once."""
        going_on = self._going_on
        members = [k for k in range(len(self.tasks)) if k not in self.finished and k not in going_on]
        if not members:
            return []
        self._evaluate(members, at_end=True)
        written = {}
        for k in members:
            files = self.log.files[k] | (self.adapter.stored(k) if self._is_kept(k) else {})
            written[k] = self.log.kept[k] | write_member_files(self.tasks[k].folder, files)
        self.log.spend(members, {"train_s": 0.0, **self._cache.take_timings()})
        counts = self._texts.counts | self.adapter.counts()
        results = []
        for k in members:
            flops = self._flops(k)
            self.log.metrics[k] |= {"train/params": float(self.adapter.trained_params(k)), "train/flops": flops}
            result = self.log.result(k, counts, flops)
            told = self._questions.told(k, self._texts, result.timings.get("evaluate_s", 0.0))
            results.append(replace(result, files=written[k], askings=told))
            self.adapter.active[k] = False
        self.finished |= {*members}
        return results

    def so_far(self, trials: Collection[str]) -> list[TrialResult]:
        """Return what some members that are stopped have come to; one that has diverged says so."""
        found = []
        for k, task in enumerate(self.tasks):
            if task.id in trials and k not in self.finished:
                result = self.log.result(k, self._texts.counts, self._flops(k))
                status = "stopped" if result.status == "done" else result.status
                found.append(replace(result, status=status, files=self.log.kept[k]))
        return found

    def _flops(self, member: int) -> float:
        """Return the FLOPs of a member's training so far."""
        return self.adapter.train_flops(self.epochs[member], member)

    def _is_kept(self, member: int) -> bool:
        return self.tasks[member].spec.keep_memory and self.log.diverged_at[member] is None

    def _keep_epoch(self, members: Sequence[int]) -> None:
        """Store some members' weights as they are after this epoch, so that they can be asked later."""
        for k in members:
            if self._is_kept(k) and self.tasks[k].spec.keep_epochs:
                place = f"{EPOCHS}/{self.epochs[k]}"
                files = {f"{place}/{name}": content for name, content in self.adapter.stored(k).items()}
                self.log.kept[k] |= write_member_files(self.tasks[k].folder, files)

    def _titles(self) -> list[str]:
        return [document.title for document in self._texts.documents]

    def _nll(self, members: Sequence[int]) -> Mapping[int, float]:
        """Return the memorisation error of some members."""
        return dict(zip(members, self.adapter.some(members).nll(self._texts.segments), strict=True))

    def _measure_untrained(self, members: Sequence[int]) -> None:
        """Evaluate the memorisation error with what is added to the model and not trained yet.

        Where nothing is added, that is the model's own, which is known. Members that begin alike share one measure,
        those of packs that this process has run before among them.
        """
        if not self.adapter.plans[0].added_params(self.adapter.parts.card):
            return
        alike = {k: None if self.tasks[k].start else self.adapter.plans[k].begins_as for k in members}
        known = self.adapter.parts.keep("untrained errors", None, dict[Hashable, float])
        new = {begins: k for k, begins in alike.items() if begins is not None and begins not in known}
        measured = sorted({*new.values(), *(k for k in members if alike[k] is None)})
        with self._cache.timing("measure_s"):
            found = self._nll(measured) if measured else {}
        known |= {begins: found[k] for begins, k in new.items()}
        for k in members:
            self.log.add(k, 0, {"memory/nll_untrained": found[k] if alike[k] is None else known[alike[k]]})

    def _evaluate(self, members: Sequence[int], at_end: bool = False) -> None:
        """Evaluate some members' memorisation error and what else there is, ask the probes, and keep the weights."""
        if not members:
            return
        with self._cache.timing("measure_s"):
            errors = self._nll(members) if self._has_error else {}
            per_byte = target_count(self._texts.segments) / max(1, self._texts.num_bytes) if errors else 0.0
            for k, nll in errors.items():
                self.log.metrics[k]["memory/nll_before"] = self.adapter.nll_before
                self.log.add(k, self.epochs[k], {"memory/nll": nll, "memory/nll_per_byte": nll * per_byte})
            with self.adapter.asking(members):
                findings = self.adapter.findings()
            for k in members:
                found = findings[k]
                self.log.add(k, self.epochs[k], found.metrics)
                if found.analysis is not None:
                    self.log.add_json(k, "analysis.json", {"titles": self._titles(), **found.analysis})
                self.log.files[k].update(found.files)
        with self._cache.timing("evaluate_s"):
            epochs = {k: self.epochs[k] for k in members}
            self._questions.ask(self.adapter, self._texts, self.log, epochs, at_end)
        if not at_end:
            self._keep_epoch(members)
