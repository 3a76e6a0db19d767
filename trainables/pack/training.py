"""Training a bank of memories: one pass of the upper blocks a step for all members of a pack.

The loss of a member is `LM loss + alpha * leakage` (note 002); members do not touch each other's parameters, so the
sum of their losses gives each its own gradient. A pack of one is the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.memory.leakage import leakage
from trainables.adapters.memory.optimiser import PackOptimiser
from trainables.errors import OutOfMemory, failure_kind
from trainables.lm.upper import Upper
from trainables.pack.batches import TextBatch, TextBatches, epoch_order
from trainables.pack.entry_sets import EntrySet, member_masks
from trainables.trial.spec import TrialSpec


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
        micro_batch_tokens: tokens, over all members, in one forward pass.
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
        for batch in self.batches.steps(order, self._batch_size):
            self._step(batch, sums)
            if not any(self.members.active):
                break
        self.epoch += 1
        return sums.means()

    def _step(self, batch: TextBatch, sums: EpochSums) -> None:
        targets, tokens = len(batch.labels), len(batch.hidden)
        while True:
            try:
                nll, leak = self._gradients(batch)
                break
            except (RuntimeError, MemoryError) as error:
                if failure_kind(error) != "memory":
                    raise
                self.micro_batch_tokens = _halve(self.micro_batch_tokens, max(batch.lengths), error)
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

    def _gradients(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of one step; return each member's mean NLL and leakage, `[members]`."""
        self.bank.zero_grad(set_to_none=True)
        count = len(self.members.specs)
        nll, leak = torch.zeros(2, count, device=self.batches.device)
        for who, texts in slices(count, batch.lengths, self.micro_batch_tokens):
            nll_sum, leak_sum = self._losses(batch.part(texts), who)
            part_nll, part_leak = nll_sum / len(batch.labels), leak_sum / len(batch.hidden)
            objective: Tensor = (part_nll + self._alphas[who] * part_leak).sum()
            objective.backward()  # type: ignore[no-untyped-call]
            nll[who] += part_nll.detach()
            leak[who] += part_leak.detach()
        return nll, leak

    def _losses(self, batch: TextBatch, who: slice) -> tuple[Tensor, Tensor]:
        """Return NLL and leakage of some members on some texts, summed over tokens: `[members]` each."""
        hard = member_masks(self.members.hard[who], batch.documents, batch.trees, self.batches.device)
        added, activations = self.bank(batch.hidden[None], hard, who)
        nll = member_nll(self.upper, batch, added).sum(dim=1)
        if not self.members.leaking:
            return nll, torch.zeros_like(nll)
        allowed = member_masks(self.members.sets[who], batch.documents, batch.trees, self.batches.device)
        return nll, leakage(activations, allowed).sum(dim=1)


def member_nll(upper: Upper, batch: TextBatch, added: Tensor) -> Tensor:
    """Return the NLL of every target token of some texts: `[members, targets]`, float32.

    Args:
        upper: blocks above the memory.
        batch: the texts.
        added: `[members, tokens, model_dim]`, what the memories add.
    """
    tokens = batch.tokens[None] if upper.needs_tokens else None
    final = upper(batch.hidden[None] + added, positions=batch.positions[None], lengths=batch.lengths, tokens=tokens)
    picked = final[:, batch.targets].flatten(0, 1)
    return upper.nll(picked, batch.labels.repeat(len(added))).reshape(len(added), -1)


def slices(members: int, lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Split a step into forward passes of at most `max_tokens` tokens: by members first, then by texts.

    Args:
        members: members of the pack.
        lengths: tokens of each text.
        max_tokens: over all members of a pass; one text of one member is always a pass.

    Yields:
        Which members, and which texts.
    """
    if (tokens := sum(lengths)) <= max_tokens:
        together = max_tokens // max(1, tokens)
        for start in range(0, members, together):
            yield slice(start, min(members, start + together)), slice(0, len(lengths))
        return
    ends, room = [0], max_tokens
    for place, length in enumerate(lengths):
        if length > room and place > ends[-1]:
            ends.append(place)
            room = max_tokens
        room -= length
    ends.append(len(lengths))
    for member in range(members):
        for start, end in pairwise(ends):
            yield slice(member, member + 1), slice(start, end)


def _halve(tokens: int, width: int, error: BaseException) -> int:
    if tokens <= width:
        raise OutOfMemory(f"out of memory with one text of {width} tokens of one member at a time") from error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return max(width, tokens // 2)
