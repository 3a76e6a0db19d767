"""Rows taken from a tensor by their places, forward and backward as plain reads.

Indexing's own gradient adds up what may stand twice: on a GPU a sort, and several kernels where the result must not
depend on their order. Here it is known that no row counts twice, so the gradient is a read from known places as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.lm.transfer import sent


@dataclass(frozen=True)
class Places:
    """Which rows are taken, and where each row's gradient comes from.

    Attributes:
        taken: int64 `[n]`, rows that are taken.
        back: int64, for each row there is: the place in `taken` whose gradient it gets; n for none.
        some_have_none: whether `back` says n anywhere.
    """

    taken: Tensor
    back: Tensor
    some_have_none: bool

    def of(self, values: Tensor) -> Tensor:
        """Return the rows of `[any, rows, ...]`, as `[any, n, ...]`; a row that is taken twice gets one gradient."""
        found: Tensor = _Take.apply(values, self.taken, self.back, self.some_have_none)  # type: ignore[no-untyped-call]
        return found


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, taken: Tensor, back: Tensor, some_have_none: bool) -> Tensor:
        ctx.save_for_backward(back)
        ctx.some_have_none = some_have_none
        return values.index_select(1, taken)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,), (back,) = gradients, ctx.saved_tensors
        if ctx.some_have_none:
            none = gradient.new_zeros(()).expand(len(gradient), 1, *gradient.shape[2:])
            gradient = torch.cat([gradient, none], dim=1)
        return gradient.index_select(1, back), None, None, None


@dataclass(frozen=True)
class Padding:
    """The texts of a row as rows of their own, padded on the right, and back.

    Attributes:
        count: texts.
        width: tokens of the longest.
    """

    count: int
    width: int
    _there: Places
    _back: Places

    @classmethod
    def of_texts(cls, lengths: Sequence[int], device: torch.device) -> Padding:
        """Return the padding of texts that stand one after the other."""
        sizes = np.asarray(lengths)
        width, total = int(sizes.max()), int(sizes.sum())
        starts, column = np.cumsum(sizes) - sizes, np.arange(width)
        real = (column < sizes[:, None]).ravel()
        # padding is a copy of a text's last token, so that it holds nothing that is not the text's own
        tokens = (starts[:, None] + np.minimum(column, sizes[:, None] - 1)).ravel()
        places = np.flatnonzero(real)
        padded, plain, of_padding = (sent(each, device) for each in (tokens, places, np.where(real, tokens, total)))
        return cls(len(sizes), width, Places(padded, plain, False), Places(plain, of_padding, not real.all()))

    def apart(self, states: Tensor) -> Tensor:
        """Return `[rows, tokens, ...]` as `[rows * count, width, ...]`; padding has no gradient."""
        return torch.unflatten(self._there.of(states), 1, (self.count, self.width)).flatten(0, 1)

    def together(self, states: Tensor) -> Tensor:
        """Return `[rows * count, width, ...]` as `[rows, tokens, ...]` without the padding."""
        return self._back.of(torch.unflatten(states, 0, (-1, self.count)).flatten(1, 2))
