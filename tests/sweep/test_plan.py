"""The door `python -m sweep.plan`: what it prints, what it refuses, and that it starts nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweep.plan import app
from sweep.planning.expand import build_plan
from sweep.planning.load import load_space
from sweep.records.record import Origin, begin_record, complete_record
from sweep.records.sweep_storage import SweepStorage
from trainables.lm.card import model_card
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.making import make_spec

ROOT = Path(__file__).parents[2]
INDUCTIVE = str(ROOT / "search_spaces" / "inductive.py")
TINY = """
from sweep.space import ALL, Best, Space, Stage

space = Space(
    baseline=False,
    name="demo",
    title="a demo",
    axes={"layer": [3, 7], "alpha": [0, 1]},
    fixed={"model": "sample-llama", "allocation": "simset1"},
    stages=(
        Stage(name="choose", axes={"layer": ALL}, fixed={"alpha": 0}),
        Stage(name="go", axes={"alpha": ALL}, take=Best(field="layer", stage="choose", per=())),
    ),
)
"""


@pytest.fixture
def space(tmp_path: Path) -> str:
    file = tmp_path / "demo.py"
    file.write_text(TINY)
    return str(file)


Save = Callable[..., None]


@pytest.fixture
def save(storage: SweepStorage) -> Save:
    """Write the record of a finished trial of `TINY`."""

    def put(result: dict[str, Any] | None = None, **values: Any) -> None:
        spec = make_spec({"model": "sample-llama", **values})
        card = model_card(spec.model)
        origin = Origin("demo", "choose", "pack-1")
        begun = begin_record(canonical(spec, card), identity(spec, card), card, origin)
        done = {"status": "done", "flops": 1e9, "timings": {"train_s": 2.0}, "metrics": {"memory/nll": 1.0}}
        record = complete_record(begun, {**done, **(result or {})})
        storage.write_record(record, f"demo/trains/lm_x/layer_0/1/none_0/alpha_0.0/{record['id']}")

    return put


def plan(*args: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(args))
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.stderr


def plan_json(*args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(plan(*args, "--json"))
    return found


def test_the_plan_of_the_inductive_study_counts_as_the_notes_do(tmp_path: Path) -> None:
    found = plan_json(INDUCTIVE, "--storage", str(tmp_path))
    assert (found["space"], found["grid_points"], found["unique_points"]) == ("inductive", 2400, 2160)
    numbers = [
        (s["name"], s["points"], s["equivalent"], s["done"], s["to_run"], s["waits_for"]) for s in found["stages"]
    ]
    assert numbers == [
        ("layer_selection", 20, 0, 0, 20, None),
        ("inductive", 72, 2, 0, 70, "layer_selection"),
        ("document_count", 288, 0, 0, 288, "layer_selection"),
        ("pretrained", 10, 0, 0, 10, None),
    ]
    assert found["trials_to_run"] == 388
    costs = found["estimate"]
    assert costs["gpu"] == "A100-80GB" and costs["flops"] > 0 and costs["gpu_hours"] > 0
    assert costs["trunk_cache_bytes"] > 0 and costs["staged_flops"] < 0.25 * costs["full_grid_flops"]
    assert not list(tmp_path.iterdir())


def test_leaving_simset3_out_gives_the_notes_own_number(tmp_path: Path) -> None:
    four = ["--set", "allocation=random,partitioned,simset1,simset2", "--storage", str(tmp_path)]
    assert plan_json(INDUCTIVE, *four)["grid_points"] == 1920
    assert "2 x 6 x 8 x 4 x 5 = 1,920 points" in plan(INDUCTIVE, *four)


def test_the_text_has_the_arithmetic_and_the_assumptions(tmp_path: Path) -> None:
    text = plan(INDUCTIVE, "--storage", str(tmp_path))
    assert "2 x 6 x 8 x 5 x 5 = 2,400 points, 2,160 different" in text
    assert "20 + 72 + 288 + 10 = 390 points" in text and "388 trials" in text
    assert "tokens and 12 claims a page (assumed)" in text and "TFLOP/s bfloat16" in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("how", [["--plan", "sweep.run"], ["sweep.plan"]])
def test_it_imports_neither_torch_nor_ray(tmp_path: Path, how: list[str]) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['x', {INDUCTIVE!r}, '--json', '--storage', {str(tmp_path)!r}, *{how[:-1]!r}]\n"
        f"try:\n    runpy.run_module({how[-1]!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'transformers', 'mlflow', 'pandas', 'sklearn', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials_to_run"] == 388


def test_what_is_recorded_is_done_and_a_recorded_choice_opens_the_stage(
    space: str, storage: SweepStorage, save: Save
) -> None:
    before = plan_json(space, "--storage", storage.uri)
    assert [s["to_run"] for s in before["stages"]] == [2, 1] and before["estimate"]["measured_hours"] is None
    save(layer=3)
    save(layer=7)
    after = plan_json(space, "--storage", storage.uri)
    assert [(s["done"], s["to_run"]) for s in after["stages"]] == [(2, 0), (0, 1)]
    assert before["stages"][1]["waits_for"] == "choose" and after["estimate"]["measured_hours"] > 0
    assert after["stages"][1]["waits_for"] is None  # the choice follows from the records
    question = build_plan(load_space(space)).questions[0]
    choice = {"key": question.key, "value": 7, "by": "memory/nll", "metric": 1.25}
    storage.write_json("demo/choices.json", {question.key: choice})
    save(layer=7, alpha=1, allocation="simset1")
    decided = plan_json(space, "--storage", storage.uri)
    assert decided["trials_to_run"] == 0 and decided["stages"][1]["waits_for"] is None
    assert "7 (memory/nll 1.25)" in plan(space, "--storage", storage.uri)
    assert plan_json(space, "--storage", storage.uri, "--set", "seed=5")["trials_to_run"] == 3


def test_failed_trials_count_as_left_when_they_are_to_be_retried(space: str, storage: SweepStorage, save: Save) -> None:
    save(layer=3, result={"status": "failed", "error": {"class": "x", "message": "y"}})
    assert plan_json(space, "--storage", storage.uri)["trials_to_run"] == 2
    assert plan_json(space, "--storage", storage.uri, "--retry-failed")["trials_to_run"] == 3


def test_stage_and_name_and_small(space: str, tmp_path: Path) -> None:
    here = ["--storage", str(tmp_path / "out")]
    assert [s["name"] for s in plan_json(space, "--stage", "choose", *here)["stages"]] == ["choose"]
    assert plan_json(INDUCTIVE, "--small", *here)["name"] == "inductive-small"
    assert plan_json(space, "--name", "mine", *here)["name"] == "mine"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere.py"], "no such file"),
        ([INDUCTIVE, "--set", "alhpa=1"], "alhpa: unknown field, did you mean 'alpha'?"),
        ([INDUCTIVE, "--set", "layer=40"], "layer=40: pythia-6.9b has 32 blocks"),
        ([INDUCTIVE, "--set", "alpha=-1"], "alpha=-1.0: must be at least 0"),
        ([INDUCTIVE, "--set", "allocation=simset"], "allocation='simset': must be one of"),
        ([INDUCTIVE, "--set", "num_clusters=5"], "num_clusters=5: must not exceed num_documents=2"),
        ([INDUCTIVE, "--set", "memory_dim=128"], "needs at least one entry for each of 1000 groups"),
        ([INDUCTIVE, "--set", "model=/nowhere/model"], "model='/nowhere/model': no such folder"),
        ([INDUCTIVE, "--data", "/nowhere/data"], "/nowhere/data: no such folder"),
        ([INDUCTIVE, "--stage", "inductve"], "did you mean 'inductive'?"),
        ([INDUCTIVE, "--select-by", "accuracy"], "by 'accuracy': no such metric, did you mean"),
        ([INDUCTIVE, "--name", "a/b"], "a/b"),
    ],
)
def test_the_users_mistakes_get_one_line_and_exit_status_2(args: list[str], message: str, tmp_path: Path) -> None:
    said = plan(*args, "--storage", str(tmp_path), status=2)
    assert message in said and said.startswith("error: ") and said.count("\n") == 1


def test_a_local_model_and_local_data_can_be_planned(
    space: str, tiny_models: dict[str, Path], sample_data: Path, tmp_path: Path
) -> None:
    found = plan_json(
        space, "--set", f"model={tiny_models['llama']}", "--set", "depth=0.5,1.0", "--data", str(sample_data),
        "--storage", str(tmp_path / "out"),
    )  # fmt: skip
    assert [s["points"] for s in found["stages"]] == [2, 2]


def test_help_shows_examples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweep.plan", "--help"], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "100"},
    )  # fmt: skip
    assert done.returncode == 0 and "python -m sweep.plan search_spaces/inductive.py" in done.stdout


def plan_notes(*arguments: str) -> list[str]:
    found = CliRunner().invoke(app, [*arguments, "--json"])
    assert found.exit_code == 0, found.output
    notes: list[str] = json.loads(found.stdout)["notes"]
    return notes


def test_more_documents_than_the_data_have_are_said(space: str, tmp_path: Path) -> None:
    told = "a run refuses this: num_documents=61: the data has 60 documents"
    notes = plan_notes(space, "--set", "num_documents=60,61,100000", "--storage", str(tmp_path / "out"))
    refused = [note for note in notes if "refuses" in note]
    assert len(refused) == 1 and told in refused[0], "the smallest number that is too large stands for those above it"
    notes = plan_notes(space, "--set", "num_documents=60", "--storage", str(tmp_path / "out"))
    assert len(notes) == 1 and "59 of 60 evidence pages have a text" in notes[0], "as the run says it"
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "Oak."}\n{"text": "Larch."}\n')
    options = ["--data", str(own), "--storage", str(tmp_path / "out"), "--set", "probes="]
    assert "the data has 2 documents" in plan_notes(space, *options, "--set", "num_documents=3")[0]
    printed = CliRunner().invoke(app, [space, *options, "--set", "num_documents=3"]).stdout
    assert "WARNING: a run refuses this: num_documents=3" in printed
    assert not plan_notes(space, *options, "--set", "num_documents=2")


def test_data_too_large_for_a_plan_are_left_to_the_run(space: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("sweep.planning.inputs._PLANNED_BYTES", 0)
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "Oak."}\n')
    assert not plan_notes(space, "--data", str(own), "--set", "num_documents=9", "--storage", str(tmp_path / "out"))
