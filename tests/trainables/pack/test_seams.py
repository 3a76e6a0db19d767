"""A run knows neither what it trains nor what it asks: every adapter with every probe, and those of another package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.asking import ANSWERS
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask

MEMBERS: dict[str, list[dict[str, Any]]] = {
    "memory": [{"layer": 1, "lr": 1e-2}, {"layer": 1, "alpha": 1.0, "allocation": "simset1"}],
    "pretrained": [{}, {"num_documents": 3}],
    "full_update": [{"lr": 1e-3}, {"lr": 3e-3}],
    "docguidance": [{"layer": 1, "lr": 1e-2}, {"layer": 1, "guidance_target": 2.5}],
    "two_memories": [
        {"layer": 1, "content": "document+template", "lr": 1e-2},
        {"layer": 1, "content": "document+template"},
    ],
    "prompt": [{"lr": 1e-2}, {"virtual_tokens": 2}],
    "prefix": [{"lr": 1e-2}, {"virtual_tokens": 2}],
    "lora": [{"layer": 1, "lr": 1e-2}, {"layer": 1, "lora_alpha": 1.0}],
    "shift": [{"layer": 2, "lr": 0.1}, {"depth": 0.75, "lr": 0.3}],
}
ASKED = {"probes": ("fever", "counterfact", "recital"), "counterfact_records": 2, "num_answers": 2}


@pytest.fixture
def tasks(small_trial: Callable[..., TrialSpec], tmp_path: Path) -> Callable[..., list[TrialTask]]:
    def make(method: str, where: str = "pack", **values: Any) -> list[TrialTask]:
        found = []
        for member in MEMBERS[method]:
            spec = small_trial(method=method, **{**ASKED, **member, **values})
            name, folder = trial_id(identity(spec)), tmp_path / where
            found.append(TrialTask(name, spec, str(folder / name), str(folder / "checkpoints" / name)))
        return found

    return make


def start(tasks: list[TrialTask], cache: ProcessCache) -> PackWork:
    return PackWork({"trials": [task.to_dict() for task in tasks], "trunk_layers": []}, cache)


def finish(work: PackWork) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for _ in range(40):
        report = work.step()
        results |= {result["id"]: result for result in report["results"]}
        if report["done"]:
            return results
    raise AssertionError("the pack does not end")


def assert_same(one: dict[str, Any], other: dict[str, Any], tolerance: float = 2e-5) -> None:
    assert one["status"] == other["status"] == "done", (one["error"], other["error"])
    assert one["metrics"] == pytest.approx(other["metrics"], abs=tolerance)
    assert one["curves"].keys() == other["curves"].keys()
    for name, curve in one["curves"].items():
        for (epoch, value), (also, expected) in zip(curve, other["curves"][name], strict=True):
            assert epoch == also and value == pytest.approx(expected, abs=tolerance), name


@pytest.mark.parametrize("method", MEMBERS)
@pytest.mark.thorough(but=("memory", "full_update", "lora"))
def test_members_of_a_pack_are_trained_asked_and_written(method: str, tasks: Any, process_cache: ProcessCache) -> None:
    pack = tasks(method, eval_epochs=(1,))
    results = finish(start(pack, process_cache))
    assert results.keys() == {task.id for task in pack} and len(results) == 2
    for task in pack:
        result = results[task.id]
        assert result["status"] == "done", result["error"]
        assert all(math.isfinite(value) for value in result["metrics"].values())
        asked = {name.partition("/")[0] for name in result["metrics"]}
        assert asked == {"memory", "train", *task.spec.probes}
        epochs = [epoch for epoch, _ in result["curves"]["recital/share"]]
        assert epochs == ([0] if method == "pretrained" else [1, 3])
        assert (result["flops"] > 0) == (result["metrics"]["train/params"] > 0) == (method != "pretrained")
        assert result["metrics"]["train/flops"] == result["flops"]
        files = {path.name for path in Path(task.folder).iterdir()}
        answers = {asking.probe: Path(task.folder) / asking.folder / ANSWERS for asking in task.asked}
        assert answers.keys() == set(task.spec.probes)
        rows = pq.read_table(answers["recital"]).to_pylist()
        right = sum(a == b for row in rows for a, b in zip(row["expected"], row["said"], strict=True))
        assert right / sum(len(row["said"]) for row in rows) == pytest.approx(result["metrics"]["recital/share"])
        assert pq.read_table(answers["counterfact"]).num_rows == 2
        assert any(name.endswith(".safetensors") for name in files) == (method not in ("pretrained", "full_update"))


@pytest.mark.parametrize("method", MEMBERS)
@pytest.mark.thorough(but=("memory", "full_update", "lora"))
def test_a_member_gets_the_results_that_it_gets_alone(method: str, tasks: Any, process_cache: ProcessCache) -> None:
    together = finish(start(tasks(method), process_cache))
    for task in tasks(method, where="alone"):
        assert_same(finish(start([task], process_cache))[task.id], together[task.id])


@pytest.mark.parametrize("method", [name for name in MEMBERS if name != "pretrained"])
@pytest.mark.thorough(but=("memory", "full_update", "lora"))
def test_an_interrupted_pack_goes_on_to_the_same_results(method: str, tasks: Any, process_cache: ProcessCache) -> None:
    pack = tasks(method)
    undisturbed = finish(start([replace(t, checkpoint=t.checkpoint + "-unused") for t in pack], process_cache))
    first = start(pack, process_cache)
    first.step()
    first.step()
    first.checkpoint()
    second = start(pack, process_cache)
    assert second.step()["epoch"] == 3, "two epochs were done before"
    results = finish(start(pack, process_cache))
    for trial, expected in undisturbed.items():
        assert_same(results[trial], expected, 1e-6)


@pytest.mark.parametrize("keep", [True, False])
def test_what_was_trained_is_stored_where_asked(keep: bool, tasks: Any, process_cache: ProcessCache) -> None:
    (task, _) = tasks("shift", keep_memory=keep)
    finish(start([task], process_cache))
    assert (Path(task.folder) / "shift.safetensors").exists() == keep


def test_templates_alone_without_any_are_the_users_mistake(tasks: Any, process_cache: ProcessCache) -> None:
    cache = ProcessCache(process_cache.device, None)
    (task, _) = tasks("shift", content="template", probes=("recital",))
    cache.texts(task.spec).train.clear()
    (result,) = finish(start([task], cache)).values()
    assert result["status"] == "failed" and result["error"]["class"] == "config"
    assert result["error"]["message"].startswith("content=template: ")
