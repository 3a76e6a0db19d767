"""Many documents, whose texts lie on disk and whose states are read shard by shard: the results are those of few."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from trainables.lm import batches
from trainables.lm.hidden import HiddenStates
from trainables.lm.segment_texts import SegmentTexts
from trainables.node.map_batches import Make
from trainables.pack import document_texts
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

CPU = torch.device("cpu")


@pytest.fixture
def base(tiny_models: Any, sample_data: Path) -> dict[str, Any]:
    return {
        "model": str(tiny_models["llama"]), "data": str(sample_data), "memory_dim": 32, "num_documents": 6,
        "segment_tokens": 24, "max_segments": 3, "probes": "", "allocation": "simset2", "alpha": 1.0, "layer": 1,
        "epochs": 2, "num_clusters": 3, "batch_size": 2, "lr": 0.01,
    }  # fmt: skip


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_texts, "HELD_DOCUMENTS", 0)
    for module in ("lm.batches", "adapters.split"):
        monkeypatch.setattr(f"trainables.{module}.SHARD_TEXTS", 4)


def finished(values: dict[str, Any], folder: Path, cache: ProcessCache) -> tuple[dict[str, Any], Path]:
    spec = make_spec(values)
    name = trial_id(identity(spec))
    task = TrialTask(name, canonical(spec), str(folder / name), str(folder / "checkpoint"))
    work = PackWork({"trials": [task.to_dict()], "trunk_layers": []}, cache)
    while not (report := work.step())["done"]:
        pass
    return report["results"][0], folder / name


@pytest.mark.parametrize("change", [{}, {"mode": "hard", "granularity": "token"}, {"method": "full_update"}])
@pytest.mark.thorough(only=("change0",))
def test_a_trial_of_many_documents_is_that_of_texts_held(base, change, tmp_path, request) -> None:
    held, held_folder = finished(base | change, tmp_path / "held", ProcessCache(CPU, 10**9))
    request.getfixturevalue("on_disk")
    cache = ProcessCache(CPU, 10**9)
    found, folder = finished(base | change, tmp_path / "disk", cache)
    made = cache.texts(canonical(make_spec(base | change)))
    assert isinstance(made.segments, SegmentTexts) and len(made.segments) > 8
    assert found["metrics"] == pytest.approx(held["metrics"], rel=1e-6) and found["counts"] == held["counts"]
    for file in folder.glob("*.safetensors"):
        one, other = load_file(file), load_file(held_folder / file.name)
        assert all(torch.allclose(value, other[name], atol=1e-6) for name, value in one.items())
    if "method" not in change:
        one, other = (json.loads((place / "analysis.json").read_text()) for place in (folder, held_folder))
        assert one["allocation"] == other["allocation"] and one["group_of_document"] == other["group_of_document"]


@pytest.mark.parametrize("method", ["memory", "allocate"])
def test_texts_and_shingles_are_made_where_the_process_is_told(base, on_disk, tmp_path, method, monkeypatch) -> None:
    mapped = []

    def noted(make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            mapped.append(table.column_names[0])
            yield from make(table)

    plain, _ = finished(base | {"method": method}, tmp_path / "plain", ProcessCache(CPU, 10**9))
    monkeypatch.setattr(document_texts, "cache_dir", lambda: tmp_path)  # in which there are no tokens yet
    found, _ = finished(base | {"method": method}, tmp_path / "noted", ProcessCache(CPU, 10**9, noted))
    assert set(mapped) == {"text", "group"} and found["metrics"] == plain["metrics"]


@pytest.mark.thorough(beside="test_a_trial_of_many_documents_is_that_of_texts_held")
def test_an_epoch_in_shards_reads_states_that_lie_together(base, on_disk, tmp_path, monkeypatch) -> None:
    """Each file of the cache holds texts of one shard, and an epoch goes to the next only when it is done with one."""
    asked: list[int] = []
    get = HiddenStates.get

    def counted(self, trees, *rest):
        asked.append(len(trees))
        return get(self, trees, *rest)

    monkeypatch.setattr(HiddenStates, "get", counted)
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "cache"))
    cache = ProcessCache(CPU, 10**9)
    finished(base | {"epoch_order": "shards", "epochs": 1}, tmp_path, cache)
    count = len(cache.texts(canonical(make_spec(base))).segments)
    assert asked == [4] * (len(asked) - 1) + [count - 4 * (len(asked) - 1)]
    files = sorted((tmp_path / "cache").rglob("layer_1/*.safetensors"))
    assert sorted(len(load_file(file)["ends"]) for file in files) == sorted(asked)
    assert len(list((tmp_path / "cache" / "tokens").glob("*.arrow"))) == 1
    order = batches.epoch_order(count, 0, 0, "shards") // 4
    assert sum(order[1:] != order[:-1]) == -(-count // 4) - 1
