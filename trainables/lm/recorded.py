"""The error of texts above the memory, and its gradient, as one launch each on a GPU: recorded once, then replayed.

A small step takes as long on a GPU as the host needs to launch its kernels: with pythia-410m's shape, 512 tokens and
one memory 30 ms, of which the GPU computed 2 (`python -m benchmarks gpu`). A CUDA graph launches them all at once, but
its kernels always read and write the same places, of the same sizes. So texts are put into such places: sizes are
rounded up to a few, what is left over is one more text, of zeros, without targets. Whether a pass is recorded yet or
not, it is computed at such places: so a trial that goes on in another process computes what it would have computed.
Each recording is held against the plain way on other texts than it was made with. What cannot be recorded is launched
kernel by kernel at the same places; what cannot have them, or gives other numbers there, is computed as it comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trainables.errors import failure_kind
from trainables.lm.batches import TextBatch
from trainables.lm.cuda_graphs import Pass
from trainables.lm.fixed_texts import FixedTexts, Size
from trainables.lm.parity import alike

logger = logging.getLogger(__name__)

MOST = 16
"""Recordings of one part of a model. The activations of all share their memory; each has places of its own for states
and their gradient (ours)."""
USES_BEFORE = 2
"""Times that a size is computed kernel by kernel before it is recorded: recording takes as long as some five steps."""
IDLE = 500
"""Calls after which a recording that none of them used may make room for another (ours)."""
MOST_FLOPS = 1.5e13
"""FLOPs of a forward and backward pass beyond which it is not recorded. An H100 computed them in 30 ms, and launching
the kernels of a pass took its host 35 ms (`python -m benchmarks gpu`); a faster host needs a fifth of that."""


NLL = Callable[[Any, Tensor], Tensor]
"""Takes texts (`TextBatch` or `FixedTexts`) and states `[members, tokens, model_dim]`; gives the NLL of every target
token, `[members, targets]`."""
Record = Callable[[Pass, Pass], tuple[Pass, Pass]]
"""Makes of a forward and a backward pass two that do the same again, on the same places."""


class Recording:
    """The NLL of texts of one size and its gradient by the states, recorded.

    Args:
        nll: what is recorded.
        size: of the texts.
        like: states `[members, any, model_dim]` of the type and on the device that they will have.
        record: makes of a call one that does the same again without the host, on the same places.

    Attributes:
        size: of the texts.
    """

    def __init__(self, nll: NLL, size: Size, like: Tensor, record: Record) -> None:
        """Record it with texts of zeros."""
        self.size = size
        self.texts = FixedTexts(size, like.device)
        self.states = like.new_zeros(size.members, size.tokens, like.shape[-1])
        self.weights = torch.zeros(size.members, size.tokens, device=like.device)
        self._held: list[Tensor] = []

        def forward() -> Tensor:
            own = self.states.detach().requires_grad_()  # at the same place; autograd keeps the stream of its first use
            with torch.enable_grad():
                self._held[:] = [own, nll(self.texts, own)]
            return self._held[1].detach()

        def backward() -> Tensor:
            own, found = self._held
            return torch.autograd.grad(found, own, self.weights)[0]

        self._forward, self._backward = record(forward, backward)

    def nll(self, batch: TextBatch, states: Tensor) -> Tensor:
        """Return the NLL of every target token of some texts that are not larger, `[members, targets]`."""
        found: Tensor = _Replayed.apply(states, self, batch)  # type: ignore[no-untyped-call]
        return found

    def forward(self, batch: TextBatch, states: Tensor) -> Tensor:
        """Put texts and states in their places and replay; what it gives stays until the next replay."""
        self.texts.put(batch)
        tokens = states.shape[1]
        self.states[:, :tokens].copy_(states)
        self.states[:, tokens:].zero_()
        return self._forward()[:, : len(batch.labels)]

    def backward(self, by_nll: Tensor, tokens: int) -> Tensor:
        """Return the gradient by the states of the texts before, given that by their NLL."""
        # beyond the targets whatever was there: without a label they have no gradient
        self.weights[:, : by_nll.shape[1]].copy_(by_nll)
        return self._backward()[:, :tokens]


class _Replayed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, recording: Recording, batch: TextBatch) -> Tensor:
        ctx.recording, ctx.tokens = recording, states.shape[1]
        return recording.forward(batch, states).clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.recording.backward(gradients[0], ctx.tokens).clone(), None, None


def as_they_are(forward: Pass, backward: Pass) -> tuple[Pass, Pass]:
    """Record nothing: the calls are made again, on the same places."""
    return forward, backward


class Recordings:
    """The recordings of one part of a model.

    Args:
        record: makes a recording's two calls; None: nothing is ever recorded.
    """

    def __init__(self, record: Record | None) -> None:
        """Start with none."""
        self._record = record
        self._has_places: bool | None = None if record else False  # None: not tried yet
        self._kept: dict[Size, Recording] = {}
        self._uses: dict[Size, int] = {}
        self._last: dict[Size, int] = {}
        self._calls = 0

    def nll(self, compute: NLL, batch: TextBatch, states: Tensor, flops: float) -> Tensor:
        """Return what `compute` gives, replayed where it can be.

        Args:
            compute: the plain way.
            batch: the texts.
            states: `[members, tokens, model_dim]`.
            flops: of the pass, forward and backward.
        """
        if self._has_places is False or flops > MOST_FLOPS or not states.requires_grad:
            return compute(batch, states)
        size = Size.of(batch, len(states))
        if self._has_places is None:
            told = "texts at places of fixed sizes"
            self._has_places = self._tried(told, as_they_are, compute, size, batch, states) is not None
            if not self._has_places:
                return compute(batch, states)
        self._calls += 1
        self._uses[size] = self._uses.get(size, 0) + 1
        if size not in self._kept and self._record and self._uses[size] > USES_BEFORE and self._has_room():
            made = self._tried("a recorded pass", self._record, compute, size, batch, states)
            if made is None:
                self._record = None
                self._kept.clear()
            else:
                self._kept[size] = made
        self._last[size] = self._calls
        kept = self._kept.get(size) or Recording(compute, size, states, as_they_are)
        return kept.nll(batch, states)

    def _has_room(self) -> bool:
        """Say whether there is room for one more, or make some."""
        if len(self._kept) < MOST:
            return True
        oldest = min(self._kept, key=self._last.__getitem__)
        if self._calls - self._last[oldest] < IDLE:
            return False
        del self._kept[oldest], self._uses[oldest]
        return True

    def _tried(
        self, what: str, record: Record, compute: NLL, size: Size, batch: TextBatch, states: Tensor
    ) -> Recording | None:
        """Return a recording that gives what the plain way gives; None where there is none."""
        try:
            made = Recording(compute, size, states, record)
            if _agrees(made, compute, batch, states):
                return made
            logger.warning("%s: other numbers than of the texts as they come, not used: %s", what, size)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            # attention that pads texts to a width of their own, say, or a model that asks the device on the way; what
            # is wrong in the plain way too is raised by that
            told = "no memory is left" if failure_kind(error) == "memory" else str(error).partition("\n")[0]
            logger.info("%s: not here: %s", what, told)
        return None


def _agrees(made: Recording, compute: NLL, batch: TextBatch, states: Tensor) -> bool:
    """Say whether a recording gives the NLL of some texts, and its gradient, as the plain way does."""
    found = []
    for way in (compute, made.nll):
        own = states.detach().requires_grad_()
        with torch.enable_grad():
            nll = way(batch, own)
            weights = torch.linspace(0.5, 1.5, nll.numel(), device=nll.device).view(nll.shape)
            found.append((nll.detach(), *torch.autograd.grad(nll, own, weights)))
    return all(alike(one, plain, states.dtype) for plain, one in zip(*found, strict=True))
