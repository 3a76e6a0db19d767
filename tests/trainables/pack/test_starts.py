"""Trials that start from the weights of an earlier one: against plain programs, packed and alone, disturbed or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.io import load_memory
from trainables.adapters.registry import adapter_plan
from trainables.errors import ConfigError
from trainables.lm.batches import epoch_order
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask

Trial = Callable[..., TrialSpec]
COMMON: dict[str, Any] = {
    "layer": 1, "memory_dim": 16, "num_documents": 3, "num_shots": 0, "epochs": 2, "lr": 1e-2, "batch_size": 3,
    "warmup_steps": 0, "weight_decay": 0.1, "grad_clip": 0.5,
}  # fmt: skip
MEMBERS = ({}, {"alpha": 1.0, "allocation": "partitioned"}, {"lr": 3e-3})
"""Of a pack of earlier trials; each has a later one."""
LATER = {
    "trained on": {"content": "template"},
    "frozen below": {"content": "template", "method": "two_memories", "template_layer": 2},
    "frozen beside": {"content": "template", "method": "two_memories"},
    "both on": {"content": "document+template", "method": "two_memories", "template_layer": 3},
    "more epochs": {"content": "document", "epochs": 1},
}


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(torch.device("cpu"), 10**9)


@pytest.fixture
def earlier(small_trial: Trial, cache: ProcessCache, tmp_path: Path) -> list[TrialTask]:
    """A pack of finished trials of documents, with their weights."""
    tasks = [task_of(small_trial(**{**COMMON, **member}), tmp_path / "earlier") for member in MEMBERS]
    assert {result["status"] for result in run(tasks, cache).values()} == {"done"}
    return tasks


def task_of(spec: TrialSpec, folder: Path, start: TrialTask | None = None) -> TrialTask:
    name = trial_id(identity(spec))
    files = adapter_plan(vars(start.spec)).files if start else ()
    places = tuple(f"{start.folder}/{file}" for file in files if start)
    return TrialTask(name, spec, str(folder / name), str(folder / "checkpoints" / name), start=places)


def run(tasks: list[TrialTask], cache: ProcessCache, steps: int = 100) -> dict[str, dict[str, Any]]:
    work = PackWork({"trials": [task.to_dict() for task in tasks], "trunk_layers": []}, cache)
    results: dict[str, dict[str, Any]] = {}
    for _ in range(steps):
        report = work.step()
        assert report["failure"] is None, report["failure"]
        results |= {result["id"]: result for result in report["results"]}
        if report["done"]:
            return results
    work.checkpoint()
    return results


def later_of(small_trial: Trial, earlier: list[TrialTask], folder: Path, **values: Any) -> list[TrialTask]:
    return [
        task_of(small_trial(**{**COMMON, **values, "start_from": start.id}), folder, start) for start in earlier
    ]  # fmt: skip


def weights(task: TrialTask, name: str = "memory.safetensors") -> dict[str, torch.Tensor]:
    return dict(load_memory(f"{task.folder}/{name}").memory.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", LATER)
@pytest.mark.thorough(but=("trained on", "frozen beside"))
def test_children_of_several_trials_in_one_pass_are_as_alone(
    kind: str, small_trial: Trial, earlier: list[TrialTask], cache: ProcessCache, tmp_path: Path
) -> None:
    packed = later_of(small_trial, earlier, tmp_path / "packed", **LATER[kind])
    together = run(packed, cache)
    assert len({task.id for task in packed}) == 3 and {r["status"] for r in together.values()} == {"done"}
    for start in earlier:
        (alone,) = later_of(small_trial, [start], tmp_path / "alone", **LATER[kind])
        result = run([alone], cache)[alone.id]
        assert result["metrics"] == pytest.approx(together[alone.id]["metrics"], abs=2e-5)
    first = together[packed[0].id]
    error = next(value for epoch, value in first["curves"]["memory/nll_untrained"] if epoch == 0)
    if kind in ("trained on", "more epochs"):
        spec = earlier[0].spec
        ended = run([task_of(spec, tmp_path / "again")], cache)[trial_id(identity(spec))]
        assert error == pytest.approx(ended["metrics"]["memory/nll"], abs=1e-5), "it begins where the other ended"


def plain_model(spec: TrialSpec, memories: dict[int, list[Memory]]) -> Any:
    """The model of `transformers` with memories added to the outputs of its blocks by hooks."""
    model = AutoModelForCausalLM.from_pretrained(spec.model).requires_grad_(False)
    for layer, own in memories.items():
        model.model.layers[layer].register_forward_hook(
            lambda block, args, out, own=own: out + sum(memory(out) for memory in own)
        )
    return model


def train_plainly(spec: TrialSpec, model: Any, memory: Memory, texts: list[Any]) -> None:
    adamw = torch.optim.AdamW(memory.parameters(), lr=spec.lr, weight_decay=spec.weight_decay)
    total, done = -(-len(texts) // spec.batch_size) * spec.epochs, 0
    for epoch in range(spec.epochs):
        order = epoch_order(len(texts), spec.seed, epoch).tolist()
        for begin in range(0, len(order), spec.batch_size):
            step = [texts[i] for i in order[begin : begin + spec.batch_size]]
            adamw.zero_grad()
            for text in step:
                row = torch.tensor([text.tree.tokens])
                share = text.num_targets / sum(t.num_targets for t in step)
                (model(input_ids=row, labels=row).loss * share).backward()
            torch.nn.utils.clip_grad_norm_(memory.parameters(), spec.grad_clip)
            for group in adamw.param_groups:
                group["lr"] = spec.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done / total)).item())
            adamw.step()
            done += 1


@pytest.mark.parametrize("kind", ["trained on", "frozen below", "frozen beside"])
def test_a_plain_program_gets_the_same_weights(
    kind: str, small_trial: Trial, earlier: list[TrialTask], cache: ProcessCache, tmp_path: Path
) -> None:
    (task,) = later_of(small_trial, earlier[:1], tmp_path, **LATER[kind])
    result = run([task], cache)[task.id]
    stored = load_memory(f"{earlier[0].folder}/memory.safetensors").memory
    stored.requires_grad_(kind == "trained on")
    texts = cache.texts(task.spec).train
    assert texts and not {t.tree.digest() for t in texts} & {t.tree.digest() for t in cache.texts(task.spec).segments}
    if kind == "trained on":
        train_plainly(task.spec, plain_model(task.spec, {1: [stored]}), stored, texts)
        new, trained = stored, weights(task)
    else:
        new = Memory(32, 16, seed=1_000_003)
        layer = task.spec.template_layer or 1
        placed = {1: [stored, new]} if layer == 1 else {1: [stored], layer: [new]}
        train_plainly(task.spec, plain_model(task.spec, placed), new, texts)
        trained = weights(task, "template_memory.safetensors")
        assert same(weights(task), weights(earlier[0])), "what is frozen stays as it is, to the bit"
        assert result["metrics"]["train/params"] == sum(value.numel() for value in trained.values())
    for name, value in new.state_dict().items():
        torch.testing.assert_close(trained[name], value, atol=2e-5, rtol=0)
    assert not same(trained, weights(earlier[0]))


@pytest.mark.parametrize("kind", LATER)
@pytest.mark.thorough(but=("trained on", "frozen beside"))
def test_an_interrupted_child_goes_on_though_what_it_started_from_is_gone(
    kind: str, small_trial: Trial, earlier: list[TrialTask], cache: ProcessCache, tmp_path: Path
) -> None:
    values = {**LATER[kind], "epochs": 3}
    undisturbed = run(later_of(small_trial, earlier, tmp_path / "whole", **values), cache)
    tasks = later_of(small_trial, earlier, tmp_path / "cut", **values)
    run(tasks, cache, steps=2)
    for start in earlier:
        shutil.rmtree(start.folder)
    resumed = run(tasks, cache)
    for name, result in resumed.items():
        assert result["metrics"] == pytest.approx(undisturbed[name]["metrics"], abs=1e-6)


def test_weights_that_are_missing_or_broken_are_the_trials_failure_in_one_line(
    small_trial: Trial, earlier: list[TrialTask], cache: ProcessCache, tmp_path: Path
) -> None:
    (task,) = later_of(small_trial, earlier[:1], tmp_path, content="template")
    file = Path(task.start[0])
    whole = file.read_bytes()
    for content, told in ((whole[:-5], "memory.safetensors: not readable"), (None, "missing; what trial")):
        file.unlink() if content is None else file.write_bytes(content)
        result = run([task], cache)[task.id]
        assert result["status"] == "failed" and result["error"]["class"] == "data"
        assert told in result["error"]["message"] and "\n" not in result["error"]["message"]


def test_what_does_not_fit_is_refused_by_the_plan(small_trial: Trial) -> None:
    documents, start = small_trial(**COMMON), "0" * 16
    cases = {
        "memory_dim=32: the weights to start from are of memory_dim=16": {"memory_dim": 32},
        "layer=2: the weights to start from are of layer=1": {"layer": 2},
        "norm_and_gate=False: the weights": {"norm_and_gate": False},
        "method=lora: cannot start from the weights of a memory, only from those of lora": {"method": "lora"},
        "method=full_update: cannot start from the weights of a memory, nor from any others": {"method": "full_update"},
        "template_layer=2: the memory to start from is of layer=1": {
            "method": "two_memories", "content": "document", "template_layer": 2,
        },
        "layer=0: the memory to start from is of layer=1": {
            "method": "two_memories", "content": "template", "layer": 0, "template_layer": 1,
        },
    }  # fmt: skip
    for told, values in cases.items():
        later = adapter_plan(vars(small_trial(**{**COMMON, "start_from": start, **values})))
        with pytest.raises(ConfigError) as caught:
            later.check_start(adapter_plan(vars(documents)))
        assert told in str(caught.value)
    above = small_trial(**{**COMMON, "start_from": start, "method": "two_memories", "content": "document"})
    adapter_plan(vars(above)).check_start(adapter_plan(vars(documents)))
    assert adapter_plan(vars(above)).taken == "template", "a memory is taken for the kind that is not trained"  # type: ignore[attr-defined]
