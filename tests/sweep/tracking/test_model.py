"""The registered model is the frozen model with the trial's memory."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch

from sweep.records.record import Origin, begin_record, complete_record
from sweep.tracking.client import Runs
from sweep.tracking.model import register_memory
from trainables.adapters.memory.allocation import Allocation, Listed
from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.io import load_memory, save_memory
from trainables.adapters.memory.stored_sets import StoredSets
from trainables.errors import ConfigError, DataError
from trainables.lm.card import model_card
from trainables.lm.reference import WholeModel, attach_memory
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.making import make_spec


@pytest.fixture
def trained(storage, save):
    """Two trials of the sample model with a memory each, the second with the better answers."""
    card = model_card("sample-llama", "main")
    records = []
    for seed, accuracy in enumerate((0.2, 0.7)):
        spec = canonical(make_spec({"model": "sample-llama", "layer": 1, "dtype": "float32", "seed": seed}), card)
        begun = begin_record(spec, identity(spec, card, "sample@v1"), card, Origin("demo", "main", "p"))
        metrics = {"memory/nll": 1.0, "fever/accuracy": accuracy}
        record = complete_record(begun, {"status": "done", "metrics": metrics, "timings": {"train_s": 1.0}})
        folder = save(record)
        torch.manual_seed(seed)
        memory = Memory(card.model_dim, 32)
        save_memory(f"{storage.uri}/{folder}/memory.safetensors", memory.state_dict(), layer=1, model=card.key)
        records.append((record, folder))
    return records


def registered(tracking: Any) -> Any:
    """Return the first version of the model that a sweep `demo` has registered."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking.uri)
    try:
        return mlflow.pyfunc.load_model("models:/memory-sweep-demo/1")
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.slow
def test_the_best_trials_memory_can_be_loaded_back_from_the_registry(storage, tracking, trained) -> None:
    from sweep.report.findings import publish_compared

    publish_compared(storage, ["demo"], tracking)
    told = register_memory(storage, "demo", tracking)
    record, folder = trained[1]
    assert record["id"] in told and "models:/memory-sweep-demo/1" in told
    assert "MLFLOW_TRACKING_URI" not in os.environ  # which the link that is printed next would name
    loaded = registered(tracking)
    (answer,) = loaded.predict(["Claim:"])
    inner = loaded.unwrap_python_model()
    plain = WholeModel(model_card("sample-llama", "main"), torch.float32, "cpu").model
    tokens = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        found, without = inner.model(tokens).logits, plain(tokens).logits
        saved = load_memory(f"{storage.uri}/{folder}/memory.safetensors")
        attach_memory(plain, saved.memory, saved.layer)
        assert torch.equal(found, plain(tokens).logits) and not torch.equal(found, without)
    assert isinstance(answer, str) and answer
    (head,) = Runs(tracking, storage.storage_id()).find(trial=record["id"])
    assert head.complete and not head.running


@pytest.mark.slow
def test_a_hard_memory_answers_about_a_document_with_its_entries(storage, tracking, save, tmp_path) -> None:
    """In whatever order documents are asked about, and as the file itself gives it."""
    from sweep.report.findings import publish_compared

    card = model_card("sample-llama", "main")
    fields = {"model": "sample-llama", "layer": 1, "mode": "hard", "allocation": "partitioned"}
    spec = canonical(make_spec(fields), card)
    begun = begin_record(spec, identity(spec, card, "sample@v1"), card, Origin("demo", "main", "p"))
    record = complete_record(begun, {"status": "done", "metrics": {"memory/nll": 1.0}, "timings": {"train_s": 1.0}})
    file = f"{storage.uri}/{save(record)}/memory.safetensors"
    torch.manual_seed(0)
    memory = Memory(card.model_dim, 4)
    sets = StoredSets(
        Allocation("partitioned", 4, 2, Listed(np.array([2, 2]), np.arange(4, dtype=np.int32), 4)), [0, 1], ["A", "B"]
    )
    save_memory(file, memory.state_dict(), layer=1, model=card.key, sets=sets)
    publish_compared(storage, ["demo"], tracking)
    assert record["id"] in register_memory(storage, "demo", tracking)
    loaded = registered(tracking)
    inner, tokens = loaded.unwrap_python_model(), torch.tensor([[5, 6, 7]])
    seen = []
    for document in ("", "B", "A", "B", ""):
        loaded.predict(["Claim:"], params={"document": document})
        plain = WholeModel(card, torch.float32, "cpu").model
        saved = load_memory(file, document=document or None)
        attach_memory(plain, saved.memory, saved.layer)
        with torch.inference_mode():
            seen.append(inner.model(tokens).logits)
            assert torch.equal(seen[-1], plain(tokens).logits)
    assert not torch.equal(seen[1], seen[2]) and not torch.equal(seen[0], seen[1])
    with pytest.raises(DataError, match="C"):
        loaded.predict(["Claim:"], params={"document": "C"})


def test_a_trial_that_is_not_there_cannot_be_registered(storage, tracking, trained) -> None:
    with pytest.raises(ConfigError, match=r"register='nothing': no trial of demo"):
        register_memory(storage, "demo", tracking, "nothing")
    with pytest.raises(ConfigError, match="no run in MLflow; publish first"):
        register_memory(storage, "demo", tracking)
