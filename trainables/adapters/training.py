"""Training stacked members: one pass of the upper blocks a step for all members of a pack.

Members do not touch each other's parameters, so the sum of their losses gives each its own gradient. A pack of one is
the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainables.adapters.optimiser import PackOptimiser
from trainables.adapters.own_texts import OwnStep, OwnTexts
from trainables.adapters.passes import slices
from trainables.adapters.plan import TrainingPlan
from trainables.adapters.stacks import ParameterStacks
from trainables.errors import OutOfMemory, failure_kind
from trainables.lm.batches import TextBatch, TextBatches, epoch_order
from trainables.lm.placement import free_memory
from trainables.lm.repeatable import repeatably


@dataclass(frozen=True)
class StepLosses:
    """What some members lose on some texts of a step.

    Attributes:
        objective: `[members]`, with its gradient: these texts' share of each member's loss of the whole step.
        nll: `[members]`, summed over target tokens.
        more: further metrics of an epoch, by name: their sums `[members]`, and over how much each is a mean: in the
            epoch for all members alike, in a step for the first.
    """

    objective: Tensor
    nll: Tensor
    more: Mapping[str, tuple[Tensor, float]] = field(default_factory=dict)


Losses = Callable[[TextBatch, slice, TextBatch], StepLosses]
"""Takes texts of one forward pass, which members, and the whole step of which the texts are a part."""

OwnLosses = Callable[[OwnTexts, slice, OwnStep], StepLosses]
"""The same where each member has texts of its own."""


class EpochSums:
    """Sums over one epoch, `[members]` each, float64, on the device: they are read once, by `means`."""

    def __init__(self, members: int, device: torch.device) -> None:
        """Start empty."""
        self._sums = {name: torch.zeros(members, dtype=torch.float64, device=device) for name in ("nll", "loss")}
        self._counts: dict[str, float] = {"nll": 0.0, "loss": 0.0}

    def add(self, found: StepLosses, targets: int) -> None:
        """Add a step."""
        more = {"nll": (found.nll, targets), "loss": (found.objective, 1), **found.more}
        for name, (total, count) in more.items():
            if name in self._sums:
                self._sums[name] += total
            else:
                self._sums[name] = total.double()
            self._counts[name] = self._counts.get(name, 0.0) + count

    def means(self) -> list[dict[str, float]]:
        """Return each member's means: NLL per target token, loss per step, and what else there is."""
        names = [f"train/{name}" if name in ("nll", "loss") else name for name in self._sums]
        sums = torch.stack(list(self._sums.values())).T.tolist()
        counts = [count or 1 for count in self._counts.values()]
        return [{n: total / count for n, total, count in zip(names, own, counts, strict=True)} for own in sums]


class PackTraining:
    """Trains the members of a pack on the same texts.

    Members at one block whose order of texts is the same, by seed and epoch, share the texts of each step, read once;
    else each has its own, and still one forward pass serves all.

    Args:
        plans: one per member; they agree in all fields but those in which members may differ.
        layers: each member's block.
        batches: the texts with their hidden states, by block.
        stacks: what is trained.
        losses: of a forward pass.
        own_losses: of one in which members have texts of their own.
        what: whose gradients these are, in a word.

    Attributes:
        optimiser: of all members.
        active: False once a member's loss was not a number.
        micro_batch_tokens: tokens, over all members, in one forward pass.
    """

    def __init__(
        self,
        plans: Sequence[TrainingPlan],
        layers: Sequence[int],
        batches: Mapping[int, TextBatches],
        stacks: ParameterStacks,
        losses: Losses,
        own_losses: OwnLosses,
        what: str,
    ) -> None:
        """Set up the optimiser; the schedule spans all epochs."""
        first, texts = plans[0], batches[layers[0]]
        self._layers, self._batches, self._losses, self._own_losses = list(layers), batches, losses, own_losses
        self._num_texts, self._device, self._what = len(texts), texts.device, what
        self._batch_size, self._order = first.batch_size, first.epoch_order
        self._seeds = [plan.seed for plan in plans]
        self.active = [True] * len(plans)
        self._ones = torch.ones(len(plans), device=texts.device)
        self.micro_batch_tokens = first.micro_batch_tokens
        steps = -(-len(texts) // first.batch_size)
        self.optimiser = PackOptimiser(
            stacks,
            [plan.lr for plan in plans],
            [plan.weight_decay for plan in plans],
            first.warmup_steps,
            steps * first.epochs,
            [plan.grad_clip for plan in plans],
        )

    def run_epoch(self, epochs: Sequence[int]) -> list[dict[str, float]]:
        """Train one epoch of each member and return its means over it.

        A member whose loss is not finite stops being updated; the others go on. The host learns of it at the end.

        Args:
            epochs: the number of each member's epoch.

        Raises:
            OutOfMemory: one text of one member does not fit.
        """
        sums = EpochSums(len(self.active), self._device)
        finite = torch.ones(len(self.active), dtype=torch.bool, device=self._device)
        for batch in self._steps(epochs):
            found = self.step(batch, finite)
            sums.add(found, batch.num_targets)
        self.active = [a and f for a, f in zip(self.active, finite.tolist(), strict=True)]
        return sums.means()

    def _steps(self, epochs: Sequence[int]) -> Iterator[TextBatch | OwnStep]:
        """Yield the texts of each step: those of all members, or of each where their orders or blocks differ."""
        own = list(zip(self._layers, self._seeds, epochs, strict=True))
        orders = {each[1:]: epoch_order(self._num_texts, *each[1:], self._order) for each in own}
        steps = {each: self._batches[each[0]].steps(orders[each[1:]], self._batch_size) for each in own}
        if len(steps) == 1:
            yield from steps[own[0]]
            return
        for found in zip(*steps.values(), strict=True):
            of_order = dict(zip(steps, found, strict=True))
            yield OwnStep([of_order[each] for each in own], self._layers)

    def step(self, batch: TextBatch | OwnStep, finite: Tensor) -> StepLosses:
        """Take one step; return what each member loses in it, `[members]` each. Nothing is read from the device.

        Args:
            batch: the texts.
            finite: bool `[members]` on the device, set to False where a loss is not a number: there it is the last.

        Raises:
            OutOfMemory: one text of one member does not fit.
        """
        while (found := self._gradients_if_they_fit(batch)) is None:
            free_memory(self._device)
        finite &= torch.isfinite(found.objective)
        self.optimiser.step(self.active, finite)
        return found

    def _gradients_if_they_fit(self, batch: TextBatch | OwnStep) -> StepLosses | None:
        """Return what `_gradients` does; None where it did not fit, with smaller passes from then on.

        What the failed pass held is free once this has returned: while the error is handled, its traceback holds it.
        """
        try:
            return repeatably(self._what, self._device, lambda: self._gradients(batch))
        except (RuntimeError, MemoryError) as error:
            if failure_kind(error) != "memory":
                raise
            self.micro_batch_tokens = _half(self.micro_batch_tokens, max(batch.lengths), error)
            return None

    def _passes(self, batch: TextBatch | OwnStep) -> Iterator[tuple[slice, StepLosses]]:
        """Yield which members, and what they lose, forward pass by forward pass."""
        if isinstance(batch, OwnStep):
            for who, own in batch.passes(self.micro_batch_tokens):
                yield who, self._own_losses(own, who, batch)
            return
        for who, texts in slices(len(self.active), batch.lengths, self.micro_batch_tokens):
            yield who, self._losses(batch.part(texts), who, batch)

    def _gradients(self, batch: TextBatch | OwnStep) -> StepLosses:
        """Accumulate the gradients of one step; return what each member loses in it, `[members]` each."""
        self.optimiser.zero_grad()
        parts = []
        for who, part in self._passes(batch):
            part.objective.backward(self._ones[who])  # type: ignore[no-untyped-call]
            more = {name: (total.detach(), number) for name, (total, number) in part.more.items()}
            parts.append((who, StepLosses(part.objective.detach(), part.nll.detach(), more)))
        return parts[0][1] if len(parts) == 1 else self._joined(parts)

    def _joined(self, parts: Sequence[tuple[slice, StepLosses]]) -> StepLosses:
        """Add up what the parts of a step found, each of some members on some texts."""
        loss, nll = torch.zeros(2, len(self.active), device=self._device)
        more: dict[str, tuple[Tensor, float]] = {}
        for who, part in parts:
            loss[who] += part.objective
            nll[who] += part.nll
            for name, (total, number) in part.more.items():
                sums, counted = more.get(name, (torch.zeros_like(loss), 0.0))
                sums[who] += total
                more[name] = sums, counted + (number if who.start == 0 else 0.0)
        return StepLosses(loss, nll, more)


def _half(tokens: int, width: int, error: BaseException) -> int:
    if tokens <= width:
        raise OutOfMemory(f"out of memory with one text of {width} tokens of one member at a time") from error
    return max(width, tokens // 2)
