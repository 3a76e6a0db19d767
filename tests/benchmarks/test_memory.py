"""Memory is taken in processes of their own, against a rival with the same losses."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks.memory import CONTENDERS, compare, lines
from benchmarks.memory_child import HostPeak, measure
from benchmarks.plain import run_plain
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def settings(tiny_models, sample_data):
    return {
        "model": str(tiny_models["llama"]),
        "data": str(sample_data),
        "depth": 0.75,
        "num_documents": 2,
        "epochs": 1,
        "memory_dim": 16,
        "segment_tokens": 48,
    }


@linux
@pytest.mark.parametrize("contender, phases", [
    ("trial", ["load", "train", "evaluate"]), ("trunk", ["trunk"]), ("plain", ["all"]),
])  # fmt: skip
@pytest.mark.thorough(only=("trunk",))
def test_a_contender_tells_its_peaks(contender, phases, tiny_models, sample_data, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    found = measure(contender, settings(tiny_models, sample_data), torch.device("cpu"))
    assert list(found["phases"]) == phases
    assert all(set(peak) == {"all", "anon", "file"} for peak in found["phases"].values())
    assert found["hidden" if contender == "trunk" else "weights"] > 0


@linux
@pytest.mark.slow
def test_every_contender_runs_in_its_own_process(tiny_models, sample_data):
    table = compare(settings(tiny_models, sample_data), repeats=1)
    assert set(table["peak_bytes"]) == set(CONTENDERS)
    assert table["weight_bytes"]["warm"] < table["weight_bytes"]["plain"] and table["hidden_bytes"] > 0
    assert all(found["all"]["max"] > 0 for found in table["peak_bytes"].values())
    assert table["share"]["plain"]["all"]["median"] == 1
    assert "trial, cold cache" in "\n".join(lines(table))


@linux
def test_a_peak_is_seen_although_it_is_over():
    peak = HostPeak()
    block = torch.ones(64, 2**18)  # 64 MiB
    del block
    first, second = peak.take(), peak.take()
    peak.close()
    assert first["all"] > 60 * 2**20 and first["all"] > second["all"] + 30 * 2**20


@pytest.mark.gpu
def test_the_plain_trial_on_a_gpu_has_the_same_losses(tiny_models, sample_data):
    spec = canonical(make_spec(settings(tiny_models, sample_data)))
    cache = ProcessCache(torch.device("cpu"), None)
    card, texts, tokenizer = cache.card(spec), cache.texts(spec), cache.tokenizer(spec)
    found = run_plain(card, spec, texts, tokenizer, device="cuda").curve
    assert found == pytest.approx(run_plain(card, spec, texts, tokenizer).curve, abs=1e-3)
