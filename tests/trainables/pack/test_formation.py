"""Entry sets formed without a model, and which documents use which entries after training, against plain sums."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainables.data.corpus import load_corpus
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_models, sample_data) -> dict:
    return {
        "model": str(tiny_models["llama"]), "data": str(sample_data), "memory_dim": 32, "num_documents": 5,
        "segment_tokens": 40, "max_segments": 2, "probes": "", "allocation": "simset2", "num_clusters": 3,
    }  # fmt: skip


def finished(values: dict, folder: Path, cache: ProcessCache) -> tuple[dict, Path]:
    spec = make_spec(values)
    name = trial_id(identity(spec))
    task = TrialTask(name, canonical(spec), str(folder / name), str(folder / "checkpoint"))
    work = PackWork({"trials": [task.to_dict()], "trunk_layers": []}, cache)
    while not (report := work.step())["done"]:
        pass
    return report["results"][0], folder / name


def test_sets_are_formed_and_analysed_without_the_model_as_a_trained_memory_has_them(base, tmp_path, monkeypatch):
    cache = ProcessCache(CPU, 10**9)
    result, folder = finished({**base, "layer": 1, "alpha": 1.0, "epochs": 1}, tmp_path, cache)
    trained = json.loads((folder / "analysis.json").read_text())
    fresh = ProcessCache(CPU, 10**9)
    for loader in ("upper", "whole_model", "own_model", "_open_hidden"):
        monkeypatch.setattr(fresh, loader, lambda *_: pytest.fail("no part of the model is needed"))
    formed_result, folder = finished({**base, "method": "allocate"}, tmp_path, fresh)
    formed = json.loads((folder / "analysis.json").read_text())
    assert formed_result["status"] == "done" and formed_result["flops"] == 0
    assert not any(formed_result["metrics"].values())
    assert formed == {name: value for name, value in trained.items() if name != "leakage_by_group"}
    assert len(formed["titles"]) == len(formed["group_of_document"]) == result["counts"]["n_trunc"]
    assert set(formed["group_of_document"]) == {0, 1, 2}


def test_what_a_set_does_not_depend_on_is_no_part_of_its_id(base):
    def id_of(**values) -> str:
        return trial_id(identity(make_spec({**base, "method": "allocate", **values})))

    for same in ({"alpha": 2.0}, {"mode": "hard"}, {"epochs": 3}, {"lr": 1.0}, {"layer": 2}, {"content": "template"}):
        assert id_of(**same) == id_of()
    for other in ({"allocation": "random"}, {"num_clusters": 2}, {"mem_seed": 1}, {"entries_per_group": 3}):
        assert id_of(**other) != id_of()


def test_mean_activations_by_document_and_entry_are_those_of_the_whole_model(base, tmp_path):
    values = {**base, "layer": 1, "alpha": 1.0, "epochs": 2, "lr": 1e-2}
    _, folder = finished(values, tmp_path, ProcessCache(CPU, 10**9))
    found = np.load(io.BytesIO((folder / "activations.npy").read_bytes()))
    weights = load_file(folder / "memory.safetensors")
    model, tokenizer = (kind.from_pretrained(base["model"]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    documents = load_corpus(base["data"]).select(5).documents
    assert found.shape == (len(documents), 32)
    for row, document in zip(found, documents, strict=True):
        ids = tokenizer(document.text)["input_ids"]
        parts = [part for part in (ids[:40], ids[40:80]) if len(part) > 1]
        with torch.no_grad():
            hidden = [model(torch.tensor([part]), output_hidden_states=True).hidden_states[2][0] for part in parts]
            up = torch.cat(hidden) @ weights["up.weight"].T + weights["up.bias"]
        expected = torch.nn.functional.gelu(up).mean(dim=0).numpy()
        np.testing.assert_allclose(row, expected, atol=2e-3)


def test_the_error_per_byte_is_over_the_bytes_of_the_text_that_was_read(base, tmp_path):
    whole = {**base, "layer": 1, "allocation": "none", "num_clusters": None, "epochs": 1, "segment_tokens": 4000}
    metrics = finished(whole, tmp_path, ProcessCache(CPU, 10**9))[0]["metrics"]
    documents = load_corpus(base["data"]).select(5).documents
    tokenizer = AutoTokenizer.from_pretrained(base["model"])
    targets = sum(len(tokenizer(document.text)["input_ids"]) - 1 for document in documents)
    expected = metrics["memory/nll"] * targets / sum(len(document.text.encode()) for document in documents)
    assert metrics["memory/nll_per_byte"] == pytest.approx(expected)
