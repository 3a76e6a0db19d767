"""A model that cannot be split gives the same result, the whole of it running for every text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.lm.upper import Upper
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec
from trainables.trial.task import TrialTask


def run_pack(model: Path, folder: Path) -> list[dict[str, Any]]:
    """Run two trials of one model as a pack; return their results."""
    tasks = []
    for seed in (0, 1):
        spec = canonical(
            TrialSpec(
                model=str(model), layer=1, num_documents=2, claims_per_page=3, epochs=2, memory_dim=8, lr=0.01,
                allocation="random", alpha=0.5, mem_seed=seed, probes=("fever",), segment_tokens=32,
            )
        )  # fmt: skip
        name = trial_id(identity(spec))
        tasks.append(TrialTask(name, spec, str(folder / name), str(folder / name / "checkpoint")).to_dict())
    work, results = PackWork({"trials": tasks, "trunk_layers": []}, ProcessCache(torch.device("cpu"), None)), []
    while True:
        report = work.step()
        results += report["results"]
        if report["done"]:
            return results


@pytest.mark.thorough(
    beside="tests/trainables/pack/test_masked.py::test_the_whole_model_with_a_mask_says_what_the_split_one_says"
)
def test_the_whole_models_results_are_those_of_the_parts(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "cache"))
    split = run_pack(tiny_models["llama"], tmp_path / "split")
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(Upper, "agrees", lambda *_: False)
    with pytest.warns(UserWarning, match="the whole model runs for every text"):
        whole = run_pack(tiny_models["llama"], tmp_path / "whole")
    assert [result["status"] for result in split + whole] == ["done"] * 4
    for one, other in zip(split, whole, strict=True):
        assert "whole_model" not in one["counts"] and other["counts"]["whole_model"] == 1
        assert other["metrics"].pop("train/flops") > one["metrics"].pop("train/flops") == one["flops"]
        assert other["metrics"] == pytest.approx(one["metrics"], abs=1e-4)
