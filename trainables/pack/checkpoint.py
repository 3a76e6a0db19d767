"""A trial's own checkpoint: everything needed to go on from an epoch's end, in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainables.node.patience import patiently
from trainables.node.storage import delete, read_bytes, write_bytes


@dataclass(frozen=True)
class Checkpoint:
    """State of one trial after `epoch` epochs.

    Attributes:
        epoch: epochs done.
        weights: the trained parameters; under `memory/` in the file, whatever the adapter.
        optimiser: the optimiser's moments and step count.
        notes: curves, timings and status so far, as plain JSON values.
    """

    epoch: int
    weights: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    notes: dict[str, Any]


def write_checkpoint(location: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    from safetensors.torch import save

    tensors = {f"memory/{name}": value for name, value in checkpoint.weights.items()}
    tensors |= {f"optimiser/{name}": value for name, value in checkpoint.optimiser.items()}
    notes = json.dumps({"epoch": checkpoint.epoch, "notes": checkpoint.notes})
    patiently(write_bytes, location, save(tensors, {"checkpoint": notes}))


def read_checkpoint(location: str) -> Checkpoint | None:
    """Read a checkpoint; None when there is none, or when it is unreadable (the trial then starts over)."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = patiently(read_bytes, location)
    except FileNotFoundError:
        return None
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        told = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["checkpoint"])
    except (SafetensorError, ValueError, KeyError):
        delete(location)
        return None
    parts: dict[str, dict[str, Tensor]] = {"memory": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = value
    return Checkpoint(int(told["epoch"]), parts["memory"], parts["optimiser"], told["notes"])
