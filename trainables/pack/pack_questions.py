"""What is asked of the members of a pack: each question put at once to all that want to know."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
        # In an order that does not depend on the members': texts and probes are kept while the same is asked.
        self._plans = {key: every[key].plan(spec) for key in sorted(every)}
        self._seconds: list[dict[str, float]] = [{} for _ in tasks]

    @property
    def plans(self) -> tuple[ProbePlan, ...]:
        """All different plans."""
        return tuple(dict.fromkeys(self._plans.values()))

    def epochs(self, member: int) -> frozenset[int]:
        """Return after which epochs a member is asked something, the end left out."""
        return frozenset(epoch for asking in self._wanted[member].values() for epoch in asking.epochs)

    def prompts(self, texts: StudyTexts) -> list[TokenTree]:
        """Return what is read first, where that is known."""
        return [tree for probe in texts.asked.values() for tree in probe.prompts]

    def ask(
        self, adapter: Adapter[Any], texts: StudyTexts, log: MetricLog, epochs: Mapping[int, int], at_end: bool
    ) -> None:
        """Ask what is due, and note what the members that want to know it made of it.

        Args:
            adapter: the members.
            texts: with the probes.
            log: takes metrics and, at the end, answers.
            epochs: that some members have done.
            at_end: whether it was their last.
        """
        for key, plan in self._plans.items():
            asking = [
                k for k, own in enumerate(self._wanted)
                if key in own and k in epochs and (at_end or epochs[k] in own[key].epochs)
            ]  # fmt: skip
            probe = texts.asked.get(plan)
            if not asking or probe is None:
                continue
            start = time.perf_counter()
            for k, found in zip(asking, probe.ask(adapter.some(asking)), strict=True):
                own = self._wanted[k][key]
                log.add(k, epochs[k], {f"{own.label}/{metric}": v for metric, v in found.metrics.items()})
                if at_end:
                    log.files[k][f"{own.folder}/{ANSWERS}"] = answers_bytes(plan, found.answers)
            spent = (time.perf_counter() - start) / len(asking)
            for k in asking:
                self._seconds[k][key] = self._seconds[k].get(key, 0.0) + spent

    def told(self, member: int, texts: StudyTexts, evaluate_s: float) -> dict[str, dict[str, Any]]:
        """Return what a result is to say of a member's askings: counts, and how its seconds are spread over them.

        Args:
            member: which one.
            texts: with the probes.
            evaluate_s: the member's seconds of being asked everything, without what was loaded for it.
        """
        size, own = len(self._wanted), self._seconds[member]
        whole = sum(own.values())
        found = {}
        for key in self._wanted[member]:
            probe = texts.asked.get(self._plans[key])
            share = own.get(key, 0.0) / whole * evaluate_s if whole else 0.0
            counts = {} if probe is None else dict(probe.counts)
            found[key] = {"counts": counts, "timings": {"evaluate_s": share, "pack_size": size}}
        return found
