"""Texts in a row, or in a tree, as one padded row a text: for models whose attention cannot be told about either.

Padding stands on the right, where no token of a causal model looks. A tree becomes the paths to its leaves; what they
share is computed again and is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

MAX_TOKENS = 16384
"""Tokens of a tree's paths in one forward pass."""

Call = Callable[..., Tensor]
"""Takes tensors `[rows, seq, …]` and returns `[rows, seq, model_dim]`; every row is a text, padded on the right."""


def in_rows(call: Call, values: Sequence[Tensor], mask: Tensor | None, lengths: Sequence[int] | None) -> Tensor:
    """Return what `call` gives for every token, the texts taken apart and put together again.

    Args:
        call: a causal model; what one row of `values` holds stands together in its rows, as they are in order.
        values: its inputs, `[rows, seq, …]` each.
        mask: bool `[batch, 1, seq, seq]` of trees, `rows` a multiple of `batch`; None for plain texts.
        lengths: tokens of the texts that stand one after the other in every row; None where a row is one text.

    Returns:
        `[rows, seq, model_dim]`.
    """
    if lengths is not None:
        return _apart(call, values, lengths)
    return call(*values) if mask is None else _paths(call, values, mask)


def _apart(call: Call, values: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
    rows, count = len(values[0]), len(lengths)
    padded = [
        pad_sequence([text.transpose(0, 1) for text in torch.split(value, list(lengths), dim=1)], batch_first=True)
        .movedim(2, 0)
        .flatten(0, 1)
        for value in values
    ]
    out = torch.unflatten(call(*padded), 0, (rows, count))
    return torch.cat([out[:, text, :length] for text, length in enumerate(lengths)], dim=1)


def _paths(call: Call, values: Sequence[Tensor], mask: Tensor) -> Tensor:
    batch, size = len(mask), mask.shape[-1]
    sees = mask[:, 0].cpu()
    paths = [
        (row, sees[row, leaf].nonzero()[:, 0])
        for row in range(batch)
        for leaf in (sees[row].sum(dim=0) == 1).nonzero()[:, 0].tolist()
    ]
    paths.sort(key=lambda path: len(path[1]))
    packs = [torch.unflatten(value, 0, (-1, batch)) for value in values]
    members = len(packs[0])
    out: Tensor | None = None
    while paths:
        longest = len(paths[-1][1])
        few = max(1, MAX_TOKENS // (members * longest))
        chosen, paths = paths[-few:], paths[:-few]
        nodes = pad_sequence([nodes for _, nodes in chosen], batch_first=True, padding_value=-1)
        real, nodes = nodes >= 0, nodes.clamp(min=0)
        rows = torch.tensor([row for row, _ in chosen])[:, None].expand_as(nodes)
        found = torch.unflatten(call(*(pack[:, rows, nodes].flatten(0, 1) for pack in packs)), 0, (members, -1))
        if out is None:
            out = found.new_zeros(members, batch, size, found.shape[-1])
        places = (torch.arange(members)[:, None], rows[real][None], nodes[real][None])
        out = out.index_put(tuple(place.to(found.device) for place in places), found[:, real])
    assert out is not None
    return out.flatten(0, 1)
