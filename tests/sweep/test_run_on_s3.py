"""A sweep whose storage is a bucket: driver and workers, each a process of its own, on a real S3 server."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sweep.records.store import Store

ROOT = Path(__file__).resolve().parents[2]
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    name="tiny",
    title="two trials",
    axes={"model": [%(model)r], "layer": [0, 2]},
    fixed={"data": %(data)r, "memory_dim": 16, "epochs": 2, "segment_tokens": 32, "num_documents": 2,
           "claims_per_page": 1, "checkpoint_every_s": 0},
    stages=(Stage(name="all", axes={"model": ALL, "layer": ALL}),),
)
"""


@pytest.mark.slow
def test_a_sweep_in_a_bucket_runs_to_its_end_and_again(tmp_path, tiny_models, sample_data, s3_options):
    def run() -> str:
        command = [sys.executable, "-m", "sweep.run", str(tmp_path / "space.py"), "--storage", store.uri]
        env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "space.py").write_text(SPACE % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    store = Store(f"s3://bucket/sweeps?{s3_options}")
    assert "2 trials to run" in run()
    index = store.index()
    assert {head.status for head in index.values()} == {"done"} and len(index) == 2
    for head in index.values():
        answers = pq.read_table(io.BytesIO(store.read(f"{head.folder}/predictions.parquet")))
        assert answers.num_rows == head.record()["counts"]["n_trunc"]
        assert store.exists(f"{head.folder}/memory.safetensors")
    assert store.find("tiny/checkpoints", f"{next(iter(index))}.safetensors") == []
    before = {head.folder: store.read_version(f"{head.folder}/record.json") for head in index.values()}
    assert "0 trials to run" in run()
    assert {folder: store.read_version(f"{folder}/record.json") for folder in before} == before
    assert json.loads(store.read("tiny/plan.json"))["stages"][0]["points"] == 2
