"""A pack's results: the same alone or packed, first or resumed, and what each loss does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from trainables.adapters.memory.io import load_memory
from trainables.errors import Failure, OutOfMemory
from trainables.pack import result as pack_result
from trainables.pack import run as pack_run
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.asking import ANSWERS
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

pytestmark = pytest.mark.thorough(only=("gpt_neox",))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(CPU, 10**9)


@pytest.fixture(scope="module")
def gpu() -> ProcessCache:
    return ProcessCache(torch.device("cuda"), 10**9)


@pytest.fixture(params=["llama", "gpt_neox"])
def base(request, tiny_models, sample_data) -> dict:
    return {
        "model": str(tiny_models[request.param]),
        "data": str(sample_data),
        "layer": 1,
        "memory_dim": 32,
        "num_documents": 4,
        "epochs": 3,
        "segment_tokens": 48,
        "claims_per_page": 2,
        "checkpoint_every_s": 0,
    }


def task(values: dict, folder: Path) -> TrialTask:
    spec = make_spec(values)
    name = trial_id(identity(spec))
    return TrialTask(name, canonical(spec), str(folder / name), str(folder / "checkpoints" / name))


def finish(work: PackWork) -> dict[str, dict]:
    results: dict[str, dict] = {}
    for _ in range(100):
        report = work.step()
        results |= {r["id"]: r for r in report["results"]}
        if report["done"]:
            return results
    raise AssertionError("the pack does not end")


def run(tasks: list[TrialTask], cache: ProcessCache) -> dict[str, dict]:
    return finish(PackWork({"trials": [t.to_dict() for t in tasks], "trunk_layers": [1]}, cache))


VARIANTS = (
    {"alpha": 0.0},
    {"alpha": 1.0, "allocation": "partitioned"},
    {"alpha": 5.0, "allocation": "simset2", "weight_decay": 0.01},
    {"alpha": 1.0, "allocation": "simset1", "granularity": "token", "lr": 3e-3},
    {"mode": "hard", "allocation": "random", "mem_seed": 3},
    {"mode": "hard", "allocation": "simset1", "granularity": "token"},
)


UNEQUAL = (
    {"seed": 0},
    {"seed": 1, "memory_dim": 3},
    {"seed": 1, "memory_dim": 48, "norm_and_gate": False, "alpha": 1.0, "allocation": "simset2"},
    {"seed": 2, "mode": "hard", "allocation": "partitioned"},
    {"seed": 2, "claims_per_page": 1, "lr": 3e-3},
)
"""Members of other seeds are asked other prompts."""


def assert_same(one: dict, other: dict, tolerance: float) -> None:
    assert one["status"] == other["status"]
    assert one["metrics"].keys() == other["metrics"].keys()
    for name, value in one["metrics"].items():
        assert other["metrics"][name] == pytest.approx(value, abs=tolerance), name
    for name, curve in one["curves"].items():
        assert [e for e, _ in curve] == [e for e, _ in other["curves"][name]]
        assert [v for _, v in curve] == pytest.approx([v for _, v in other["curves"][name]], abs=tolerance), name


@pytest.mark.parametrize("variants", [VARIANTS, UNEQUAL], ids=["of one shape and seed", "unequal"])
@pytest.mark.parametrize(("device", "tolerance"), [("cache", 2e-5), pytest.param("gpu", 1e-4, marks=pytest.mark.gpu)])
def test_each_member_of_a_pack_gets_the_result_it_gets_alone(base, device, tolerance, variants, request, tmp_path):
    cache = request.getfixturevalue(device)
    packed = run([task({**base, **v}, tmp_path / "packed") for v in variants], cache)
    assert {r["status"] for r in packed.values()} == {"done"}
    for variant in variants:
        alone = task({**base, **variant}, tmp_path / "alone")
        assert_same(run([alone], cache)[alone.id], packed[alone.id], tolerance)
        (asking,) = alone.asked
        answers = [
            pq.read_table(tmp_path / where / alone.id / asking.folder / ANSWERS) for where in ("packed", "alone")
        ]
        assert answers[0].equals(answers[1])


def test_the_seconds_of_a_question_are_shared_by_those_who_asked_it(base, cache, tmp_path):
    results = run([task({**base, **v}, tmp_path) for v in UNEQUAL], cache).values()
    asked = [sum(told["timings"]["evaluate_s"] for told in result["askings"].values()) for result in results]
    assert sum(asked) == pytest.approx(sum(result["timings"]["evaluate_s"] for result in results))


def test_a_trial_run_twice_is_bit_identical(base, cache, tmp_path):
    tasks = [[task({**base, **VARIANTS[2]}, tmp_path / str(i))] for i in range(2)]
    first, second = (run(t, cache)[t[0].id] for t in tasks)
    assert_same(first, second, 0.0)


def test_an_interrupted_trial_goes_on_from_its_checkpoint_to_the_same_result(base, cache, tmp_path):
    tasks = [task({**base, **v}, tmp_path) for v in VARIANTS[:3]]
    whole = run([replace(t, checkpoint=t.checkpoint + "-unused") for t in tasks], cache)
    interrupted = PackWork({"trials": [t.to_dict() for t in tasks], "trunk_layers": [1]}, cache)
    interrupted.step()
    interrupted.step()
    interrupted.checkpoint()
    again = PackWork({"trials": [t.to_dict() for t in tasks], "trunk_layers": [1]}, cache)
    assert again.step()["epoch"] == 3
    results = run(tasks, cache)
    for t in tasks:
        assert_same(whole[t.id], results[t.id], 1e-6)
        kept = [load_memory(tmp_path / t.id / "memory.safetensors")]
        assert all(torch.isfinite(p).all() for p in kept[0].memory.parameters())


def test_members_whose_checkpoints_stand_at_different_epochs_all_finish(base, cache, tmp_path):
    tasks = [task({**base, **v}, tmp_path) for v in VARIANTS[:2]]
    ahead = PackWork({"trials": [tasks[0].to_dict()], "trunk_layers": [1]}, cache)
    ahead.step()
    ahead.checkpoint()
    results = run(tasks, cache)
    assert {r["status"] for r in results.values()} == {"done"} and len(results) == 2


def test_a_broken_checkpoint_means_starting_over(base, cache, tmp_path):
    one = task({**base}, tmp_path)
    Path(one.checkpoint).parent.mkdir(parents=True)
    Path(one.checkpoint).write_bytes(b"not a checkpoint")
    assert run([one], cache)[one.id]["status"] == "done"


def test_leakage_falls_as_alpha_grows(base, cache, tmp_path):
    tasks = [
        task({**base, "alpha": a, "allocation": "partitioned", "epochs": 8, "lr": 1e-2}, tmp_path)
        for a in (0.2, 1.0, 5.0)
    ]
    results = run(tasks, cache)
    leaks = [results[t.id]["metrics"]["memory/leakage"] for t in tasks]
    assert leaks[0] > leaks[1] > leaks[2]


def test_alpha_zero_is_plain_memorising_bit_for_bit_whatever_shares_its_pack(base, cache, tmp_path):
    plain = task({**base}, tmp_path / "plain")
    alone = run([plain], cache)[plain.id]
    states = []
    for where in ("a", "b"):
        tasks = [task({**base}, tmp_path / where), task({**base, **VARIANTS[1]}, tmp_path / where)]
        run(tasks[: 1 if where == "a" else 2], cache)
        states.append(load_memory(tmp_path / where / plain.id / "memory.safetensors").memory.state_dict())
    assert alone["status"] == "done"
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-5)


def test_at_alpha_zero_leakage_is_reported_for_every_allocation(base, cache, tmp_path):
    plain = task({**base}, tmp_path)
    metrics = run([plain], cache)[plain.id]["metrics"]
    for name in ("random", "partitioned", "simset1", "simset2", "simset3"):
        assert 0 < metrics[f"memory/leakage_{name}"] < 1


def test_members_that_begin_alike_have_one_untrained_error_and_each_has_its_own(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of packs that the process ran before; one whose entries are masked begins with fewer of them."""
    base = {**base, "epochs": 1, "alpha": 1.0, "allocation": "partitioned"}
    others = [{}, {"alpha": 2.0}, {"allocation": "simset2"}, {"mem_seed": 5}, {"lr": 1e-4, "weight_decay": 0.1}]
    apart = [{"seed": 3}, {"norm_and_gate": False}, {"memory_dim": 16}, {"mode": "hard"}]
    measured: list[int] = []
    nll = pack_run.PackRun._nll
    monkeypatch.setattr(
        pack_run.PackRun, "_nll", lambda self, members: measured.append(len(members)) or nll(self, members)
    )

    def untrained(tasks: list[TrialTask], cache: ProcessCache) -> list[float]:
        measured.clear()
        found = run(tasks, cache)
        return [found[t.id]["metrics"]["memory/nll_untrained"] for t in tasks]

    one = ProcessCache(CPU, 10**9)
    alike = [task({**base, **other}, tmp_path / "one") for other in others]
    (value, *same) = untrained(alike[:3], one)
    assert measured == [1, 3] and same == [value, value]
    assert untrained(alike[3:], one) == [value, value] and measured == [2]
    for other in apart:
        trial = task({**base, **other}, tmp_path / "one")
        (found,) = untrained([trial], one)
        assert measured == [1, 1] and found != value
        alone = task({**base, **other}, tmp_path / "alone")
        assert untrained([alone], ProcessCache(CPU, 10**9)) == pytest.approx([found], abs=1e-6)
    assert untrained([alike[0]], ProcessCache(CPU, 10**9)) == pytest.approx([value], abs=1e-6)


def test_the_untrained_memory_is_measured_and_no_point_of_a_curve_that_is_the_trained_ones(base, cache, tmp_path):
    plain, asked = task({**base}, tmp_path), task({**base, "eval_epochs": (0,)}, tmp_path)
    found, with_epoch_0 = run([plain], cache)[plain.id], run([asked], cache)[asked.id]
    value = found["metrics"]["memory/nll_untrained"]
    assert with_epoch_0["curves"]["memory/nll"][0] == [0, pytest.approx(value, abs=1e-6)]
    assert [epoch for epoch, _ in found["curves"]["memory/nll"]] == [3]
    assert abs(value - found["metrics"]["memory/nll_before"]) > 0.001
    untrained = task({**base, "method": "pretrained"}, tmp_path)
    assert "memory/nll_untrained" not in run([untrained], cache)[untrained.id]["metrics"]


def test_a_loss_that_is_not_a_number_is_recorded_as_diverged_and_leaves_the_others_alone(base, cache, tmp_path):
    wild = task({**base, "lr": 1e30, "warmup_steps": 0, "norm_and_gate": False}, tmp_path)
    calm = task({**base, "norm_and_gate": False, "warmup_steps": 0}, tmp_path)
    results = run([wild, calm], cache)
    assert results[wild.id]["status"] == "diverged" and results[wild.id]["error"]["class"] == "diverged"
    json.dumps(results[wild.id], allow_nan=False)
    alone = run([task({**base, "norm_and_gate": False, "warmup_steps": 0}, tmp_path / "alone")], cache)[calm.id]
    assert_same(alone, results[calm.id], 2e-5)


@pytest.mark.parametrize("tokens", [1, 60])
@pytest.mark.parametrize("variant", [VARIANTS[1], VARIANTS[3], {"mode": "hard", "allocation": "partitioned"}])
def test_small_micro_batches_change_nothing(base, cache, tmp_path, tokens, variant):
    variant = {**base, **variant}
    whole = task(variant, tmp_path / "whole")
    parts = task({**variant, "micro_batch_tokens": tokens}, tmp_path / "parts")
    assert whole.id == parts.id
    assert_same(run([whole], cache)[whole.id], run([parts], cache)[parts.id], 2e-5)


def test_out_of_memory_splits_a_pack_and_fails_a_single_trial(base, cache, tmp_path, monkeypatch):

    tasks = [task({**base, **v}, tmp_path) for v in VARIANTS[:3]]
    real = pack_run.PackRun.__init__

    def small_device(self, members, *args):
        if len(members) > 1 or members[0].id == tasks[2].id:
            raise OutOfMemory("no room")
        real(self, members, *args)

    monkeypatch.setattr(pack_run.PackRun, "__init__", small_device)
    results = run(tasks, cache)
    assert [results[t.id]["status"] for t in tasks] == ["done", "done", "failed"]
    assert results[tasks[2].id]["error"]["class"] == "memory"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ZeroDivisionError("division by zero"), "bug"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device"),
        (OSError(errno.ENOSPC, "No space left on device"), "io"),
    ],
)
def test_what_is_not_a_trials_own_ends_the_pack_without_a_result(base, cache, tmp_path, monkeypatch, error, kind):
    def broken(self):
        raise error

    monkeypatch.setattr(pack_run.PackRun, "step", broken)
    tasks = [task({**base, **v}, tmp_path) for v in VARIANTS[:2]]
    report = PackWork({"trials": [t.to_dict() for t in tasks], "trunk_layers": []}, cache).step()
    assert report["done"] and report["results"] == []
    failure = Failure.from_dict(report["failure"])
    assert failure.kind == kind and str(error) in failure.message and type(error).__name__ in failure.traceback


def test_a_result_that_cannot_be_written_is_tried_again_and_then_no_result(base, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_SWEEP_IO_PATIENCE_S", "30")
    one, tries = task({**base, "epochs": 1}, tmp_path), []
    real = pack_result.write_bytes

    def full(location, content):
        tries.append(location)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(location, content)

    monkeypatch.setattr(pack_result, "write_bytes", full)
    assert run([one], cache)[one.id]["status"] == "done" and len(tries) > 3
    monkeypatch.setenv("MEMORY_SWEEP_IO_PATIENCE_S", "0.1")

    def always_full(location, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack_result, "write_bytes", always_full)
    work = PackWork({"trials": [one.to_dict()], "trunk_layers": []}, cache)
    reports = []
    while not reports or not reports[-1]["done"]:
        reports.append(work.step())
    assert reports[-1]["failure"]["kind"] == "io" and not any(report["results"] for report in reports)


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_a_process_that_ends_keeps_a_checkpoint_unless_the_trial_is_recorded(base, cache, tmp_path, status):
    one = task({**base, "epochs": 4, "checkpoint_every_s": 1000}, tmp_path)
    work = PackWork({"trials": [one.to_dict()], "trunk_layers": []}, cache)
    work.step()
    Path(one.folder).mkdir(parents=True)
    (Path(one.folder) / "record.json").write_text(json.dumps({"status": status}))
    work.keep()
    assert Path(one.checkpoint).exists() == (status == "failed")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make a file system that cannot be written")
def test_a_cache_folder_that_cannot_be_written_is_done_without_and_said(base, tmp_path, monkeypatch):
    shut = tmp_path / "cache"
    shut.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(shut)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(shut))
        one = task({**base, "epochs": 1}, tmp_path)
        work = PackWork({"trials": [one.to_dict()], "trunk_layers": []}, ProcessCache(torch.device("cpu"), None))
        report = work.step()
        assert [found["status"] for found in report["results"]] == ["done"]
        assert "cannot be written" in report["notes"][0] and str(shut) in report["notes"][0]
    finally:
        subprocess.run(["umount", str(shut)], check=True)


def test_a_pretrained_trial_trains_nothing_and_is_evaluated(base, cache, tmp_path):
    one = task({**base, "method": "pretrained", "layer": None}, tmp_path)
    result = run([one], cache)[one.id]
    assert result["status"] == "done" and result["flops"] == 0
    assert result["metrics"]["memory/nll"] == pytest.approx(result["metrics"]["memory/nll_before"])
    assert "fever/accuracy" in result["metrics"]
    assert not (tmp_path / one.id / "memory.safetensors").exists()


@pytest.mark.parametrize("content", ["template", "document+template"])
@pytest.mark.parametrize("loss", ["full", "answer"])
def test_templates_are_trained_with_loss_on_all_or_on_the_answer_only(base, cache, tmp_path, content, loss):
    one = task({**base, "content": content, "template_loss": loss, "epochs": 6, "lr": 5e-3}, tmp_path)
    curve = run([one], cache)[one.id]["curves"]["train/nll"]
    assert curve[-1][1] < curve[0][1]


def test_evaluation_at_chosen_epochs_gives_curves(base, cache, tmp_path):
    one = task({**base, "eval_epochs": (0, 2)}, tmp_path)
    curves = run([one], cache)[one.id]["curves"]
    assert [e for e, _ in curves["fever/accuracy"]] == [0, 2, 3]
    assert [e for e, _ in curves["memory/nll"]] == [0, 2, 3]
    assert [e for e, _ in curves["train/nll"]] == [1, 2, 3]


FULL = {"method": "full_update", "layer": None, "content": "document+template", "epochs": 4}


def test_a_full_update_trains_all_weights_with_the_same_records(base, cache, tmp_path):
    one = task({**base, **FULL}, tmp_path)
    result = run([one], cache)[one.id]
    assert result["status"] == "done" and result["flops"] > 0
    assert result["metrics"]["memory/nll"] < result["metrics"]["memory/nll_before"]
    assert {"fever/accuracy", "train/nll"} <= result["metrics"].keys()


def test_an_interrupted_full_update_goes_on_to_the_same_result(base, cache, tmp_path):
    one = task({**base, **FULL}, tmp_path)
    whole = run([replace(one, checkpoint=one.checkpoint + "-unused")], cache)[one.id]
    interrupted = PackWork({"trials": [one.to_dict()], "trunk_layers": []}, cache)
    interrupted.step()
    interrupted.step()
    interrupted.checkpoint()
    assert_same(whole, run([one], cache)[one.id], 1e-6)


def test_counterfact_prompts_are_answered_and_samples_kept(base, cache, tmp_path):
    base = {**base, "probes": ("counterfact",), "counterfact_records": 3, "num_answers": 2}
    packed = run([task({**base, **v}, tmp_path) for v in VARIANTS[:2]], cache)
    for result in packed.values():
        assert {"counterfact/true_rate", "counterfact/new_rate", "counterfact/token_f1"} <= result["metrics"].keys()
        (asking,) = result["askings"]
        samples = pq.read_table(tmp_path / result["id"] / "probes" / asking / ANSWERS).to_pylist()
        assert len(samples) == 3 and all(len(s["answers"]) == 2 for s in samples)
    alone = task({**base, **VARIANTS[1]}, tmp_path / "alone")
    assert_same(run([alone], cache)[alone.id], packed[alone.id], 2e-5)


def test_a_saved_memory_put_onto_a_plain_model_gives_the_recorded_nll(base, cache, tmp_path):
    from transformers import AutoModelForCausalLM

    from trainables.lm.reference import attach_memory

    one = task({**base, "lr": 1e-2}, tmp_path)
    recorded = run([one], cache)[one.id]["metrics"]["memory/nll"]
    saved = load_memory(tmp_path / one.id / "memory.safetensors")
    model = AutoModelForCausalLM.from_pretrained(base["model"])
    attach_memory(model, saved.memory, saved.layer)
    total, count = 0.0, 0
    with torch.no_grad():
        for text in cache.texts(one.spec).segments:
            tokens = torch.tensor([text.tree.tokens])
            targets = tokens.shape[1] - 1
            total, count = total + float(model(tokens, labels=tokens).loss) * targets, count + targets
    assert total / count == pytest.approx(recorded, abs=1e-5)


def test_what_a_process_keeps_never_reaches_a_pack_with_other_texts(base, tmp_path):
    variants = [{"num_documents": n, "segment_tokens": t} for n in (2, 3, 4) for t in (32, 48)] * 2
    kept = ProcessCache(CPU, None)
    expected: dict[str, dict] = {}
    for number, variant in enumerate(variants):
        one = task({**base, **variant, "epochs": 1}, tmp_path / str(number))
        fresh = expected.setdefault(one.id, run([one], ProcessCache(CPU, None))[one.id])
        assert_same(fresh, run([one], kept)[one.id], 0.0)


@pytest.mark.gpu
def test_a_gpu_gives_the_results_of_the_processor(base, cache, gpu, tmp_path):
    here, there = (run([task({**base, **v}, tmp_path / on.device.type) for v in VARIANTS], on) for on in (cache, gpu))
    assert {result["status"] for result in (*here.values(), *there.values())} == {"done"}
    for name, result in here.items():
        losses, others = ([v for _, v in found["curves"]["train/nll"]] for found in (result, there[name]))
        assert others == pytest.approx(losses, abs=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [FULL, {"probes": ("counterfact",), "counterfact_records": 3, "num_answers": 2}])
def test_on_a_gpu_the_other_kinds_of_trials_end_too(base, gpu, tmp_path, settings):
    one = task({**base, **settings}, tmp_path)
    assert run([one], gpu)[one.id]["status"] == "done"


@pytest.mark.gpu
def test_on_a_gpu_bfloat16_is_near_float32(base, gpu, tmp_path):
    errors = []
    for dtype in ("float32", "bfloat16"):
        one = task({**base, **VARIANTS[1], "dtype": dtype}, tmp_path)
        errors.append(run([one], gpu)[one.id]["metrics"]["memory/nll"])
    assert errors[1] == pytest.approx(errors[0], abs=0.05)
