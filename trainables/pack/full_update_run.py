"""Training all weights of a language model instead of a memory: the comparison of note 000 on small Pythias.

No split model here, for everything changes; one trial at a time. Texts, questions, metrics and records are those of
the memory trials.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainables.adapters.memory.optimiser import cosine_with_warmup
from trainables.errors import ConfigError
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import TokenTree, collate
from trainables.pack.asking import ask_counterfact, ask_fever
from trainables.pack.batches import epoch_order
from trainables.pack.checkpoint import Checkpoint, write_checkpoint
from trainables.pack.metric_log import Scoreboard
from trainables.pack.process_cache import Workbench
from trainables.pack.result import TrialResult, save_member_files
from trainables.pack.texts import TrainingText
from trainables.trial.task import TrialTask

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FullUpdateRun:
    """Trains and evaluates one trial, an epoch at a time; the same face as `PackRun`.

    The trained weights are not kept with the record: they are as large as the model.

    Args:
        task: the trial.
        bench: the process's workbench.
        checkpoint: where to go on from, or None.

    Raises:
        ConfigError: there is nothing to train on.
    """

    def __init__(self, task: TrialTask, bench: Workbench, checkpoint: Checkpoint | None) -> None:
        """Load the model and set up the optimiser."""
        self.tasks, self.bench, self.spec = [task], bench, task.spec
        self.board = Scoreboard(self.tasks)
        self.texts = bench.texts(task.spec)
        if not self.texts.train:
            raise ConfigError(f"content={task.spec.content}: the chosen pages have no text of this kind to train on")
        torch.manual_seed(task.spec.seed)
        self.whole = WholeModel(bench.card(task.spec), getattr(torch, task.spec.dtype), bench.device)
        self.model = self.whole.model
        self.nll_before = self._document_nll()
        self.model.requires_grad_(True)
        self._names = dict(self.model.named_parameters())
        self.optimiser = torch.optim.AdamW(
            self._names.values(), lr=task.spec.lr, weight_decay=task.spec.weight_decay, fused=True
        )
        self.epoch, self.steps = 0, 0
        self._per_epoch = -(-len(self.texts.train) // task.spec.batch_size)
        if checkpoint is not None:
            self._take_up(checkpoint)
        self._last_checkpoint = time.monotonic()
        self._train_s = 0.0

    @property
    def done(self) -> bool:
        """Whether training is over and `finish` is due."""
        return self.epoch >= self.spec.epochs or self.board.diverged_at[0] is not None

    def step(self) -> dict[str, dict[str, float]]:
        """Train one epoch, evaluate where asked, checkpoint when due; return trial id -> the epoch's metrics."""
        if self.epoch == 0 and 0 in self.spec.eval_epochs:
            self._evaluate()
        start = time.perf_counter()
        total_nll, targets, losses = 0.0, 0, []
        order = epoch_order(len(self.texts.train), self.spec.seed, self.epoch)
        for first in range(0, len(order), self.spec.batch_size):
            batch = [self.texts.train[i] for i in order[first : first + self.spec.batch_size]]
            loss, count = self._train_step(batch)
            losses.append(loss)
            total_nll, targets = total_nll + loss * count, targets + count
            if not np.isfinite(loss):
                self.board.diverged_at[0] = self.epoch + 1
                break
        self.epoch += 1
        self._train_s += time.perf_counter() - start
        self.board.note(0, "train/nll", self.epoch, total_nll / targets)
        self.board.note(0, "train/loss", self.epoch, float(np.mean(losses)))
        if self.epoch in self.spec.eval_epochs and not self.done:
            self._evaluate()
        if not self.done and time.monotonic() - self._last_checkpoint >= self.spec.checkpoint_every_s:
            self.checkpoint()
        return self.board.progress()

    def checkpoint(self) -> None:
        """Write the weights and the optimiser's state."""
        if self.epoch == 0:
            return
        weights = {n: p.detach().cpu().clone() for n, p in self._names.items()}
        state = {"step": torch.tensor(self.steps)}
        for name, parameter in self._names.items():
            held = self.optimiser.state[parameter]
            state |= {f"{moment}.{name}": held[moment].cpu().clone() for moment in _MOMENTS}
        write_checkpoint(self.tasks[0].checkpoint, Checkpoint(self.epoch, weights, state, self.board.notes(0)))
        self._last_checkpoint = time.monotonic()

    def finish(self) -> list[TrialResult]:
        """Evaluate, write the trial's files and return its result."""
        self._evaluate()
        save_member_files(self.tasks[0].folder, self.board.files[0], None, 0, "")
        card = self.bench.card(self.spec)
        tokens = sum(len(text.tree) for text in self.texts.train)
        flops = 6.0 * (card.num_blocks * card.active_block_params + card.head_params) * tokens * self.epoch
        return self.board.results(self.texts.counts, self.bench.take_timings() | {"train_s": self._train_s}, flops)

    @torch.no_grad()
    def __call__(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the likeliest next token at nodes of trees: `[1, nodes in all]` (see `fever.Respond`)."""
        found: list[int] = []
        for tree, read in zip(trees, nodes, strict=True):
            batch = collate([tree], self.bench.device)
            logits = self.whole(batch.tokens, batch.attention_mask, batch.positions)
            found += logits[0, list(read)].argmax(dim=-1).tolist()
        return np.array([found], dtype=np.int64).reshape(1, -1)

    def _train_step(self, texts: Sequence[TrainingText]) -> tuple[float, int]:
        """Take one step; return the mean NLL of the batch's target tokens, and their number."""
        nll, count = self._nll(texts)
        loss = nll / count
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._names.values(), self.spec.grad_clip)
        factor = cosine_with_warmup(self.steps, self.spec.warmup_steps, self._per_epoch * self.spec.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = self.spec.lr * factor
        if torch.isfinite(loss):
            self.optimiser.step()
        self.steps += 1
        return float(loss.detach()), count

    def _nll(self, texts: Sequence[TrainingText]) -> tuple[Tensor, int]:
        """Return the summed NLL of the target tokens of some texts, and their number."""
        batch = collate([text.tree for text in texts], self.bench.device)
        labels = batch.tokens.clone()
        for row, text in enumerate(texts):
            labels[row, : text.first_target] = -100
            labels[row, len(text.tree) :] = -100
        logits = self.whole(batch.tokens)[:, :-1].float()
        nll = functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100
        )
        return nll, sum(text.num_targets for text in texts)

    @torch.no_grad()
    def _document_nll(self) -> float:
        """Return the memorisation error: NLL per predicted token of the documents."""
        total, count = 0.0, 0
        for first in range(0, len(self.texts.segments), self.spec.batch_size):
            nll, targets = self._nll(self.texts.segments[first : first + self.spec.batch_size])
            total, count = total + float(nll), count + targets
        return total / count

    def _evaluate(self) -> None:
        with self.bench.timing("measure_s"):
            self.board.metrics[0]["memory/nll_before"] = self.nll_before
            self.board.note(0, "memory/nll", self.epoch, self._document_nll())
        with self.bench.timing("evaluate_s"):
            if self.texts.questions is not None:
                ask_fever(self.board, self.epoch, self.texts.questions, self)
            if self.texts.counterfact is not None:
                ask_counterfact(self.board, self.epoch, self.texts.counterfact, self.whole, None, self.bench.device)

    def _take_up(self, checkpoint: Checkpoint) -> None:
        with torch.no_grad():
            for name, parameter in self._names.items():
                parameter.copy_(checkpoint.memory[name])
        self.epoch, self.steps = checkpoint.epoch, int(checkpoint.optimiser["step"])
        self.board.take_up(0, checkpoint.notes)
        for name, parameter in self._names.items():
            moments = {m: checkpoint.optimiser[f"{m}.{name}"].to(parameter.device) for m in _MOMENTS}
            step = torch.tensor(float(self.steps), device=parameter.device)
            self.optimiser.state[parameter] = {"step": step, **moments}
