"""The life of a pack: K trials that share model, layer, texts and schedule, from first epoch to results."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from typing import Any

import torch

from trainables.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from trainables.entry_sets import EntrySet
from trainables.errors import ConfigError
from trainables.measure import Responder, document_leakage, document_nll
from trainables.memory.analysis import allocation_report
from trainables.memory.bank import MemoryBank
from trainables.pack_task import TrialTask
from trainables.results import TrialResult, save_member_files
from trainables.spec import ALLOCATIONS
from trainables.training import PackMembers, PackTraining
from trainables.workbench import Material, Workbench


class PackRun:
    """Trains and evaluates the members of one pack, an epoch at a time.

    Args:
        tasks: the members; all have done the same number of epochs.
        bench: the process's workbench.
        trunk_layers: layers of the same model that other packs will want; their hidden states are made along.
        checkpoints: each member's checkpoint, or None to start from scratch.
    """

    def __init__(
        self,
        tasks: Sequence[TrialTask],
        bench: Workbench,
        trunk_layers: Sequence[int],
        checkpoints: Sequence[Checkpoint | None],
    ) -> None:
        """Load what is shared, build the bank, and take up the checkpoints."""
        self.tasks, self.bench = list(tasks), bench
        first = tasks[0].spec
        self.trains = first.method == "memory"
        card = bench.card(first)
        self.layer = first.layer if first.layer is not None else card.num_blocks - 1
        self.material: Material = bench.material(first, self.layer, tuple(trunk_layers))
        self.upper = bench.upper(first, self.layer)
        self.curves: list[dict[str, list[list[float]]]] = [{} for _ in tasks]
        self.metrics: list[dict[str, float]] = [{} for _ in tasks]
        self.diverged_at: list[int | None] = [None] * len(tasks)
        self.samples: list[dict[str, Any]] = [{} for _ in tasks]
        self.bank: MemoryBank | None = None
        self.training: PackTraining | None = None
        self.sets: list[EntrySet | None] = [None] * len(tasks)
        if self.trains:
            self._build(card.model_dim, checkpoints)
        self._last_checkpoint = time.monotonic()
        self._eval_epochs = {*first.eval_epochs, first.epochs} if self.trains else {0}
        self._spent: dict[str, float] = {}

    def _build(self, model_dim: int, checkpoints: Sequence[Checkpoint | None]) -> None:
        specs = [task.spec for task in self.tasks]
        first = specs[0]
        if not len(self.material.train):
            raise ConfigError(f"content={first.content}: the chosen pages have no text of this kind to train on")
        self.sets = [
            None if spec.allocation == "none" else self.material.entry_sets.of(spec) for spec in specs
        ]
        members = PackMembers(specs, self.sets)
        self.bank = MemoryBank(
            model_dim, first.memory_dim, first.norm_and_gate, [spec.seed for spec in specs], self.bench.device
        )
        self.training = PackTraining(
            members, self.material.train, self.upper, self.bank, first.micro_batch_tokens
        )
        for k, found in enumerate(checkpoints):
            if found is None:
                continue
            self.bank.load_member_state(k, found.memory)
            self.training.optimiser.load_member_state(k, found.optimiser)
            self.training.epoch = found.epoch
            self.curves[k] = found.notes["curves"]
            self.diverged_at[k] = found.notes["diverged_at"]
            members.active[k] = self.diverged_at[k] is None

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.training.epoch if self.training else 0

    @property
    def done(self) -> bool:
        """Whether training is over and `finish` is due."""
        if self.training is None:
            return True
        return self.epoch >= self.tasks[0].spec.epochs or not any(self.training.members.active)

    def step(self) -> dict[str, dict[str, float]]:
        """Train one epoch, evaluate where asked, checkpoint when due.

        Returns:
            Trial id -> the epoch's metrics.
        """
        assert self.training is not None
        if self.epoch == 0 and 0 in self._eval_epochs:
            self._evaluate(0)
        start = time.perf_counter()
        means = self.training.run_epoch()
        self._spent["train_s"] = self._spent.get("train_s", 0.0) + time.perf_counter() - start
        for k, found in enumerate(means):
            if not self.training.members.active[k] and self.diverged_at[k] is None:
                self.diverged_at[k] = self.epoch
            for name, value in found.items():
                if name == "train/leakage" and self.sets[k] is None:
                    continue
                self._note(k, name, self.epoch, value)
        if self.epoch in self._eval_epochs and not self.done:
            self._evaluate(self.epoch)
        if not self.done and time.monotonic() - self._last_checkpoint >= self.tasks[0].spec.checkpoint_every_s:
            self.checkpoint()
        return {task.id: dict(self.metrics[k]) for k, task in enumerate(self.tasks)}

    def checkpoint(self) -> None:
        """Write every member's checkpoint."""
        if self.training is None or self.bank is None or self.epoch == 0:
            return
        for k, task in enumerate(self.tasks):
            notes = {"curves": self.curves[k], "diverged_at": self.diverged_at[k]}
            state = Checkpoint(
                self.epoch, self.bank.member_state(k), self.training.optimiser.member_state(k), notes
            )
            write_checkpoint(task.checkpoint, state)
        self._last_checkpoint = time.monotonic()

    def finish(self) -> list[TrialResult]:
        """Evaluate, write each member's files and return the results."""
        self._evaluate(self.epoch)
        parts = {**self.bench.take_timings()}
        for name, value in self._spent.items():
            parts[name] = parts.get(name, 0.0) + value
        results = []
        for k, task in enumerate(self.tasks):
            diverged = self.diverged_at[k] is not None
            result = TrialResult(
                id=task.id,
                status="diverged" if diverged else "done",
                metrics={n: v for n, v in self.metrics[k].items() if math.isfinite(v)},
                curves={n: [p for p in c if math.isfinite(p[1])] for n, c in self.curves[k].items()},
                counts=dict(self.material.counts),
                timings={n: v / len(self.tasks) for n, v in parts.items()} | {"pack_size": len(self.tasks)},
                flops=self._train_flops(),
                host=socket.gethostname(),
                error={"class": "diverged", "message": f"loss not finite in epoch {self.diverged_at[k]}"}
                if diverged
                else None,
            )
            state = None
            if self.bank is not None and task.spec.keep_memory and not diverged:
                state = self.bank.member_state(k)
            save_member_files(task.folder, self.samples[k], state, self.layer, self.bench.card(task.spec).key)
            results.append(result)
        return results

    def _note(self, member: int, name: str, epoch: int, value: float) -> None:
        self.metrics[member][name] = value
        curve = self.curves[member].setdefault(name, [])
        if not curve or curve[-1][0] != epoch:
            curve.append([epoch, value])

    def _evaluate(self, epoch: int) -> None:
        """Measure memorisation, leakage and FEVER answers after `epoch` epochs."""
        spec = self.tasks[0].spec
        hard = [s if t.spec.mode == "hard" else None for t, s in zip(self.tasks, self.sets, strict=True)]
        for k in range(len(self.tasks)):
            self.metrics[k]["memory/nll_before"] = self.material.nll_before
        nll = self.bench.timed(
            "measure_s",
            lambda: document_nll(self.upper, self.material.segments, self.bank, hard, spec.micro_batch_tokens),
        )
        for k in range(len(self.tasks)):
            self._note(k, "memory/nll", epoch, float(nll[k]))
        if self.bank is not None:
            self.bench.timed("measure_s", lambda: self._measure_leakage(epoch))
        if self.material.questions is not None:
            self.bench.timed("evaluate_s", lambda: self._ask(epoch, hard))

    def _measure_leakage(self, epoch: int) -> None:
        """Measure leakage under each member's set; under every allocation for a member that has none."""
        assert self.bank is not None
        tokens = self.tasks[0].spec.micro_batch_tokens
        for k, by_group in enumerate(document_leakage(self.material.segments, self.bank, self.sets, tokens)):
            own = self.sets[k]
            if own is None:
                continue
            self._note(k, "memory/leakage", epoch, by_group[-1])
            self.samples[k]["analysis"] = {
                "allocation": _report(own),
                "leakage_by_group": {str(g): v for g, v in sorted(by_group.items()) if g >= 0},
            }
        free = [k for k, s in enumerate(self.sets) if s is None]
        for name in ALLOCATIONS[1:] if free else ():
            try:
                sets = [self.material.entry_sets.of(t.spec, name) for t in self.tasks]
            except ConfigError:
                continue  # partitioned with fewer entries than documents: there is no such allocation to measure
            found = document_leakage(self.material.segments, self.bank, sets, tokens)
            for k in free:
                self._note(k, f"memory/leakage_{name}", epoch, found[k][-1])

    def _ask(self, epoch: int, hard: Sequence[EntrySet | None]) -> None:
        """Ask the FEVER questions and note metrics and answers."""
        from trainables.evaluation.metrics import fever_metrics

        assert self.material.questions is not None
        spec = self.tasks[0].spec
        respond = Responder(
            self.bench.hidden_states(spec), self.layer, self.upper, self.bank, hard, self.bench.device,
            spec.micro_batch_tokens,
        )
        for k, answers in enumerate(self.material.questions.answer(respond)):
            for name, value in fever_metrics(answers).items():
                self._note(k, f"fever/{name}", epoch, value)
            self.samples[k]["answers"] = answers

    def _train_flops(self) -> float:
        """Count one member's training FLOPs: two per weight and token forward, the same backward (ours)."""
        if self.training is None:
            return 0.0
        card = self.bench.card(self.tasks[0].spec)
        train = self.material.train
        blocks = (card.num_blocks - 1 - self.layer) * card.block_params
        memory = 2 * card.model_dim * self.tasks[0].spec.memory_dim
        per_epoch = train.num_tokens * (4 * blocks + 6 * memory) + train.num_targets * 4 * card.head_params
        return float(self.epoch * per_epoch)


def _report(entry_set: EntrySet) -> dict[str, Any]:
    """Return the allocation's analysis, made once per set."""
    if not hasattr(entry_set, "report"):
        entry_set.report = allocation_report(entry_set.allocation, entry_set.sequences)  # type: ignore[attr-defined]
    found: dict[str, Any] = entry_set.report  # type: ignore[attr-defined]
    return found


def start_runs(tasks: Sequence[TrialTask], bench: Workbench, trunk_layers: Sequence[int]) -> list[PackRun]:
    """Return runs for the tasks: one, unless their checkpoints stand at different epochs."""
    found = {task.id: read_checkpoint(task.checkpoint) for task in tasks}
    by_epoch: dict[int, list[TrialTask]] = {}
    for task in tasks:
        state = found[task.id]
        by_epoch.setdefault(0 if state is None else state.epoch, []).append(task)
    return [
        PackRun(group, bench, trunk_layers, [found[task.id] for task in group])
        for _, group in sorted(by_epoch.items())
    ]
