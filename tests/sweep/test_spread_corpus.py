"""A whole run over more documents than are held in memory, prepared by Ray Data and without: the same to the bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sweep.records.sweep_storage import SweepStorage
from trainables.lm.token_files import PIECE_DOCUMENTS
from trainables.pack.document_texts import HELD_DOCUMENTS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = HELD_DOCUMENTS + 50
SPACE = """
from sweep.space import ALL, Space, Stage

space = Space(
    baseline=False,
    name="many",
    title="a memory of many small documents",
    axes={"alpha": [1.0]},
    fixed={"model": %(model)r, "data": %(data)r, "dtype": "float32", "num_documents": %(documents)d, "layer": 1,
           "memory_dim": 32, "entries_per_group": 4, "allocation": "simset2", "segment_tokens": 8, "max_segments": 1,
           "batch_size": 512, "epochs": 1, "probes": ()},
    stages=(Stage(name="all", axes={"alpha": ALL}),),
)
"""
TIMES = ("timings", "started_at", "finished_at", "host", "pack", "node")
WEIGHTS = "memory.safetensors"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder for Ray, whose sockets have short paths."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def write_documents(folder: Path) -> None:
    """Write short texts of a few words, many of them in several documents."""
    folder.mkdir()
    draw = random.Random(0)
    words = [f"{first}{last}" for first in ("or", "ta", "mi", "ke", "sul") for last in ("sk", "ven", "ra", "lo", "n")]
    with (folder / "documents.jsonl").open("w") as file:
        for number in range(DOCUMENTS):
            file.write(json.dumps({"id": f"d{number}", "text": " ".join(draw.choices(words, k=6))}) + "\n")


def results(storage: Path) -> dict[str, Any]:
    """All that is recorded of each trial but when and where it ran, and its weights, as one flat table.

    The bytes of a file of weights may differ where the weights do not: the library has no order in its header.
    """
    found: dict[str, Any] = {}

    def lay_out(place: str, value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                if name not in (*TIMES, WEIGHTS):
                    lay_out(f"{place}/{name}", item)
        else:
            found[place] = value

    for trial, head in SweepStorage(str(storage)).index().items():
        lay_out(trial, head.record())
        weights = load_file(storage / head.folder / WEIGHTS)
        found |= {f"{trial}/{name}": values.numpy().tobytes() for name, values in weights.items()}
    return found


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_a_run_whose_corpus_is_spread_has_the_results_of_one_that_is_not(
    tiny_models: dict[str, Path], tmp_path: Path, short_folder: Path
) -> None:
    assert DOCUMENTS > 2 * PIECE_DOCUMENTS  # else nothing is spread
    write_documents(tmp_path / "texts")
    told = {"model": str(tiny_models["llama"]), "data": str(tmp_path / "texts"), "documents": DOCUMENTS}
    (tmp_path / "space.py").write_text(SPACE % told)
    env = {**os.environ, "MLFLOW_TRACKING_URI": "", "RAY_TMPDIR": str(short_folder)}
    env["MEMORY_SWEEP_CACHE"] = str(tmp_path / "cache")
    found, spread = {}, {}
    for name, flag in (("alone", []), ("spread", ["--spread-corpus"])):
        call = [sys.executable, "-m", "sweep.run", str(tmp_path / "space.py"), "--storage", str(tmp_path / name)]
        call += ["--max-concurrent", "1", "--no-report", *flag]
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, timeout=800, env=env)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found[name] = results(tmp_path / name)
        spread[name] = len(list(short_folder.rglob("ray-data.log")))
        shutil.rmtree(tmp_path / "cache" / "tokens")  # the other run makes them itself
    assert (spread["alone"], spread["spread"]) == (0, 1), "Ray Data was to work in the second run alone"
    assert [value for place, value in found["alone"].items() if place.endswith("/status")] == ["done"]
    assert found["spread"].keys() == found["alone"].keys()
    assert {place: (value, found["spread"][place]) for place, value in found["alone"].items()
            if found["spread"][place] != value} == {}  # fmt: skip
