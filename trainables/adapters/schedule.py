"""The learning rate over a training: what all adapters that train share."""

from __future__ import annotations

import math


def cosine_with_warmup(step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the factor on the learning rate before step number `step` (from 0).

    Linear from 0 over the warm-up, then half a cosine to 0: the values of
    `transformers.get_cosine_schedule_with_warmup`.
    """
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
