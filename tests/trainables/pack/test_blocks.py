"""Packs of trials at different blocks: trained, joined and asked in one pass, each as it is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from trainables.lm.upper import Upper
from trainables.pack.orders import orders_bytes
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask

SAME = {"abs": 5e-5}
ASKED = {"probes": ("fever", "counterfact"), "counterfact_records": 2, "num_answers": 2, "lr": 1e-2}
MEMBERS: list[dict[str, Any]] = [
    {"layer": 2, "alpha": 1.0, "allocation": "simset2", "memory_dim": 48},
    {"layer": 1},
    {"layer": 3, "mode": "hard", "allocation": "partitioned", "seed": 3},
    {"layer": 2, "norm_and_gate": False, "eval_epochs": (1,)},
]
LOWER = {"layer": 0, "memory_dim": 7}
"""Joins: below whatever the pack has loaded."""


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(torch.device("cpu"), 10**9)


@pytest.fixture
def task(small_trial: Callable[..., TrialSpec], tmp_path: Path) -> Callable[..., TrialTask]:
    def make(where: str, **values: Any) -> TrialTask:
        spec = small_trial(**{**ASKED, **values})
        name, folder = trial_id(identity(spec)), tmp_path / where
        return TrialTask(name, spec, str(folder / name), str(folder / "checkpoints" / name))

    return make


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Upper]]:
    """Forward passes of upper blocks with a gradient."""
    found: list[Upper] = []
    forward = Upper.forward

    def counted(self: Upper, *args: Any, **more: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            found.append(self)
        return forward(self, *args, **more)

    monkeypatch.setattr(Upper, "forward", counted)
    yield found


def end(work: PackWork) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    for _ in range(60):
        report = work.step()
        assert report["failure"] is None, report["failure"]
        results |= {result["id"]: result for result in report["results"]}
        if report["done"]:
            return results
    raise AssertionError("the pack does not end")


def start(tasks: list[TrialTask], cache: ProcessCache, **more: Any) -> PackWork:
    return PackWork({"trials": [task.to_dict() for task in tasks], "trunk_layers": [], **more}, cache)


def assert_same(mine: dict[str, Any], alone: dict[str, Any]) -> None:
    assert mine["status"] == alone["status"] == "done", (mine["error"], alone["error"])
    assert mine["metrics"] == pytest.approx(alone["metrics"], **SAME)
    assert mine["curves"].keys() == alone["curves"].keys()
    for name, curve in alone["curves"].items():
        assert [v for _, v in mine["curves"][name]] == pytest.approx([v for _, v in curve], **SAME), name
    assert mine["flops"] == alone["flops"] and mine["files"].keys() == alone["files"].keys()


def test_members_at_several_blocks_one_of_which_joins_below_the_others(task, cache, tmp_path, passes) -> None:
    tasks, lower = [task("pack", **member) for member in MEMBERS], task("pack", **LOWER)
    orders = tmp_path / "orders.json"
    work = start(tasks, cache, orders_file=str(orders))
    work.step()
    first, loaded = len(passes), passes[0].layer
    orders.write_bytes(orders_bytes([tasks[1].id], [lower]))
    work.step()
    assert len(passes) == 2 * first and (loaded, passes[-1].layer) == (1, 0)
    found = end(work)
    assert len(passes) == 4 * first, "the last one's third epoch is its own"
    assert found.keys() == {tasks[0].id, tasks[2].id, tasks[3].id, lower.id}
    assert {name: r["timings"]["pack_size"] for name, r in found.items()} == {**dict.fromkeys(found, 4)}
    spent = [found[each.id]["timings"]["train_s"] for each in (tasks[0], tasks[2])]
    assert spent[0] > spent[1], "who has fewer blocks above it is charged less"
    for member in (*(MEMBERS[k] for k in (0, 2, 3)), LOWER):
        alone = task("alone", **member)
        assert_same(found[alone.id], end(start([alone], cache))[alone.id])


def test_stored_trainings_at_several_blocks_are_asked_as_they_were(task, cache) -> None:
    tasks = [task("asked", **member) for member in MEMBERS]
    trained = end(start(tasks, cache))
    asked = end(start([replace(each, stored=True) for each in reversed(tasks)], cache))
    assert asked.keys() == trained.keys()
    for name, found in asked.items():
        told = {metric: value for metric, value in trained[name]["metrics"].items() if metric in found["metrics"]}
        assert found["metrics"] == pytest.approx(told, abs=1e-6) and "fever/accuracy" in told
    work = start([replace(each, stored=True) for each in tasks], cache)
    work.step()
    assert work.step()["done"], "one run"


def test_a_model_that_lets_nothing_in_later_has_a_run_for_each_block(task, cache, tiny_models, tmp_path) -> None:
    folder = tmp_path / "bloom"
    tokenizer = AutoTokenizer.from_pretrained(tiny_models["llama"])
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=4, n_head=2)
    BloomForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tasks = [task("bloom", model=str(folder), probes=(), **member) for member in MEMBERS]
    found = end(start(tasks, cache))
    sizes = {each.spec.layer: found[each.id]["timings"]["pack_size"] for each in tasks}
    assert sizes == {1: 1, 2: 2, 3: 1}
    alone = task("bloom alone", model=str(folder), probes=(), **MEMBERS[0])
    assert_same(found[alone.id], end(start([alone], cache))[alone.id])
    asked = [task("bloom", model=str(folder), probes=(), **member) for member in MEMBERS]
    again = end(start([replace(each, stored=True) for each in asked], cache))
    assert again.keys() == found.keys()
