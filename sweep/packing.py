"""How many trials share one forward pass when `--pack-size auto` leaves it to us."""

from __future__ import annotations

from sweep.points import Point

PLATEAU_TOKENS = 16_384
"""Tokens of a pack in one forward pass beyond which larger packs gain nothing (ours)."""
LARGEST = 32
_BYTES_PER_PARAMETER = 16  # value, gradient and two moments, float32


def auto_pack_size(point: Point, memory_bytes: float) -> int:
    """Return the members of a pack: up to the plateau of throughput, within the memory there is.

    A step's tokens are bounded by `micro_batch_tokens` whatever the pack, so the bank's parameters with their
    optimiser state decide whether a pack fits; they may take half of the memory.

    Args:
        point: one of the trials.
        memory_bytes: memory of the device, for one pack.
    """
    spec = point.spec
    plateau = PLATEAU_TOKENS // (spec.batch_size * spec.segment_tokens)
    per_member = 2 * spec.memory_dim * point.card.model_dim * _BYTES_PER_PARAMETER
    return max(1, min(LARGEST, plateau, int(memory_bytes / 2 // per_member)))
