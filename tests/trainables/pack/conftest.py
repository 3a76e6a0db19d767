"""Two legal values of every field of a trial, chosen so that every field matters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trainables.trial.spec import FIELDS, TrialSpec, make_spec


class TwoValues:
    """A trial in which every field matters, and the same with another value of one field.

    Args:
        models: folders of two models.
        data: a data folder.
        folder: where another model and other data may be written.
    """

    def __init__(self, models: dict[str, Path], data: Path, folder: Path) -> None:
        self._base: dict[str, Any] = {
            "model": str(models["llama"]), "data": str(data), "content": "document+template", "num_documents": 5,
            "num_clusters": 2, "segment_tokens": 24, "max_segments": 2, "layer": 1, "memory_dim": 32,
            "allocation": "simset2", "entries_per_group": 3, "alpha": 1.0, "epochs": 1, "lr": 0.01, "grad_clip": 0.1,
            "warmup_steps": 3, "num_shots": 5, "claims_per_page": 3, "probes": ("fever", "counterfact"),
            "counterfact_records": 3, "num_answers": 2, "answer_tokens": 2,
        }  # fmt: skip
        self._other: dict[str, Any] = {
            "model": str(_other_tokens(models["gpt_neox"], folder / "model")), "revision": "v2", "dtype": "bfloat16",
            "data": str(_other_texts(data, folder / "data")), "detokenize": True, "method": "full_update",
            "content": "template", "template_loss": "answer", "num_documents": 4, "page_order": "subjects",
            "num_clusters": 3, "segment_tokens": 20, "max_segments": 1, "layer": 2, "depth": 1.0, "memory_dim": 40,
            "norm_and_gate": False, "mode": "hard", "allocation": "random", "granularity": "token",
            "entries_per_group": 4, "mem_seed": 1, "alpha": 0.5, "epochs": 2, "batch_size": 3, "lr": 0.02,
            "weight_decay": 0.5, "warmup_steps": 0, "grad_clip": 1.0, "seed": 1, "num_shots": 4, "notes_labels": True,
            "claims_per_page": 1, "eval_epochs": (1,), "probes": ("fever",), "counterfact_records": 2,
            "num_answers": 1, "answer_tokens": 1, "temperature": 0.5, "micro_batch_tokens": 64,
            "checkpoint_every_s": 0.0, "keep_memory": False, "stage": "x",
        }  # fmt: skip
        assert set(self._other) == set(FIELDS), "a field lacks its other value"
        self.base = make_spec(self._base)

    def other(self, name: str) -> TrialSpec:
        """Return the trial with another value of this field."""
        values = {**self._base, name: self._other[name]}
        if name == "depth":
            del values["layer"]
        found = make_spec(values)
        assert getattr(found, name) != getattr(self.base, name)
        return found


def _other_tokens(model: Path, folder: Path) -> Path:
    """Copy a model with a tokenizer that joins less."""
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-100]
    file.write_text(json.dumps(content))
    return folder


def _other_texts(data: Path, folder: Path) -> Path:
    """Copy a data folder with other page texts and claims."""
    shutil.copytree(data, folder)
    for file in folder.rglob("*.jsonl"):
        file.write_text(file.read_text().replace(" in ", " near "))
    return folder


@pytest.fixture(scope="session")
def two(tiny_models: dict[str, Path], sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TwoValues:
    return TwoValues(tiny_models, sample_data, tmp_path_factory.mktemp("other"))
