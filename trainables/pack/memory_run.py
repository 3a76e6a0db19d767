"""The life of a pack: K trials that share model, layer, texts and schedule, from first epoch to results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trainables.adapters.memory.bank import MemoryBank
from trainables.errors import ConfigError
from trainables.pack.asking import ask_counterfact, ask_fever
from trainables.pack.checkpoint import Checkpoint, write_checkpoint
from trainables.pack.entry_sets import EntrySet
from trainables.pack.evaluate import Responder, document_leakage, document_nll
from trainables.pack.metric_log import Scoreboard
from trainables.pack.process_cache import Workbench
from trainables.pack.result import TrialResult, save_member_files
from trainables.pack.training import PackMembers, PackTraining
from trainables.trial.spec import ALLOCATIONS
from trainables.trial.task import TrialTask


class PackRun:
    """Trains and evaluates the members of one pack, an epoch at a time.

    Args:
        tasks: the members; all have done the same number of epochs.
        bench: the process's workbench.
        trunk_layers: layers of the same model that other packs will want; their hidden states are made along.
        checkpoints: each member's checkpoint, or None to start from scratch.

    Raises:
        ConfigError: there is nothing to train on.
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
        self.board = Scoreboard(tasks)
        first = tasks[0].spec
        card = bench.card(first)
        self.layer = first.layer if first.layer is not None else card.num_blocks - 1
        self.texts = bench.texts(first)
        self.material = bench.material(first, self.layer, tuple(trunk_layers))
        self.upper = bench.upper(first, self.layer)
        self.bank: MemoryBank | None = None
        self.training: PackTraining | None = None
        self.sets: list[EntrySet | None] = [None] * len(tasks)
        self._eval_epochs = {0}
        if first.method == "memory":
            self._eval_epochs = {*first.eval_epochs, first.epochs}
            self.bank, self.training = self._build(card.model_dim, checkpoints)
        self._last_checkpoint = time.monotonic()
        self._train_s = 0.0

    def _build(self, model_dim: int, checkpoints: Sequence[Checkpoint | None]) -> tuple[MemoryBank, PackTraining]:
        specs = [task.spec for task in self.tasks]
        first = specs[0]
        if not self.material.train.num_targets:
            raise ConfigError(f"content={first.content}: the chosen pages have no text of this kind to train on")
        self.sets = [None if spec.allocation == "none" else self.material.entry_sets.of(spec) for spec in specs]
        members = PackMembers(specs, self.sets)
        bank = MemoryBank(
            model_dim, first.memory_dim, first.norm_and_gate, [spec.seed for spec in specs], self.bench.device
        )
        training = PackTraining(members, self.material.train, self.upper, bank, first.micro_batch_tokens)
        for k, found in enumerate(checkpoints):
            if found is None:
                continue
            bank.load_member_state(k, found.memory)
            training.optimiser.load_member_state(k, found.optimiser)
            training.epoch = found.epoch
            self.board.take_up(k, found.notes)
            members.active[k] = self.board.diverged_at[k] is None
        return bank, training

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
            self._evaluate()
        start = time.perf_counter()
        means = self.training.run_epoch()
        self._train_s += time.perf_counter() - start
        for k, found in enumerate(means):
            if not self.training.members.active[k] and self.board.diverged_at[k] is None:
                self.board.diverged_at[k] = self.epoch
            for name, value in found.items():
                if name != "train/leakage" or self.sets[k] is not None:
                    self.board.note(k, name, self.epoch, value)
        if self.epoch in self._eval_epochs and not self.done:
            self._evaluate()
        if not self.done and time.monotonic() - self._last_checkpoint >= self.tasks[0].spec.checkpoint_every_s:
            self.checkpoint()
        return self.board.progress()

    def checkpoint(self) -> None:
        """Write every member's checkpoint."""
        if self.training is None or self.bank is None or self.epoch == 0:
            return
        for k, task in enumerate(self.tasks):
            state = Checkpoint(
                self.epoch, self.bank.member_state(k), self.training.optimiser.member_state(k), self.board.notes(k)
            )
            write_checkpoint(task.checkpoint, state)
        self._last_checkpoint = time.monotonic()

    def finish(self) -> list[TrialResult]:
        """Evaluate, write each member's files and return the results."""
        self._evaluate()
        for k, task in enumerate(self.tasks):
            keep = self.bank is not None and task.spec.keep_memory and self.board.diverged_at[k] is None
            state = self.bank.member_state(k) if keep and self.bank is not None else None
            save_member_files(task.folder, self.board.files[k], state, self.layer, self.bench.card(task.spec).key)
        timings = self.bench.take_timings() | {"train_s": self._train_s}
        counts = self.texts.counts | ({"whole_model": 1} if self.upper.needs_tokens else {})
        return self.board.results(counts, timings, self._train_flops())

    def _evaluate(self) -> None:
        """Measure memorisation and leakage and ask the probes, after the epochs done so far."""
        spec, epoch, board = self.tasks[0].spec, self.epoch, self.board
        hard = [s if t.spec.mode == "hard" else None for t, s in zip(self.tasks, self.sets, strict=True)]
        with self.bench.timing("measure_s"):
            nll = document_nll(self.upper, self.material.segments, self.bank, hard, spec.micro_batch_tokens)
            for k in range(len(self.tasks)):
                board.metrics[k]["memory/nll_before"] = self.material.nll_before
                board.note(k, "memory/nll", epoch, float(nll[k]))
            self._measure_leakage()
        if self.texts.questions is not None:
            with self.bench.timing("evaluate_s"):
                respond = Responder(
                    self.bench.hidden_states(spec),
                    self.layer,
                    self.upper,
                    self.bank,
                    hard,
                    self.bench.device,
                    spec.micro_batch_tokens,
                )
                ask_fever(board, epoch, self.texts.questions, respond)
        if self.texts.counterfact is not None:
            with self.bench.timing("evaluate_s"):
                whole = self.bench.whole_model(spec)
                ask_counterfact(board, epoch, self.texts.counterfact, whole, self._attached, self.bench.device)

    @contextmanager
    def _attached(self, member: int) -> Iterator[None]:
        """Attach a member's memory to the whole model for the time of a `with` block."""
        if self.bank is None:
            yield
            return
        memory = self.bank.single(member).to(self.bench.device)
        with self.bench.whole_model(self.tasks[0].spec).with_memory(memory, self.layer):
            yield

    def _measure_leakage(self) -> None:
        """Measure leakage under each member's set; under every allocation for a member that has none."""
        if self.bank is None:
            return
        tokens = self.tasks[0].spec.micro_batch_tokens
        free = [k for k, s in enumerate(self.sets) if s is None]
        if len(free) < len(self.sets):
            for k, by_group in enumerate(document_leakage(self.material.segments, self.bank, self.sets, tokens)):
                own = self.sets[k]
                if own is None:
                    continue
                self.board.note(k, "memory/leakage", self.epoch, by_group[-1])
                self.board.files[k]["analysis"] = {
                    "allocation": own.analysis(),
                    "leakage_by_group": {str(g): v for g, v in sorted(by_group.items()) if g >= 0},
                }
        for name in ALLOCATIONS[1:] if free else ():
            try:
                sets = [self.material.entry_sets.of(t.spec, name) for t in self.tasks]
            except ConfigError:
                continue  # fewer entries than documents: there is no such allocation to measure
            found = document_leakage(self.material.segments, self.bank, sets, tokens)
            for k in free:
                self.board.note(k, f"memory/leakage_{name}", self.epoch, found[k][-1])

    def _train_flops(self) -> float:
        """Count one member's training FLOPs: two per weight and token forward, the same backward (ours)."""
        if self.training is None:
            return 0.0
        card = self.bench.card(self.tasks[0].spec)
        train = self.material.train
        ran = card.num_blocks if self.upper.needs_tokens else card.num_blocks - 1 - self.layer
        blocks = ran * card.active_block_params
        memory = 2 * card.model_dim * self.tasks[0].spec.memory_dim
        per_epoch = train.num_tokens * (4 * blocks + 6 * memory) + train.num_targets * 4 * card.head_params
        return float(self.epoch * per_epoch)
