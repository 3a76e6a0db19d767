"""Cross-entropy through a frozen head without keeping logits.

With the head frozen, the gradient of a token's loss to its final hidden state is known as soon as the logits
are: `(softmax(logits) - onehot(label)) @ head_weight`. It is made in the forward pass, chunk by chunk, so
logits `[tokens, vocab]` never exist as a whole and are not computed again. (Ours; Liger-Kernel's fused linear
cross-entropy uses the same identity.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IGNORED = -100


def token_nll(
    final: Tensor, head_weight: Tensor, head_bias: Tensor | None, labels: Tensor, chunk: int = 1024
) -> Tensor:
    """Return the negative log-likelihood of every label, `[tokens]`, float32, natural logarithm.

    Equals `F.cross_entropy(F.linear(final, head_weight, head_bias).float(), labels, reduction="none")`, also
    in its gradient to `final`. It can be differentiated once.

    Args:
        final: hidden states after the final norm, `[tokens, model_dim]`.
        head_weight: frozen, `[vocab, model_dim]`.
        head_bias: frozen, `[vocab]`, or None.
        labels: `[tokens]`, int64; -100 gives loss and gradient 0.
        chunk: tokens whose logits exist at one time.

    Raises:
        ValueError: a head that requires a gradient, which it would not get.
    """
    if head_weight.requires_grad or (head_bias is not None and head_bias.requires_grad):
        raise ValueError("token_nll is for a frozen head; a head that is trained gets no gradient here")
    nll: Tensor = _TokenNLL.apply(final, head_weight, head_bias, labels, chunk)  # type: ignore[no-untyped-call]
    return nll


class _TokenNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, final: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk: int
    ) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        nll = torch.empty(len(final), dtype=torch.float32, device=final.device)
        gradient = torch.empty_like(final) if needs_gradient else None
        room = final.new_empty(min(chunk, len(final)), len(weight))
        for start in range(0, len(final), chunk):
            part = slice(start, start + chunk)
            counted = (labels[part] != IGNORED).unsqueeze(1)
            label = labels[part].unsqueeze(1).where(counted, 0)
            logits = torch.mm(final[part], weight.T, out=room[: len(label)])
            if bias is not None:
                logits += bias
            shifted = logits.float()
            own, top = shifted.gather(1, label), shifted.amax(dim=1, keepdim=True)
            exps = shifted.sub_(top).exp_()
            total = exps.sum(dim=1, keepdim=True)
            nll[part] = ((total.log() + top - own) * counted).squeeze(1)
            if gradient is not None:
                exps.scatter_add_(1, label, -total)  # before rounding, so that a sure token keeps its small gradient
                gradient[part] = (exps.to(weight.dtype) @ weight) / total * counted
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *by_nll: Tensor) -> tuple[Tensor, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * by_nll[0].unsqueeze(1)).to(gradient.dtype), None, None, None, None
