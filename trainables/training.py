"""Training a bank of memories: one pass of the upper blocks a step for all members of a pack.

The loss of a member is `LM loss + alpha * leakage` (note 002); members do not touch each other's parameters, so the
sum of their losses gives each its own gradient. A pack of one is the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.batches import TextBatch, TextBatches, epoch_order, pass_tokens
from trainables.entry_sets import EntrySet, member_masks, part
from trainables.errors import OutOfMemory, failure_kind
from trainables.lm.head_loss import token_nll
from trainables.lm.upper import Upper
from trainables.memory.bank import MemoryBank
from trainables.memory.leakage import leakage
from trainables.memory.optimiser import PackOptimiser
from trainables.spec import TrialSpec


@dataclass
class PackMembers:
    """The members of a pack, side by side.

    Attributes:
        specs: one per member; they agree in all that is not marked as free within a pack.
        sets: each member's entry set, or None for a member that has none.
        active: False once a member's loss was not a number.
    """

    specs: Sequence[TrialSpec]
    sets: Sequence[EntrySet | None]
    active: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with every member active."""
        self.active = self.active or [True] * len(self.specs)

    @property
    def hard(self) -> list[EntrySet | None]:
        """Sets that act as masks."""
        return [s if spec.mode == "hard" else None for spec, s in zip(self.specs, self.sets, strict=True)]

    @property
    def leaking(self) -> bool:
        """Whether any member has a set, so that leakage is worth measuring."""
        return any(s is not None for s in self.sets)


@dataclass
class EpochSums:
    """Sums over one epoch, `[members]` each, float64 on the CPU."""

    nll: Tensor
    loss: Tensor
    leakage: Tensor
    targets: int = 0
    tokens: int = 0
    steps: int = 0

    @classmethod
    def zeros(cls, members: int) -> EpochSums:
        """Return empty sums."""
        nll, loss, leak = torch.zeros(3, members, dtype=torch.float64)
        return cls(nll, loss, leak)

    def means(self) -> list[dict[str, float]]:
        """Return each member's means: NLL per target token, loss per step, leakage per token."""
        return [
            {
                "train/nll": float(self.nll[k] / max(1, self.targets)),
                "train/loss": float(self.loss[k] / max(1, self.steps)),
                "train/leakage": float(self.leakage[k] / max(1, self.tokens)),
            }
            for k in range(len(self.nll))
        ]


class PackTraining:
    """Trains the members of a pack on the same texts.

    Args:
        members: who is trained.
        batches: the texts with their hidden states.
        upper: the blocks above the memory, frozen.
        bank: the members' memories.
        micro_batch_tokens: padded tokens, over all members, in one forward pass.
    """

    def __init__(
        self,
        members: PackMembers,
        batches: TextBatches,
        upper: Upper,
        bank: MemoryBank,
        micro_batch_tokens: int,
    ) -> None:
        """Set up the optimiser; the schedule spans all epochs."""
        first = members.specs[0]
        self.members, self.batches, self.upper, self.bank = members, batches, upper, bank
        self.micro_batch_tokens = micro_batch_tokens
        self.epoch = 0
        self._alphas = torch.tensor([s.alpha for s in members.specs], device=batches.device)
        self._batch_size, self._seed = first.batch_size, first.seed
        self._pass_tokens = pass_tokens(upper.num_weights, batches.device, len(members.specs))
        steps = -(-len(batches) // first.batch_size)
        self.optimiser = PackOptimiser(
            bank,
            [s.lr for s in members.specs],
            [s.weight_decay for s in members.specs],
            first.warmup_steps,
            steps * first.epochs,
            [s.grad_clip for s in members.specs],
        )

    def run_epoch(self) -> list[dict[str, float]]:
        """Train one epoch and return each member's means over it.

        A member whose loss is not finite stops being updated; the others go on.

        Raises:
            OutOfMemory: one text of one member does not fit.
        """
        sums = EpochSums.zeros(len(self.members.specs))
        order = epoch_order(len(self.batches), self._seed, self.epoch)
        for texts in self.batches.steps(order, self._batch_size, self._pass_tokens):
            self._step(texts, sums)
            if not any(self.members.active):
                break
        self.epoch += 1
        return sums.means()

    def _step(self, texts: Sequence[TextBatch], sums: EpochSums) -> None:
        targets, tokens = sum(len(batch.labels) for batch in texts), sum(batch.num_tokens for batch in texts)
        while True:
            try:
                nll, leak = self._gradients(texts, targets, tokens)
                break
            except (RuntimeError, MemoryError) as error:
                if failure_kind(error) != "memory":
                    raise
                width = max(batch.width for batch in texts)
                self.micro_batch_tokens = _halve(self.micro_batch_tokens, width, error)
        loss = nll + self._alphas * leak
        finite = torch.isfinite(loss).tolist()
        self.members.active = [a and f for a, f in zip(self.members.active, finite, strict=True)]
        self.optimiser.step(self.members.active)
        sums.nll += nll.double().cpu() * targets
        sums.loss += loss.double().cpu()
        sums.leakage += leak.double().cpu() * tokens
        sums.targets += targets
        sums.tokens += tokens
        sums.steps += 1

    def _gradients(self, texts: Sequence[TextBatch], targets: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of one step; return each member's mean NLL and leakage, `[members]`."""
        self.bank.zero_grad(set_to_none=True)
        count = len(self.members.specs)
        nll, leak = torch.zeros(2, count, device=self.batches.device)
        for batch in texts:
            allowed = hard = None
            if self.members.leaking:
                args = (batch.documents, batch.trees, batch.width, self.batches.device)
                allowed = member_masks(self.members.sets, *args)
                hard = member_masks(self.members.hard, *args)
            for who, rows in slices(count, batch.hidden.shape[0], batch.width, self.micro_batch_tokens):
                nll_sum, leak_sum = self._losses(batch, who, rows, allowed, hard)
                part_nll, part_leak = nll_sum / targets, leak_sum / tokens
                objective: Tensor = (part_nll + self._alphas[who] * part_leak).sum()
                objective.backward()  # type: ignore[no-untyped-call]
                nll[who] += part_nll.detach()
                leak[who] += part_leak.detach()
        return nll, leak

    def _losses(
        self, batch: TextBatch, who: slice, rows: slice, allowed: Tensor | None, hard: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return NLL and leakage of some members on some rows, summed over tokens: `[members]` each."""
        hidden = batch.hidden[rows]
        added, activations = self.bank(hidden[None], part(hard, who, rows), who)
        nll = member_nll(self.upper, hidden, added, batch, rows).sum(dim=1)
        if allowed is None:
            return nll, torch.zeros_like(nll)
        share = leakage(activations, part(allowed, who, rows))
        return nll, (share * batch.real[rows]).sum(dim=(1, 2))


def member_nll(upper: Upper, hidden: Tensor, added: Tensor, batch: TextBatch, rows: slice) -> Tensor:
    """Return the NLL of every target token of some rows: `[members, targets]`, float32.

    Args:
        upper: blocks above the memory.
        hidden: `[rows, seq, model_dim]`.
        added: `[members, rows, seq, model_dim]`, what the memories add.
        batch: the batch the rows belong to.
        rows: which rows.
    """
    members, height, width, dim = added.shape
    final = upper((hidden[None] + added).reshape(members * height, width, dim))
    start = rows.start or 0
    inside = (batch.targets >= start * width) & (batch.targets < (start + height) * width)
    targets = batch.targets[inside] - start * width
    labels = batch.labels[inside]
    picked = final.reshape(members, height * width, dim)[:, targets].reshape(-1, dim)
    nll: Tensor = token_nll(picked, upper.head_weight, upper.head_bias, labels.repeat(members))
    return nll.reshape(members, -1)


def slices(members: int, rows: int, width: int, max_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Split a step into forward passes of at most `max_tokens` tokens: by members first, then by rows."""
    per_member = rows * width
    if per_member <= max_tokens:
        together = max(1, max_tokens // per_member)
        for start in range(0, members, together):
            yield slice(start, min(members, start + together)), slice(0, rows)
        return
    height = max(1, max_tokens // width)
    for member in range(members):
        for start in range(0, rows, height):
            yield slice(member, member + 1), slice(start, min(rows, start + height))


def _halve(tokens: int, width: int, error: BaseException) -> int:
    if tokens <= width:
        raise OutOfMemory(f"out of memory with one text of {width} tokens of one member at a time") from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(width, tokens // 2)
