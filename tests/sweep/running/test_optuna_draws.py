"""A sampled stage on a real local Ray: Optuna draws, ASHA stops, a second run draws nothing new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SPACE = """
from sweep.space import ALL, Best, LogUniform, Sampling, Space, Stage

space = Space(
    name="draws",
    title="a tiny sampled study",
    axes={"model": [%(model)r], "layer": [0, 2]},
    fixed={"data": %(data)r, "memory_dim": 16, "epochs": 6, "segment_tokens": 32, "claims_per_page": 1,
           "allocation": "partitioned", "num_documents": 3},
    stages=(
        Stage(name="select", axes={"model": ALL, "layer": ALL}, fixed={"alpha": 0}),
        Stage(
            name="tune",
            axes={"model": ALL},
            take=Best(field="layer", stage="select", per=("model",)),
            sampling=Sampling(fields={"alpha": LogUniform(0.05, 5.0), "lr": LogUniform(1e-5, 1e-1)}, num_samples=6,
                              grace_epochs=2, reduction=2),
        ),
    ),
)
"""


def run(space: Path, storage: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sweep.run", str(space), "--storage", str(storage), "--max-concurrent", "2", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
    )


def test_draws_run_some_are_stopped_early_and_a_second_run_goes_on_where_the_first_ended(
    tmp_path, tiny_models, sample_data
):
    space = tmp_path / "draws.py"
    space.write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    first = run(space, tmp_path / "out", "--set", "num_samples=4")
    assert first.returncode == 0 and "note: MLflow" not in first.stdout, first.stdout + first.stderr
    second = run(space, tmp_path / "out")
    assert second.returncode == 0, second.stdout + second.stderr
    found = [json.loads(p.read_text()) for p in (tmp_path / "out").rglob("record.json")]
    drawn = [r for r in found if r["stage"] == "tune"]
    assert len(drawn) == 6 and len({r["identity"]["alpha"] for r in drawn}) == 6
    stopped = [r for r in drawn if r["status"] == "stopped"]
    assert stopped and all(len(r["curves"]["train/nll"]) < 6 for r in stopped)
    finished = [r for r in drawn if r["status"] == "done"]
    assert finished and all(len(r["curves"]["train/nll"]) == 6 for r in finished)
    third = run(space, tmp_path / "out")
    assert third.returncode == 0 and "0 trials to run" in third.stdout, third.stdout
