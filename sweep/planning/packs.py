"""How many trials share one forward pass when `--pack-size auto` leaves it to us."""

from __future__ import annotations

from sweep.planning.flops import train_token_flops
from sweep.planning.points import Point

CPU_PLATEAU_FLOPS = 2e10
"""FLOPs of a step beyond which a CPU computes all the time, so that larger packs gain nothing (ours)."""
PLATEAU_TOKENS = 16_384
"""Tokens of a pack in one forward pass beyond which larger packs gain nothing (ours)."""
LARGEST = 32
_BYTES_PER_PARAMETER = 16  # value, gradient and two moments, float32


def auto_pack_size(point: Point, memory_bytes: float, on_gpu: bool = True) -> int:
    """Return the members of a pack: up to the plateau of throughput, within the memory there is.

    A step's tokens are bounded by `micro_batch_tokens` whatever the pack, so the bank's parameters with their
    optimiser state decide whether a pack fits; they may take half of the memory.

    Args:
        point: one of the trials.
        memory_bytes: memory of the device, for one pack.
        on_gpu: whether that is a GPU. On a CPU a pack only saves overhead, which a model of some size does not notice.
    """
    spec = point.spec
    tokens = spec.batch_size * spec.segment_tokens
    plateau = PLATEAU_TOKENS // tokens
    if not on_gpu:
        plateau = min(plateau, int(CPU_PLATEAU_FLOPS / (tokens * train_token_flops(spec, point.card) + 1)))
    per_member = 2 * spec.memory_dim * point.card.model_dim * _BYTES_PER_PARAMETER
    return max(1, min(LARGEST, plateau, int(memory_bytes / 2 // per_member)))
