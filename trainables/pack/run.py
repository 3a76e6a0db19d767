"""The life of a pack: K trials that share adapter, model, texts and schedule, from first epoch to results."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
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
from trainables.pack.process_cache import ProcessCache
from trainables.pack.questions import PackQuestions
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

    Args:
        tasks: the members; all have done the same number of epochs.
        cache: what the process keeps.
        trunk_layers: layers of the same model that other packs will want; their hidden states are made along.
        checkpoints: each member's checkpoint, or None to start from scratch.

    Attributes:
        adapter: what is trained.
        log: metrics so far.
        epoch: epochs done.

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
        self.epoch = 0
        for k, found in enumerate(checkpoints):
            if found is None:
                self._start(k)
                continue
            self.epoch = found.epoch
            try:
                self.adapter.load_state(k, MemberState(found.weights, found.optimiser))
            except DataError as error:
                raise UnfitCheckpoint(tasks[k].id, f"{shown(tasks[k].checkpoint)}: not used ({error})") from None
            self.log.load_state(k, found.notes)
            self.adapter.active[k] = self.log.diverged_at[k] is None
        self._eval_epochs = self._questions.epochs.union(*(task.spec.eval_epochs for task in tasks))
        self._last_checkpoint = time.monotonic()
        self._train_s = 0.0

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
        """Whether training is over and `finish` is due."""
        return not self._trains or self.epoch >= self._spec.epochs or not any(self.adapter.active)

    def step(self) -> dict[str, dict[str, float]]:
        """Train one epoch, evaluate where asked, write checkpoints when due.

        Returns:
            Trial id -> the epoch's metrics.
        """
        if self.epoch == 0:
            self._measure_untrained()
            if 0 in self._eval_epochs:
                self._evaluate()
        start = time.perf_counter()
        means = self.adapter.train_epoch(self.epoch)
        self.epoch += 1
        self._train_s += time.perf_counter() - start
        for k, found in enumerate(means):
            if not self.adapter.active[k] and self.log.diverged_at[k] is None:
                self.log.diverged_at[k] = self.epoch
            self.log.add(k, self.epoch, found)
        if self.epoch in self._eval_epochs and not self.done:
            self._evaluate()
        if not self.done and time.monotonic() - self._last_checkpoint >= self._spec.checkpoint_every_s:
            self.checkpoint()
        return self.log.progress()

    def checkpoint(self) -> None:
        """Write every member's checkpoint; there is none before the first epoch."""
        if self.epoch == 0:
            return
        for k, task in enumerate(self.tasks):
            state = self.adapter.state(k)
            found = Checkpoint(self.epoch, dict(state.weights), dict(state.optimiser), self.log.state(k))
            write_checkpoint(task.checkpoint, found, task.id)
        self._last_checkpoint = time.monotonic()

    def finish(self) -> list[TrialResult]:
        """Evaluate, write each member's files and return the results."""
        self._evaluate(at_end=True)
        written = []
        for k, task in enumerate(self.tasks):
            files = self.log.files[k] | (self.adapter.stored(k) if self._is_kept(k) else {})
            written.append(self.log.kept[k] | write_member_files(task.folder, files))
        timings = self._cache.take_timings() | {"train_s": self._train_s}
        counts = self._texts.counts | self.adapter.counts()
        flops = self._flops()
        for k, metrics in enumerate(self.log.metrics):
            metrics |= {"train/params": float(self.adapter.trained_params(k)), "train/flops": flops[k]}
        results = self.log.results(counts, timings, flops)
        asked_s = timings.get("evaluate_s", 0.0)
        told = [self._questions.told(k, self._texts, asked_s) for k in range(len(self.tasks))]
        return [
            replace(result, files=files, askings=askings)
            for result, files, askings in zip(results, written, told, strict=True)
        ]

    def so_far(self, trials: Collection[str]) -> list[TrialResult]:
        """Return what some members that are stopped have come to; one that has diverged says so."""
        if not trials:
            return []
        found = self.log.results(self._texts.counts, {"train_s": self._train_s}, self._flops())
        ended = [replace(result, status="stopped") if result.status == "done" else result for result in found]
        return [replace(result, files=self.log.kept[k]) for k, result in enumerate(ended) if self.tasks[k].id in trials]

    def _flops(self) -> list[float]:
        """Return the FLOPs of each member's training so far."""
        return [self.adapter.train_flops(self.epoch, k) for k in range(len(self.tasks))]

    def _is_kept(self, member: int) -> bool:
        return self.tasks[member].spec.keep_memory and self.log.diverged_at[member] is None

    def _keep_epoch(self) -> None:
        """Store the members' weights as they are after this epoch, so that they can be asked later."""
        for k, task in enumerate(self.tasks):
            if self._is_kept(k) and task.spec.keep_epochs:
                files = {f"{EPOCHS}/{self.epoch}/{name}": content for name, content in self.adapter.stored(k).items()}
                self.log.kept[k] |= write_member_files(task.folder, files)

    def _titles(self) -> list[str]:
        return [document.title for document in self._texts.documents]

    def _measure_untrained(self) -> None:
        """Evaluate the memorisation error with what is added to the model and not trained yet.

        Where nothing is added, that is the model's own, which is known.
        """
        if not self.adapter.plans[0].added_params(self.adapter.parts.card):
            return
        with self._cache.timing("measure_s"):
            for k, nll in enumerate(self.adapter.nll(self._texts.segments)):
                self.log.add(k, 0, {"memory/nll_untrained": nll})

    def _evaluate(self, at_end: bool = False) -> None:
        """Evaluate the memorisation error and what else the adapter finds, ask the probes, and keep the weights."""
        with self._cache.timing("measure_s"):
            errors = self.adapter.nll(self._texts.segments) if self._has_error else []
            per_byte = target_count(self._texts.segments) / max(1, self._texts.num_bytes) if errors else 0.0
            for k, nll in enumerate(errors):
                self.log.metrics[k]["memory/nll_before"] = self.adapter.nll_before
                self.log.add(k, self.epoch, {"memory/nll": nll, "memory/nll_per_byte": nll * per_byte})
            for k, found in enumerate(self.adapter.findings()):
                self.log.add(k, self.epoch, found.metrics)
                if found.analysis is not None:
                    self.log.add_json(k, "analysis.json", {"titles": self._titles(), **found.analysis})
                self.log.files[k].update(found.files)
        with self._cache.timing("evaluate_s"):
            self._questions.ask(self.adapter, self._texts, self.log, self.epoch, at_end)
        if not at_end:
            self._keep_epoch()
