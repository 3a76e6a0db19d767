"""What earlier versions have left is read by this one: every file, the same ids, nothing to run again.

`tests/data/formats/N` is a storage as the code of its time left it (see `make.py` there). These files never change; a
new format gets a folder of its own beside the old ones.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from sweep.planning import points
from sweep.planning.choices import settled
from sweep.planning.load import load_space
from sweep.planning.plan_of import plan_of
from sweep.records.results_table import results_table
from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import SweepStorage, split_location
from sweep.report.build import Options, build_report
from sweep.report.figures.simset import analyses
from sweep.report.samples import samples_of
from sweep.report.study import load_study
from sweep.running.optuna_draws import StageDraws
from trainables.adapters.memory.io import load_memory
from trainables.lm.card import ModelCard, model_card
from trainables.pack.checkpoint import read_checkpoint
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec

FORMATS = sorted(path for path in (Path(__file__).parent / "data" / "formats").iterdir() if path.name.isdigit())
STATUSES = {
    "f9cf2ffe886822fb": "done",
    "2dbc1899e47e19df": "done",
    "d4580933116988b1": "done",
    "65b32624b3b35191": "diverged",
    "48a7314173efd6a6": "failed",
    "4a927e40ac12135e": "stopped",
    "4edfc8169f3516f4": "stopped",
    "80cad3f6c598ff16": "stopped",
    "d1089b1c6188ac6b": "stopped",
    "82b22b35c7f57b39": "done",
    "e09a816e75401dd0": "done",
}
DONE = "2dbc1899e47e19df"


@pytest.fixture(params=FORMATS, ids=lambda path: f"format {path.name}")
def old(request: pytest.FixtureRequest, tmp_path: Path) -> SweepStorage:
    """A storage of an earlier version, to be read and written."""
    return SweepStorage(shutil.copytree(request.param, tmp_path / "old"))


def card_of(model: dict[str, Any]) -> ModelCard:
    """Return the shape of a recorded model, which itself is not kept."""
    shape = {name: model[name] for name in ("name", "key", "family", "num_blocks", "model_dim")}
    return replace(model_card("sample-llama"), **shape, is_sample=False)


def test_every_record_is_read_under_its_id(old: SweepStorage) -> None:
    index = old.index()
    assert not index.warnings
    assert {trial: head.status for trial, head in index.items()} == STATUSES
    assert all(head.folder.endswith(f"/{trial}") for trial, head in index.items())
    assert old.sweeps() == ["kept", "sampled"] and split_location(old.full("kept"))[1] == "kept"
    assert old.storage_id() == json.loads(old.read("storage.json"))["id"]
    assert results_table(old, "kept", index).num_rows == 5 and results_table(old, "sampled", index).num_rows == 6


def test_the_same_trial_has_the_same_id_today(old: SweepStorage) -> None:
    for trial, head in old.index().items():
        record = head.record()
        given = {"model": record["model"]["given"], "data": record["data"]["given"]}
        spec = make_spec({name: value for name, value in record["identity"].items() if name not in given} | given)
        card = card_of(record["model"])
        spec = canonical(spec, card)
        stated = identity(spec, card, record["data"]["key"])
        assert {name: stated[name] for name in record["identity"]} == record["identity"]
        assert trial_id(stated) == trial
        assert old.trial_folder(head.sweep, spec, card.name, trial) == head.folder


@pytest.mark.parametrize("name", ["kept", "sampled"])
def test_the_same_space_has_nothing_left_to_run(old: SweepStorage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    index = old.index()
    card = card_of(index[DONE].record()["model"])
    monkeypatch.setattr(points, "model_card", lambda model, revision, commit: card)
    choices = read_sweep_file(old, name, CHOICES) or {}
    space = load_space(old.full(f"{name}.py"))
    plan = plan_of(space, index, choices, old, name)
    recorded = sum(stage.done for stage in plan.stages), sum(stage.failed for stage in plan.stages)
    assert plan.num_to_run == 0 and recorded == ((4, 1) if name == "kept" else (6, 0))
    if name == "kept":
        assert [settled(question, choices) for question in plan.questions] == [2] and len(choices) == 1
    else:
        draws = StageDraws(plan, plan.stages[0], old, name, lambda trial: index[trial].record())
        assert set(draws.ids) == {trial for trial, head in index.items() if head.sweep == "sampled"}
        assert not draws.has_more


def test_the_files_beside_the_records_are_read(old: SweepStorage) -> None:
    folder = Path(old.full(old.index()[DONE].folder))
    saved = load_memory(folder / "memory.safetensors")
    assert saved.layer == 2 and saved.model == old.index()[DONE].record()["model"]["key"]
    assert torch.isfinite(saved.memory(torch.ones(1, 1, 16))).all()
    state = read_checkpoint(old.full(f"kept/checkpoints/{DONE}.safetensors"))
    assert state is not None and state.epoch == 1 and state.weights.keys() <= dict(saved.memory.state_dict()).keys()
    assert state.optimiser and state.notes["curves"]["train/nll"][0][0] == 1
    answers = pq.read_table(folder / "predictions.parquet")
    assert answers.column_names == ["claim_id", "page", "label", "rows", "answer", "parsed", "correct"]
    assert answers.num_rows == old.index()[DONE].record()["counts"]["n_trunc"]


def test_a_report_is_made_of_them(old: SweepStorage) -> None:
    study = load_study(old)
    assert len(study.trials) == len(STATUSES) and study.missing == 0 and not study.unreadable
    (done,) = [trial for trial in study.trials if trial.id == DONE]
    assert len(samples_of(study, done)) == 1 and len(analyses(old, [done])) == 1
    report = build_report(study, Options(resamples=100))
    tables = {table.slug for section in report.sections for table in section.tables}
    assert {"choices", "against_pretrained_kept"} <= tables
