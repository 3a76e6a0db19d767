"""The inductive loss: the share of a memory's activity that lies outside the entries it should use."""

from __future__ import annotations

import torch
from torch import Tensor


def leakage(activations: Tensor, mask: Tensor | None) -> Tensor:
    """Return each position's leakage: activation energy on entries outside the set, over all energy.

    The loss of note 002 is named there but not defined; this definition is ours. Energy is the sum of squared
    activations after GELU, so leakage lies between 0 and 1 and does not change with the activations' scale
    (as long as their squares fit float32: magnitudes from about 1e-15 to 1e15).

    Args:
        activations: `[K, ..., M]` float32, before any mask.
        mask: Bool, broadcastable to `activations`, True for entries inside the set; None = every entry.

    Returns:
        `[K, ...]`; 0 where a position has no energy at all.
    """
    if mask is None:
        return torch.zeros_like(activations[..., 0])
    energy = activations.square()
    total = energy.sum(-1)
    outside = energy.masked_fill(mask, 0.0).sum(-1)
    return outside / torch.where(total > 0, total, torch.ones_like(total))
