"""Askings alone: K finished trainings of one shape put into one adapter and asked, nothing trained."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainables.adapters.adapter import Adapter, PackTexts
from trainables.adapters.registry import adapter_plan
from trainables.errors import DataError
from trainables.node.addresses import shown
from trainables.node.patience import patiently
from trainables.node.storage import join, read_bytes
from trainables.pack.metric_log import MetricLog
from trainables.pack.pack_questions import PackQuestions
from trainables.pack.process_cache import ProcessCache
from trainables.pack.result import TrialResult, write_member_files
from trainables.pack.run import EPOCHS
from trainables.trial.fields import Part
from trainables.trial.parts import fields_of, with_only
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask

SHARED = ("method", *fields_of(Part.MODEL | Part.CORPUS | Part.PAGES | Part.SEGMENTS), "micro_batch_tokens")
"""Fields on which the texts of trainings depend when they are only asked: not on how they were trained."""


def asked_spec(spec: TrialSpec) -> TrialSpec:
    """Return a trial as far as being asked goes; trials that are asked together agree in it."""
    return with_only(SHARED, spec)


class AskRun:
    """Loads the weights of some trainings and asks them, after the epochs that were kept and at the end.

    It has the face of a `PackRun` that has nothing to train.

    Args:
        tasks: the members: of one adapter, block and shape.
        cache: what the process keeps.

    Attributes:
        adapter: the members.
        tasks, unfinished: the members; they end together.
        epoch: as a run has it; here nothing ever runs.
        done: always.

    Raises:
        DataError: weights that are missing or broken, by name.
    """

    done = True

    def __init__(self, tasks: Sequence[TrialTask], cache: ProcessCache) -> None:
        """Load what is shared and build the adapter."""
        self.tasks, self._cache, self.epoch = list(tasks), cache, 0
        self.unfinished = self.tasks
        spec = asked_spec(tasks[0].spec)
        self._questions = PackQuestions(tasks, spec)
        self._texts = cache.texts(spec, self._questions.plans)
        self._log = MetricLog([task.id for task in tasks])
        prompts = self._questions.prompts(self._texts)
        shared = PackTexts(self._texts.segments, self._texts.segments, len(self._texts.documents), prompts)
        plans = [adapter_plan(vars(task.spec)) for task in tasks]
        self._epochs = tasks[0].spec.epochs if plans[0].trains else 0
        self.adapter: Adapter[Any] = plans[0].load()(plans, cache.parts(spec), shared)
        self._names = [list(self.adapter.stored(k)) for k in range(len(tasks))]

    def checkpoint(self, without: Collection[str] = ()) -> None:
        """Write nothing: asking starts over."""

    def finish(self) -> list[TrialResult]:
        """Ask, write the answers and return what came of it."""
        for epoch in sorted(frozenset().union(*map(self._questions.epochs, range(len(self.tasks))))):
            for k, task in enumerate(self.tasks):
                if any(epoch in asking.epochs for asking in task.asked):
                    self._load(k, f"{EPOCHS}/{epoch}/")
            self._ask(epoch)
        for k in range(len(self.tasks)):
            self._load(k, "")
        self._ask(None)
        timings = self._cache.take_timings()
        return [self._result(k, timings) for k in range(len(self.tasks))]

    def _load(self, member: int, place: str) -> None:
        files = {}
        for name in self._names[member]:
            path = join(self.tasks[member].folder, f"{place}{name}")
            try:
                files[name] = patiently(read_bytes, path)
            except FileNotFoundError:
                raise DataError(f"{shown(path)}: missing; the trial would have to be trained again") from None
        if files:
            try:
                self.adapter.load_stored(member, files)
            except DataError as error:
                where = shown(join(self.tasks[member].folder, place))
                raise DataError(f"{where}: {error}") from None

    def _ask(self, epoch: int | None) -> None:
        """Ask after an epoch; None for the end."""
        with self._cache.timing("evaluate_s"):
            at = dict.fromkeys(range(len(self.tasks)), self._epochs if epoch is None else epoch)
            self._questions.ask(self.adapter, self._texts, self._log, at, at_end=epoch is None)

    def _result(self, member: int, timings: Mapping[str, float]) -> TrialResult:
        size = len(self.tasks)
        return TrialResult(
            id=self.tasks[member].id,
            status="done",
            metrics=self._log.metrics[member],
            curves=self._log.curves[member],
            timings={name: seconds / size for name, seconds in timings.items()} | {"pack_size": size},
            host=socket.gethostname(),
            files=write_member_files(self.tasks[member].folder, self._log.files[member]),
            askings=self._questions.told(member, self._texts, timings.get("evaluate_s", 0.0) / size),
        )
