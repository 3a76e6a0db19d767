"""Rotary position embeddings of queries and keys in fewer kernels: the same numbers, bit for bit.

Written with slices and `cat`, as in `transformers`, one block's rotation is 42 kernels forward and backward, because
the gradient of a slice is a tensor of zeros that is filled in. Here queries and keys are turned together and in place,
and the gradient is turned back: 12. Most families have one of two forms of the function, which differ in whether all
numbers of a head are turned; a family's own is replaced while its blocks run, if it is one of these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

NAME = "apply_rotary_pos_emb"
"""What modules of `transformers` call the function."""


def rotated(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Return queries and keys turned by the angles of their positions.

    Args:
        q: `[rows, heads, tokens, head_dim]`.
        k: as q; may have fewer heads.
        cos: `[rows or 1, tokens, turned]`; of each head's numbers the first `turned`, at most all, are turned.
        sin: as cos.
    """
    turned: tuple[Tensor, Tensor] = _Rotate.apply(q, k, cos.unsqueeze(2), sin.unsqueeze(2))  # type: ignore[no-untyped-call]
    return turned


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        both, part, half = _side_by_side(q, k, cos)
        other = part.roll(half, -1).mul_(sin)
        part.mul_(cos)
        part[..., :half].sub_(other[..., :half])
        part[..., half:].add_(other[..., half:])
        return _apart(both, q.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (q, k), (cos, sin) = gradients, ctx.saved_tensors
        both, part, half = _side_by_side(q, k, cos)
        other = (part * sin).roll(half, -1)
        part.mul_(cos)
        part[..., :half].add_(other[..., :half])
        part[..., half:].sub_(other[..., half:])
        return *_apart(both, q.shape[1]), None, None


def _side_by_side(q: Tensor, k: Tensor, cos: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return copies of both, `[rows, tokens, heads, head_dim]`, the part of them that is turned, and half its width."""
    both = torch.cat([q.transpose(1, 2), k.transpose(1, 2)], dim=2)
    return both, both[..., : cos.shape[-1]], cos.shape[-1] // 2


def _apart(both: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return both[:, :, :heads].transpose(1, 2), both[:, :, heads:].transpose(1, 2)


@contextmanager
def in_fewer_kernels(model: Any) -> Iterator[None]:
    """Have a model's blocks turn queries and keys by `rotated` in a `with` block.

    Args:
        model: one that `can_be_replaced`.
    """
    module = sys.modules[type(model).__module__]
    theirs = getattr(module, NAME)

    def of_one_kind(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *more: Any, **named: Any) -> Any:
        usual = q.dtype == k.dtype == cos.dtype == sin.dtype and q.ndim == k.ndim == 4 and cos.ndim == 3
        return theirs(q, k, cos, sin, *more, **named) if more or named or not usual else rotated(q, k, cos, sin)

    setattr(module, NAME, of_one_kind)
    try:
        yield
    finally:
        setattr(module, NAME, theirs)


def can_be_replaced(model: Any, dtype: torch.dtype) -> bool:
    """Say whether the module of a model's class has the function, in a form that `rotated` equals."""
    theirs = getattr(sys.modules[type(model).__module__], NAME, None)
    return theirs is not None and same_as(theirs, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def same_as(theirs: Callable[..., Any], dtype: torch.dtype) -> bool:
    """Say whether a family's own function gives what `rotated` gives, and the same gradient, to the last bit.

    It is asked on the CPU: the operations are the same elsewhere, each rounded on its own. Gradients are on for it: the
    answer is kept, and a model may first be loaded where they are off.
    """
    for turned in (8, 16):
        generator = torch.Generator().manual_seed(turned)
        q, k, angles = (torch.randn(s, generator=generator) for s in ((1, 3, 5, 16), (1, 2, 5, 16), (1, 5, turned)))
        found = []
        functions: tuple[Callable[..., Any], ...] = (theirs, rotated)
        for function in functions:
            own = [each.to(dtype).requires_grad_() for each in (q, k)]
            try:
                given = function(*own, angles.cos().to(dtype), angles.sin().to(dtype))
                gradients = torch.autograd.grad(given, own, [each.detach() * 2 + 1 for each in given])
            except (RuntimeError, TypeError, ValueError):
                if turned < 16:
                    break  # it turns all numbers of a head
                return False
            found.append([each.detach() for each in (*given, *gradients)])
        if len(found) == 2 and not all(map(torch.equal, *found)):
            return False
    return True
