"""The loss through a frozen head is cross-entropy, in value and gradient, without its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.lm.head_loss import token_nll


def example(tokens: int = 37, dim: int = 16, vocab: int = 53) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(tokens, dim, generator=generator)
    weight, bias = torch.randn(vocab, dim, generator=generator), torch.randn(vocab, generator=generator)
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    labels[::5] = -100
    return final, weight, bias, labels


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("part", [1, 8, 37, None])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_cross_entropy_in_value_and_gradient(device: str, part: int | None, with_bias: bool) -> None:
    final, weight, bias, labels = (tensor.to(device) for tensor in example())
    head_bias = bias if with_bias else None
    ours, plain = final.clone().requires_grad_(), final.clone().requires_grad_()
    nll = token_nll(ours, weight, head_bias, labels, part=part)
    expected = F.cross_entropy(F.linear(plain, weight, head_bias), labels, reduction="none")
    by_token = torch.linspace(0.1, 2.0, len(final), device=device) / len(final)
    (nll * by_token).sum().backward()
    (expected * by_token).sum().backward()
    torch.testing.assert_close(nll, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.grad, plain.grad, atol=1e-6, rtol=1e-6)


def test_the_numerical_gradient_agrees() -> None:
    final, weight, bias, labels = example(5, 4, 7)
    final = final.double().requires_grad_()
    step = torch.zeros_like(final)
    step[1, 2] = 1e-3
    token_nll(final, weight.double(), bias.double(), labels).sum().backward()
    with torch.no_grad():
        up, down = (token_nll(final + sign * step, weight.double(), bias.double(), labels).sum() for sign in (1, -1))
    assert final.grad is not None
    assert float(final.grad[1, 2]) == pytest.approx(float(up - down) / 2e-3, abs=1e-3)


def test_bfloat16_is_as_close_as_plain_bfloat16() -> None:
    final, weight, _, labels = (part.bfloat16() if part.is_floating_point() else part for part in example())
    ours, plain = final.clone().requires_grad_(), final.clone().requires_grad_()
    nll = token_nll(ours, weight, None, labels)
    expected = F.cross_entropy(F.linear(plain, weight).float(), labels, reduction="none")
    nll.sum().backward()
    expected.sum().backward()
    assert nll.dtype == torch.float32 and ours.grad is not None and ours.grad.dtype == torch.bfloat16
    torch.testing.assert_close(nll, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.grad, plain.grad, atol=2e-2, rtol=2e-2)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


def test_logits_of_all_tokens_never_exist_and_none_are_kept() -> None:
    final, weight, _, labels = example(tokens=64, dim=4, vocab=53)
    kept: list[Tensor] = []
    final.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        with LargestTensor() as largest:
            nll = token_nll(final, weight, None, labels, part=8)
            nll.sum().backward()
    assert largest.numel <= 64 * 8
    assert [tuple(tensor.shape) for tensor in kept] == [(64, 4)], "the gradient to `final` alone"


def test_no_gradient_is_made_when_none_is_wanted() -> None:
    final, weight, _, labels = example()
    assert token_nll(final, weight, None, labels).requires_grad is False


def test_a_head_that_is_trained_is_refused() -> None:
    final, weight, _, labels = example()
    with pytest.raises(ValueError, match="frozen head"):
        token_nll(final, weight.requires_grad_(), None, labels)


def test_no_tokens_give_no_loss() -> None:
    final, weight, _, labels = example()
    assert token_nll(final[:0], weight, None, labels[:0]).shape == (0,)
