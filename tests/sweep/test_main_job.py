"""The main job by its default names, from empty caches, against stand-ins for the Hub and the official sites."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.records.sweep_storage import SweepStorage
from tests.stand_ins import Hub, OfficialSite, Rule, model_files
from trainables.lm.aliases import MODELS

ROOT = Path(__file__).parents[2]
SPACES = ROOT / "search_spaces"
SMALL = [
    "depth=0.5,1.0", "alpha=0,1.0", "allocation=partitioned", "num_documents=2,4", "memory_dim=16", "epochs=1",
    "segment_tokens=32", "max_segments=2", "claims_per_page=2", "dtype=float32",
]  # fmt: skip


def command(*words: str, cwd: Path, limit_s: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "MEMORY_SWEEP_CACHE": str(cwd / "cache"), **environment}
    run = [sys.executable, "-m", *words]
    return subprocess.run(run, cwd=cwd, env=settings, capture_output=True, text=True, timeout=limit_s)


def job(cwd: Path, space: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command("sweep.run", str(SPACES / space), *words, cwd=cwd, **environment)


def sets(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


@pytest.fixture
def on_the_hub(hub: Hub, tiny_models: dict[str, Path]) -> Hub:
    hub.add("models", "someone/tiny").commit(model_files(tiny_models["llama"]))
    hub.add("models", "meta-llama/Llama-2-7b-hf", gated=True).commit(model_files(tiny_models["llama"]))
    return hub


@pytest.mark.slow
def test_the_main_job_runs_to_its_end_from_its_defaults(
    on_the_hub: Hub, official: OfficialSite, tmp_path: Path
) -> None:
    small = sets("model=someone/tiny", *SMALL)
    done = job(tmp_path, "inductive.py", *small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done" in done.stdout and "Traceback" not in done.stderr
    records = [head.record() for head in SweepStorage(str(tmp_path / "outputs")).index().values()]
    assert records and {record["status"] for record in records} == {"done"}
    assert {record["data"]["given"] for record in records} == {"fever"}
    assert len(official.asked("GET .*zip")) == 1 and len(on_the_hub.asked("GET .*model.safetensors")) <= 2

    made = command("sweep.data", "prepare", "fever", "counterfact", "--to", "made", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    official.close()
    again = job(tmp_path, "inductive.py", *small, "--data", "made", MEMORY_SWEEP_DATA_CACHE=str(tmp_path / "empty"))
    assert again.returncode == 0 and "nothing to run" in again.stdout, "the same ids"


@pytest.mark.slow
def test_counterfact_runs_with_its_defaults(on_the_hub: Hub, official: OfficialSite, tmp_path: Path) -> None:
    values = [v for v in SMALL if not v.startswith(("depth", "num_documents", "claims"))]
    small = sets("model=someone/tiny", *values, "num_documents=4", "counterfact_records=3", "answer_tokens=2")
    done = job(tmp_path, "counterfact.py", *small, "--data-cache", "kept")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "kept").glob("counterfact-*/counterfact.json"))) == 1


def test_a_gated_model_is_said_in_the_plan_and_refused_before_anything_starts(
    on_the_hub: Hub, official: OfficialSite, tmp_path: Path
) -> None:
    plan = job(tmp_path, "inductive.py", "--plan")
    told = " ".join(plan.stdout.split())
    asked = [request for request in on_the_hub.requests if "/api/models/" in request or "/resolve/" in request]
    assert plan.returncode == 0 and len(asked) == 2 and all(one.endswith("expand=sha") for one in asked), "commits only"
    assert "data fever: " in told and "model llama2-7b: meta-llama/Llama-2-7b-hf is gated" in told
    refused = job(tmp_path, "inductive.py", "--set", "model=llama2-7b")
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert "is gated" in line and "hf auth login" in line and "open copy" in line
    assert not official.requests and not list((tmp_path / "outputs").rglob("record.json"))


def test_without_a_network_the_main_job_ends_in_one_line(tmp_path: Path) -> None:
    start = time.monotonic()
    closed = "http://127.0.0.1:9"
    done = job(
        tmp_path,
        "inductive.py",
        "--set",
        "model=sample-llama",
        "--set",
        "dtype=float32",
        MEMORY_SWEEP_FEVER_URL=closed,
        HF_ENDPOINT=closed,
    )
    assert done.returncode == 2 and time.monotonic() - start < 20
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot be reached" in last and "--data FOLDER" in last and "Traceback" not in done.stderr
    model = job(
        tmp_path,
        "sample.py",
        "--set",
        "model=someone/tiny",
        HF_HUB_OFFLINE="0",
        HF_ENDPOINT=closed,
        HF_HUB_CACHE=str(tmp_path / "hub"),
    )
    *notes, line = model.stderr.strip().splitlines()
    assert model.returncode == 2 and "cannot be reached" in line and all("no answer from" in note for note in notes)


def test_check_holds_the_sources_against_what_is_assumed(
    on_the_hub: Hub, official: OfficialSite, tmp_path: Path
) -> None:
    table = json.loads(Path(os.environ["MEMORY_SWEEP_DATA_SOURCES"]).read_text())
    table["fever"]["facts"] = {"pages": 60, "rows": 1}
    Path(os.environ["MEMORY_SWEEP_DATA_SOURCES"]).write_text(json.dumps(table))
    told = command("sweep.data", "check", "fever", "counterfact", cwd=tmp_path)
    assert told.returncode == 1 and "1 differ" in told.stdout
    lines = told.stdout.splitlines()
    assert [line for line in lines if line.startswith("DIFFERS") and "fever: rows:" in line and "where 1 are" in line]
    assert [line for line in lines if line.startswith("ok") and "train.jsonl" in line and "SHA-256" in line]
    assert not official.asked("GET .*zip") and official.asked("HEAD .*zip"), "the large file is only asked for"
    table["fever"]["facts"] = {}
    Path(os.environ["MEMORY_SWEEP_DATA_SOURCES"]).write_text(json.dumps(table))
    full = command("sweep.data", "check", "fever", "--full", cwd=tmp_path)
    assert full.returncode == 0 and "evidence pages in wiki-pages.zip" in full.stdout
    official.rules.append(Rule("HEAD .*zip", status=404))
    assert command("sweep.data", "check", "fevr", cwd=tmp_path).returncode == 2


def test_check_looks_every_alias_up(hub: Hub, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    files = model_files(tiny_models["llama"])
    for alias, shape in MODELS.items():
        if alias != "pythia-12b":
            hub.add("models", shape.source, gated=shape.is_gated).commit(files)
    told = command("sweep.data", "check", "models", cwd=tmp_path)
    lines = told.stdout.splitlines()
    assert told.returncode == 1 and len([line for line in lines if line.startswith("ok")]) == len(MODELS) - 1
    (wrong,) = [line for line in lines if line.startswith("DIFFERS")]
    assert "model pythia-12b" in wrong and "no repository EleutherAI/pythia-12b" in wrong


def test_bad_calls_of_the_data_command_are_one_line(official: OfficialSite, tmp_path: Path) -> None:
    for words, message in [
        (["prepare", "fver", "--to", "x"], "did you mean 'fever'"),
        (["prepare", "sample", "--to", "x"], "made on every node by itself"),
        (["check", "nowhere"], "no such folder"),
    ]:
        done = command("sweep.data", *words, cwd=tmp_path)
        (line,) = done.stderr.strip().splitlines()
        assert done.returncode == 2 and message in line


@pytest.mark.slow
def test_a_sweep_that_goes_on_after_a_branch_moved_stays_at_its_commit(
    on_the_hub: Hub, official: OfficialSite, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    values = [v for v in SMALL if not v.startswith(("num_documents", "depth", "alpha"))]
    words = [*sets("model=someone/tiny", *values, "depth=0.5", "alpha=0"), "--stage", "layer_selection"]
    assert job(tmp_path, "inductive.py", *words, *sets("num_documents=2")).returncode == 0
    (first,) = on_the_hub.repos["models/someone/tiny"].branches.values()
    on_the_hub.repos["models/someone/tiny"].commit({**model_files(tiny_models["llama"]), "new.txt": b"new"})
    more = job(tmp_path, "inductive.py", *words, *sets("num_documents=3"))
    assert more.returncode == 0, more.stdout + more.stderr
    assert "note: someone/tiny: main has moved to" in more.stdout and f"stays at {first[:12]}" in more.stdout
    weights = (tmp_path / "hf").glob("hub/models--someone--tiny/snapshots/*/model.safetensors")
    assert [path.parent.name for path in weights] == [first]
