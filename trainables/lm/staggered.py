"""Hidden states that go in after blocks of their own, in one forward pass of the blocks above the lowest of these.

Each block runs on those that are in by then, so nothing is computed below where somebody's own blocks begin.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainables.lm.attention import TextRow
from trainables.lm.gathered_rows import Places
from trainables.lm.transfer import sent


class Staggered:
    """The states of one forward pass, each let in after a block of its own.

    Args:
        states: `[rows, seq, model_dim]`, each as it goes in.
        layers: after which block: of each row; or, with `lengths`, of each text of the one row.
        lengths: tokens of each text that stands in the one row; None where the rows are told apart.
    """

    def __init__(self, states: Tensor, layers: Sequence[int], lengths: Sequence[int] | None = None) -> None:
        """Put them in the order in which they go in."""
        self._lengths, self._layers, self._device = lengths, np.asarray(layers), states.device
        self._dim = 0 if lengths is None else 1
        own = self._layers if lengths is None else np.repeat(self._layers, lengths)
        self._count = len(own)
        self._starts, sizes = np.unique(own, return_counts=True)
        order = np.argsort(own, kind="stable")
        self._ids = np.split(order, np.cumsum(sizes)[:-1])
        self._groups = torch.split(self._reordered(self._as_row(states), order), sizes.tolist(), dim=1)  # type: ignore[no-untyped-call]
        self._in, self._inside = 0, np.empty(0, dtype=np.int64)
        self._told: dict[int, tuple[Any, Any]] = {}

    def into(self, block: int, hidden: Tensor) -> Tensor | None:
        """Return what goes through a block; None while nothing does.

        Args:
            block: its number.
            hidden: what comes out of the block below: all states before anything is in.
        """
        ready = int(np.searchsorted(self._starts, block))
        if ready == 0:
            return None
        if ready == self._in:
            return hidden
        row = self._groups[0] if self._in == 0 else self._as_row(hidden)
        first = self._in
        for number in range(first, ready):
            joined = np.concatenate([self._inside, self._ids[number]])
            if number:
                order = np.argsort(joined)
                row, joined = self._reordered(torch.cat([row, self._groups[number]], dim=1), order), joined[order]
            self._inside = joined
        self._in = ready
        self._told.clear()
        return row[0] if self._dim == 0 else row

    def told(self, value: Any) -> Any:
        """Return what a block is told of all states (masks, positions, texts), as far as it is of those inside."""
        if isinstance(value, tuple):
            return tuple(map(self.told, value))
        if len(self._inside) == self._count or not isinstance(value, (Tensor, TextRow)):
            return value
        if id(value) not in self._told:
            self._told[id(value)] = value, self._of_those_inside(value)  # with the first, so that its id stays its own
        return self._told[id(value)][1]

    def _of_those_inside(self, value: Tensor | TextRow) -> Any:
        if isinstance(value, TextRow):
            if self._lengths is None:
                return value
            inside = self._layers <= self._starts[self._in - 1]
            return TextRow([n for n, is_in in zip(self._lengths, inside, strict=True) if is_in], self._device)
        if value.ndim < 2 or value.shape[self._dim] != self._count:
            return value
        return value.index_select(self._dim, sent(self._inside, self._device))

    def _as_row(self, states: Tensor) -> Tensor:
        return states[None] if self._dim == 0 else states

    def _reordered(self, row: Tensor, order: NDArray[np.int64]) -> Tensor:
        places, back = sent(order, self._device), sent(np.argsort(order), self._device)
        return Places(places, back, False).of(row)


class LetIn:
    """What the blocks of a model look at: the staggered states of a pass; None in one where all go in together."""

    states: Staggered | None = None


def let_in(blocks: nn.ModuleList, above: int, outputs: int) -> LetIn:
    """Have the blocks above one run on the states that are in by then; return where they find these.

    Args:
        blocks: of the model.
        above: the block.
        outputs: what a block returns: 0 for a tensor, else a tuple of so many.
    """
    found = LetIn()
    for number, block in enumerate(blocks):
        if number > above:
            # A block that held itself would stay in memory when its model goes.
            told = found, weakref.ref(block), number, number == len(blocks) - 1, outputs
            block.forward = partial(_through, *told)  # type: ignore[method-assign]
    return found


def _through(
    found: LetIn, itself: weakref.ref[nn.Module], number: int, is_last: bool, outputs: int, *args: Any, **told: Any
) -> Any:
    """Run a block on the states that are in by then; after the last one, let the others in."""
    block, states = itself(), found.states
    assert block is not None  # it is being called
    run = partial(type(block).forward, block)
    if states is None:
        return run(*args, **told)
    hidden = args[0] if args else told["hidden_states"]
    inside = states.into(number, hidden)
    if inside is None:
        return (hidden, *[None] * (outputs - 1)) if outputs else hidden
    told = {name: states.told(value) for name, value in told.items()}
    if args:
        output = run(inside, *map(states.told, args[1:]), **told)
    else:
        output = run(**{**told, "hidden_states": inside})
    if not is_last:
        return output
    if isinstance(output, tuple):
        return (states.into(number + 1, output[0]), *output[1:])
    return states.into(number + 1, output)
