"""What a memory's products in bfloat16 change: `python -m benchmarks.precision [MODEL ...]`, each trial in both."""

from __future__ import annotations

import io
import sys
import tempfile

import pandas
import torch

from benchmarks.common import start_pack
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec

SETTINGS: tuple[dict[str, object], ...] = (
    {}, {"allocation": "partitioned", "alpha": 0.5}, {"allocation": "simset2", "alpha": 1.0},
    {"allocation": "partitioned", "mode": "hard"},
)  # fmt: skip
USUAL = {"depth": 0.75, "num_documents": 8, "epochs": 10, "segment_tokens": 64, "memory_dim": 64}
SHOWN = ("memory/nll", "memory/leakage", "fever/accuracy")


def compare(model: str, cache: ProcessCache) -> list[str]:
    """Return a line for each setting: its metrics in float32 and in bfloat16, and how many answers differ."""
    found = []
    for precision in ("float32", "bfloat16"):
        told = {"model": model, "memory_precision": precision, **USUAL}
        specs = [canonical(make_spec({**told, **more})) for more in SETTINGS]
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            run = start_pack(specs, cache, folder)
            while not run.done:
                run.step()
            run.finish()
            found.append([(run.log.metrics[k], run.log.files[k]) for k in range(len(specs))])
    lines = []
    for more, (one, files), (other, other_files) in zip(SETTINGS, *found, strict=True):
        name = next(name for name in files if name.endswith("answers.parquet"))
        answers = [pandas.read_parquet(io.BytesIO(each[name]))["answer"] for each in (files, other_files)]
        changed = int((answers[0] != answers[1]).sum())
        pairs = ", ".join(f"{name} {one[name]:.5f} {other[name]:.5f}" for name in SHOWN if name in one)
        lines.append(f"{model} {more}: {pairs}; {changed} of {len(answers[0])} answers differ")
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    kept = ProcessCache(torch.device("cpu"), None)
    for asked in sys.argv[1:] or ("sample-llama", "sample-neox"):
        print("\n".join(compare(asked, kept)), flush=True)
