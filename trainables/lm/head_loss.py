"""Cross-entropy through a frozen head without keeping logits.

With the head frozen, the gradient of a token's loss to its final hidden state is known as soon as the logits are:
`(softmax(logits) - onehot(label)) @ head_weight`. It is made in the forward pass, over one part of the vocabulary
after the other, with the largest logit so far as in flash attention: the logits `[tokens, vocab]` never exist as a
whole and are not computed again, and each part of the weights is used twice while it is in the cache. (Ours;
Liger-Kernel's fused linear cross-entropy uses the same identity, over parts of the tokens.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.lm.pass_sizes import CPU_WORDS, DEVICE_BYTES

IGNORED = -100


def token_nll(
    final: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
    labels: Tensor,
    part: int | None = None,
    scale: float = 1.0,
    cap: float | None = None,
) -> Tensor:
    """Return the negative log-likelihood of every label, `[tokens]`, float32, natural logarithm.

    Equals `F.cross_entropy(F.linear(final, head_weight, head_bias).float(), labels, reduction="none")`, also
    in its gradient to `final`; with a scale and a cap the logits are first scaled, then capped as in Gemma 2. It can
    be differentiated once.

    Args:
        final: hidden states after the final norm, `[tokens, model_dim]`.
        head_weight: frozen, `[vocab, model_dim]`.
        head_bias: frozen, `[vocab]`, or None.
        labels: `[tokens]`, int64; -100 gives loss and gradient 0.
        part: words of the vocabulary taken at one time; None: as many as suit the device (`words_of_a_part`).
        scale: factor of the logits.
        cap: logits become `cap * tanh(logits / cap)`; None: they stay.

    Raises:
        ValueError: a head that requires a gradient, which it would not get.
    """
    if head_weight.requires_grad or (head_bias is not None and head_bias.requires_grad):
        raise ValueError("token_nll is for a frozen head; a head that is trained gets no gradient here")
    part = part or words_of_a_part(final.device, len(final), len(head_weight))
    nll: Tensor = _TokenNLL.apply(final, head_weight, head_bias, labels, part, scale, cap)  # type: ignore[no-untyped-call]
    return nll


def words_of_a_part(device: torch.device, tokens: int, vocabulary: int) -> int:
    """Return how many words of the vocabulary are taken at one time, in parts of about one size."""
    if device.type == "cpu":
        return CPU_WORDS
    parts = -(-4 * tokens * vocabulary // DEVICE_BYTES)
    return -(-vocabulary // max(1, min(vocabulary, parts)))


class _TokenNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        final: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        part: int,
        scale: float,
        cap: float | None,
    ) -> Tensor:
        exact = torch.promote_types(final.dtype, torch.float32)
        wanted: bool = ctx.needs_input_grad[0]
        counted = (labels != IGNORED).unsqueeze(1)
        label = labels.unsqueeze(1).masked_fill(~counted, 0)
        top = own = others = torch.empty(0)  # of the parts so far; the first makes them
        own_slope: Tensor | float = scale
        pull: Tensor | None = None
        for start in range(0, len(weight), part):
            words = weight[start : start + part]
            logits = final @ words.T if bias is None else torch.addmm(bias[start : start + part], final, words.T)
            logits = logits.to(exact)
            slope = None
            if scale != 1.0:
                logits = logits * scale
            if cap is not None:
                bent = torch.tanh(logits / cap)
                logits = bent * cap
                slope = bent.square_().neg_().add_(1).mul_(scale) if wanted else None
            column = (label - start).clamp(0, len(words) - 1)
            here = column + start == label
            elsewhere = ~here
            mine = logits.gather(1, column).masked_fill_(elsewhere, 0.0)
            own = own + mine if start else mine
            higher = logits.amax(dim=1, keepdim=True)
            if start:
                higher = torch.maximum(top, higher)
            rescale = (top - higher).exp() if start else None
            exps = logits.sub_(higher).exp_()
            # The label's own share is left out: it is added at the end, where a sure token keeps its small gradient.
            exps.scatter_(1, column, exps.gather(1, column).masked_fill_(here, 0.0))
            share = exps.sum(dim=1, keepdim=True)
            others = share if rescale is None else others * rescale + share
            if wanted:
                if slope is not None:
                    own_slope = torch.where(here, slope.gather(1, column), own_slope)
                    exps.mul_(slope)
                elif scale != 1.0:
                    exps.mul_(scale)
                pull = _added(pull, rescale, exps, words)
            top = higher
        total = others + (own - top).exp()
        if pull is not None:
            gradient = (pull - others * own_slope * weight.index_select(0, label.squeeze(1))) / total * counted
            ctx.save_for_backward(gradient.to(final.dtype))
        return ((total.log() + top - own) * counted).squeeze(1).float()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *by_nll: Tensor) -> tuple[Tensor, None, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * by_nll[0].unsqueeze(1)).to(gradient.dtype), None, None, None, None, None, None


def _added(pull: Tensor | None, rescale: Tensor | None, exps: Tensor, words: Tensor) -> Tensor:
    """Return the gradient's part of the words so far, weighted anew, with that of some more."""
    if words.dtype != exps.dtype:
        more = (exps.to(words.dtype) @ words).to(exps.dtype)
        return more if pull is None or rescale is None else pull * rescale + more
    return exps @ words if pull is None or rescale is None else torch.addmm(pull * rescale, exps, words)
