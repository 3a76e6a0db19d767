"""What a finished trial hands back, and the files it leaves in its folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.node.storage import join, write_bytes
from trainables.probes.fever import Answer


@dataclass
class TrialResult:
    """One trial's outcome, as plain data.

    Attributes:
        id: the trial's id.
        status: `done`, `diverged` or `failed`.
        metrics: final values by name.
        curves: name -> `[[epoch, value], …]`.
        counts: N_full, N_top, N_trunc and the row counts; `whole_model` 1 where the model could not be split.
        timings: seconds by part, this trial's share of its pack; and `pack_size`.
        flops: floating-point operations of its training.
        host: where it ran.
        error: class, message and traceback of a failure; class and message of a divergence.
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

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as it travels back to the driver."""
        return asdict(self)


def save_member_files(
    folder: str, samples: Mapping[str, Any], memory: Mapping[str, Tensor] | None, layer: int, model_key: str
) -> None:
    """Write predictions, analysis, samples and the trained memory into a trial's folder, each atomically."""
    if "answers" in samples:
        write_bytes(join(folder, "predictions.parquet"), predictions_bytes(samples["answers"]))
    for name in ("analysis", "samples"):
        if name in samples:
            write_bytes(join(folder, f"{name}.json"), json.dumps(samples[name]).encode())
    if memory is not None:
        from trainables.adapters.memory.io import save_memory

        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "memory.safetensors"
            save_memory(path, memory, layer=layer, model=model_key)
            write_bytes(join(folder, "memory.safetensors"), path.read_bytes())


def predictions_bytes(answers: Sequence[Answer]) -> bytes:
    """Return a Parquet file of answers: claim_id, page, label, rows, answer, parsed, correct."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "claim_id": pa.array([str(a.claim_id) for a in answers], pa.string()),
            "page": pa.array([a.page for a in answers], pa.string()),
            "label": pa.array([a.label for a in answers], pa.string()),
            "rows": pa.array([a.rows for a in answers], pa.int32()),
            "answer": pa.array([a.text for a in answers], pa.string()),
            "parsed": pa.array([a.letter for a in answers], pa.string()),
            "correct": pa.array([a.correct for a in answers], pa.bool_()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
