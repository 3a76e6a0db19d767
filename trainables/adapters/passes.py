"""Forward passes of the blocks above the memory: their error, and how texts and members are split over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from trainables.lm.batches import TextBatch, TextBatches
from trainables.lm.upper import Upper


def member_nll(upper: Upper, batch: TextBatch, states: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """Return the NLL of every target token of some texts: `[members, targets]`, float32.

    Args:
        upper: blocks above the adapter.
        batch: the texts.
        states: `[members, tokens, model_dim]`, as the members change them.
        layers: each member's block, or that of each of the texts of a single row; None for the one below `upper`.
    """
    tokens = batch.tokens[None] if upper.needs_tokens else None
    final = upper(states, positions=batch.positions[None], lengths=batch.lengths, tokens=tokens, layers=layers)
    picked = batch.target_places.of(final).flatten(0, 1)
    return upper.nll(picked, batch.labels.repeat(len(states))).reshape(len(states), -1)


def trained_nll(upper: Upper, batch: TextBatch, states: Tensor, layers: Sequence[int] | None = None) -> Tensor:
    """Return the same for a pass whose gradient is wanted by the states alone: on a GPU, recorded where that helps."""

    def compute(texts: TextBatch, own: Tensor) -> Tensor:
        return member_nll(upper, texts, own, layers)

    if layers is not None and {*layers} != {upper.layer}:
        return compute(batch, states)
    # the weights are frozen: what comes back goes to the states only
    flops = 4.0 * upper.num_weights * states.shape[0] * states.shape[1]
    return upper.recordings.nll(compute, batch, states, flops)


def passes(batches: TextBatches, members: int, max_tokens: int) -> Iterator[tuple[TextBatch, slice]]:
    """Yield all texts for all members: texts of one forward pass, and which members it is for.

    Args:
        batches: the texts.
        members: members of the pack.
        max_tokens: over all members of a pass.
    """
    for batch in batches.by_length(max_tokens):
        for who, texts in slices(members, batch.lengths, max_tokens):
            yield batch.part(texts), who


def slices(members: int, lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Split a step into forward passes of at most `max_tokens` tokens: by members first, then by texts.

    Args:
        members: members of the pack.
        lengths: tokens of each text.
        max_tokens: over all members of a pass; one text of one member is always a pass.

    Yields:
        Which members, and which texts.
    """
    if (tokens := sum(lengths)) <= max_tokens:
        together = max_tokens // max(1, tokens)
        for start in range(0, members, together):
            yield slice(start, min(members, start + together)), slice(0, len(lengths))
        return
    cuts = list(stretches(lengths, max_tokens))
    for member in range(members):
        for start, end in cuts:
            yield slice(member, member + 1), slice(start, end)


def stretches(sizes: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Yield where each stretch of neighbours starts and ends that takes at most `room` together, or is one alone."""
    start, left = 0, room
    for place, size in enumerate(sizes):
        if size > left and place > start:
            yield start, place
            start, left = place, room
        left -= size
    yield start, len(sizes)
