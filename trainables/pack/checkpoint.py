"""A trial's own checkpoint: everything needed to go on from an epoch's end, in one safetensors file.

The file says whose it is and holds a checksum over all of it. What is not whole, or is another trial's, is not used:
the trial starts over, and says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trainables.errors import DataError
from trainables.node.addresses import shown
from trainables.node.checksums import tensors_sum
from trainables.node.patience import patiently
from trainables.node.storage import read_bytes, write_bytes

FORMAT = "memory-sweep-checkpoint/2"
_PARTS = ("memory", "optimiser")


class BadCheckpoint(DataError):
    """A checkpoint that cannot be used: broken, changed, or of another trial."""


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


def write_checkpoint(location: str, checkpoint: Checkpoint, trial: str) -> None:
    """Write a trial's checkpoint atomically."""
    from safetensors.torch import save

    tensors = {f"memory/{name}": value for name, value in checkpoint.weights.items()}
    tensors |= {f"optimiser/{name}": value for name, value in checkpoint.optimiser.items()}
    notes = json.dumps({"epoch": checkpoint.epoch, "notes": checkpoint.notes})
    texts = {"format": FORMAT, "trial": trial, "checkpoint": notes}
    patiently(write_bytes, location, save(tensors, {**texts, "blake2b": tensors_sum(tensors, texts)}))


def read_checkpoint(location: str, trial: str | None = None) -> Checkpoint | None:
    """Read a checkpoint; None when there is none.

    Files of the first format, which have no checksum and do not say whose they are, are read too.

    Args:
        location: of the file.
        trial: whose it must be; None for anybody's.

    Raises:
        BadCheckpoint: it is broken, not what was written, or of another trial.
    """
    try:
        content = patiently(read_bytes, location)
    except FileNotFoundError:
        return None
    try:
        return _parse(content, trial)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BadCheckpoint(f"{shown(location)}: not used ({error})") from None


def _parse(content: bytes, trial: str | None) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"not a safetensors file: {error}") from None
    size = int.from_bytes(content[:8], "little")
    texts = dict(json.loads(content[8 : 8 + size])["__metadata__"])
    if set(texts) != {"checkpoint"}:
        checksum = texts.pop("blake2b", "")
        if texts.get("format") != FORMAT:
            raise ValueError(f"its format is {texts.get('format')!r}, expected {FORMAT!r}")
        if checksum != tensors_sum(tensors, texts):
            raise ValueError("its checksum is another: it is not what was written")
        if trial is not None and texts["trial"] != trial:
            raise ValueError(f"it is of trial {texts['trial']}")
    told = _read_notes(texts["checkpoint"])
    _check_notes(told)
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise ValueError(f"unknown tensor {name!r}")
        parts[part][rest] = value
    return Checkpoint(told["epoch"], parts["memory"], parts["optimiser"], told["notes"])


def _read_notes(text: str) -> Any:
    """Return a checkpoint's notes; the curves of a member that diverged may hold NaN, which is Python's own JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check_notes(told: Any) -> None:
    """Refuse notes of which a run could not go on."""
    notes = told["notes"]
    if type(told["epoch"]) is not int or told["epoch"] < 1:
        raise ValueError(f"epoch {told['epoch']!r} is none")
    at, curves, timings = notes["diverged_at"], notes["curves"], notes.get("timings", {})
    if not (at is None or type(at) is int) or not isinstance(curves, dict):
        raise ValueError("its notes are not a trial's")
    if not isinstance(timings, dict) or not all(isinstance(value, (int, float)) for value in timings.values()):
        raise ValueError("its notes hold times that are none")
    if type(notes.get("pack_size", 1)) is not int:
        raise ValueError("its notes hold a size of a pack that is none")
    for curve in curves.values():
        for epoch, value in curve:
            if not isinstance(epoch, (int, float)) or not isinstance(value, (int, float)):
                raise ValueError("its notes hold a curve that is none")
