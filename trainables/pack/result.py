"""What a finished trial returns, and the files that it leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trainables.node.checksums import content_sum
from trainables.node.patience import patiently
from trainables.node.storage import join, write_bytes


@dataclass
class TrialResult:
    """One trial's outcome, as plain data.

    Attributes:
        id: the trial's id.
        status: `done`, `stopped`, `diverged` or `failed`.
        metrics: final values by name.
        curves: name -> `[[epoch, value], …]`.
        counts: N_full, N_top, N_trunc and the row counts; `whole_model` 1 where the model could not be split.
        timings: seconds by part, this trial's share of its pack; and `pack_size`.
        flops: floating-point operations of its training.
        host: where it ran.
        error: class, message and traceback of a failure; class and message of a divergence.
        files: the files in its folder, by name: their size (`bytes`) and checksum (`blake2b`).
        askings: what each asking came to besides its metrics, by its id: `counts` and `timings`. Its metrics and curves
            are among the others, under its label and a slash; its answers are among the files, in its folder.
    """

    id: str
    status: str
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    flops: float = 0.0
    host: str = ""
    error: dict[str, str] | None = None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    askings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as it travels back to the driver."""
        return asdict(self)


def write_member_files(folder: str, files: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """Write a trial's files into its folder, each atomically, and say what they are, as its record keeps it."""
    for name, content in files.items():
        patiently(write_bytes, join(folder, name), content)
    return {name: {"bytes": len(content), "blake2b": content_sum(content)} for name, content in files.items()}
