"""Rows read by their places, and texts padded and put together again: what indexing gives, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.lm.gathered_rows import Padding, Places
from trainables.lm.transfer import sent

CPU = torch.device("cpu")


def gradient_of(values: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    weights = torch.linspace(-1, 1, found.numel()).view(found.shape)
    return torch.autograd.grad((found * weights).sum(), values)[0]


@pytest.mark.parametrize("taken", [(0, 2, 3), (3, 1), (0, 1, 2, 3)])
def test_rows_and_their_gradient_are_those_of_indexing(taken: tuple[int, ...]) -> None:
    values = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    back = [taken.index(row) if row in taken else len(taken) for row in range(4)]
    found = Places(sent(taken, CPU), sent(back, CPU), len(taken) < 4).of(values)
    expected = values[:, list(taken)]
    assert torch.equal(found, expected)
    assert torch.equal(gradient_of(values, found), gradient_of(values, expected))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=5))
def test_texts_apart_and_together_again_are_as_they_were(lengths: list[int]) -> None:
    total, padding = sum(lengths), Padding.of_texts(lengths, CPU)
    values = torch.randn(3, total, 2, generator=torch.Generator().manual_seed(total)).requires_grad_()
    apart = padding.apart(values)
    assert apart.shape == (3 * len(lengths), max(lengths), 2)
    starts = np.cumsum([0, *lengths])
    for row in range(3):
        for text, (start, length) in enumerate(zip(starts, lengths, strict=False)):
            own = apart[row * len(lengths) + text]
            assert torch.equal(own[:length], values[row, start : start + length])
            assert (own[length:] == own[length - 1]).all(), "padding holds nothing that is not the text's own"
    assert torch.equal(padding.together(apart), values)
    assert torch.equal(gradient_of(values, padding.together(apart * 2)), gradient_of(values, values * 2))


def test_the_numbers_sent_are_those_given() -> None:
    assert sent([1, 2], CPU).tolist() == [1, 2] and sent(np.array([True, False]), CPU).dtype == torch.bool
    assert sent(np.arange(6)[::2], CPU).tolist() == [0, 2, 4]
