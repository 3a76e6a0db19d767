"""Trials on tiny models that differ in one field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec


@pytest.fixture(scope="session")
def trial_with_other(
    tiny_models: dict[str, Path],
    sample_data: Path,
    own_questions: Path,
    other_values: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., TrialSpec]:
    """Make a trial in which every field matters, or the same with another value of the field named (`other_values`)."""
    folder = tmp_path_factory.mktemp("other")
    models = str(tiny_models["llama"]), str(_other_tokens(tiny_models["gpt_neox"], folder / "model"))
    both, few = (sample_data, _other_texts(sample_data, folder / "data")), _few_questions(own_questions, folder / "own")
    data = tuple(f"{texts},{few}" for texts in both)

    def make(name: str | None = None, like: str | None = None) -> TrialSpec:
        return make_spec(other_values(name, models, data, like))

    return make


def _other_tokens(model: Path, folder: Path) -> Path:
    """Copy a model with a tokenizer that joins less."""
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-100]
    file.write_text(json.dumps(content))
    return folder


def _few_questions(own: Path, folder: Path) -> Path:
    """Copy questions of one's own, every fourth of them: they are read anew with each trial's texts."""
    shutil.copytree(own, folder)
    file = folder / "questions.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[::4]))
    return folder


def _other_texts(data: Path, folder: Path) -> Path:
    """Copy a data folder with other page texts and claims."""
    shutil.copytree(data, folder)
    for file in folder.rglob("*.jsonl"):
        file.write_text(file.read_text().replace(" in ", " near "))
    return folder
