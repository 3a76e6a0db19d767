"""What is asked of the members of a pack: each question put at once to all that want to know."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from trainables.adapters.adapter import Adapter
from trainables.lm.token_tree import TokenTree
from trainables.pack.metric_log import MetricLog
from trainables.pack.process_cache import StudyTexts
from trainables.probes.plan import ProbePlan
from trainables.probes.probe import answers_bytes
from trainables.trial.asking import ANSWERS, Asking
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask


class PackQuestions:
    """The askings of a pack's members; one that several have is asked once.

    Args:
        tasks: the members.
        spec: what they share.
    """

    def __init__(self, tasks: Sequence[TrialTask], spec: TrialSpec) -> None:
        """Collect them; nothing is read yet."""
        self._wanted: list[dict[str, Asking]] = [{asking.id: asking for asking in task.asked} for task in tasks]
        every = {key: asking for wanted in self._wanted for key, asking in wanted.items()}
        self._plans = {key: asking.plan(spec) for key, asking in every.items()}
        self._seconds = dict.fromkeys(self._plans, 0.0)

    @property
    def plans(self) -> tuple[ProbePlan, ...]:
        """All different plans."""
        return tuple(dict.fromkeys(self._plans.values()))

    @property
    def epochs(self) -> frozenset[int]:
        """After which epochs something is asked, the end left out."""
        return frozenset(epoch for wanted in self._wanted for asking in wanted.values() for epoch in asking.epochs)

    def prompts(self, texts: StudyTexts) -> list[TokenTree]:
        """Return what is read first, where that is known."""
        return [tree for probe in texts.asked.values() for tree in probe.prompts]

    def ask(self, adapter: Adapter[Any], texts: StudyTexts, log: MetricLog, epoch: int, at_end: bool) -> None:
        """Ask what is due after an epoch, and note what the members that want to know it made of it.

        Args:
            adapter: the members.
            texts: with the probes.
            log: takes metrics and, at the end, answers.
            epoch: that is over.
            at_end: whether it is the last.
        """
        for key, plan in self._plans.items():
            asking = [k for k, own in enumerate(self._wanted) if key in own and (at_end or epoch in own[key].epochs)]
            probe = texts.asked.get(plan)
            if not asking or probe is None:
                continue
            start = time.perf_counter()
            for k, found in zip(asking, probe.ask(adapter.some(asking)), strict=True):
                own = self._wanted[k][key]
                log.add(k, epoch, {f"{own.label}/{metric}": v for metric, v in found.metrics.items()})
                if at_end:
                    log.files[k][f"{own.folder}/{ANSWERS}"] = answers_bytes(plan, found.answers)
            self._seconds[key] += time.perf_counter() - start

    def told(self, member: int, texts: StudyTexts, evaluate_s: float) -> dict[str, dict[str, Any]]:
        """Return what a result is to say of a member's askings: counts, and its share of the seconds spent.

        Args:
            member: which one.
            texts: with the probes.
            evaluate_s: seconds that asking all members everything took, without what was loaded for it.
        """
        size, whole = len(self._wanted), sum(self._seconds.values())
        found = {}
        for key in self._wanted[member]:
            probe = texts.asked.get(self._plans[key])
            askers = sum(key in wanted for wanted in self._wanted)
            share = self._seconds[key] / whole * evaluate_s / askers if whole else 0.0
            counts = {} if probe is None else dict(probe.counts)
            found[key] = {"counts": counts, "timings": {"evaluate_s": share, "pack_size": size}}
        return found
