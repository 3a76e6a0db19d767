"""What a worker process keeps: its timings."""

from __future__ import annotations

import time

import pytest
import torch

from trainables.pack.process_cache import ProcessCache


def test_a_second_is_counted_for_one_part_only():
    cache = ProcessCache(torch.device("cpu"), None)
    start = time.perf_counter()
    with cache.timing("outer_s"):
        time.sleep(0.02)
        with cache.timing("inner_s"):
            time.sleep(0.05)
            with cache.timing("innermost_s"):
                time.sleep(0.02)
        with cache.timing("inner_s"):
            time.sleep(0.01)
    whole = time.perf_counter() - start
    found = cache.take_timings()
    assert sum(found.values()) == pytest.approx(whole, abs=0.01)
    assert found["inner_s"] >= 0.06 and found["innermost_s"] >= 0.02 and found["outer_s"] >= 0.02
    with cache.timing("later_s"):
        time.sleep(0.01)
    assert cache.take_timings()["later_s"] >= 0.01


def test_loading_the_tokenizer_is_not_counted_as_reading_data(tiny_models, sample_data):
    from trainables.trial.spec import canonical, make_spec

    spec = canonical(make_spec({"model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 0}))
    cache = ProcessCache(torch.device("cpu"), None)
    start = time.perf_counter()
    cache.texts(spec)
    whole = time.perf_counter() - start
    found = cache.take_timings()
    assert set(found) == {"data_s", "load_s"} and sum(found.values()) <= whole


def test_another_setting_of_a_probe_makes_it_anew(small_trial, process_cache):
    one, other = (small_trial(layer=1, probes=("recital",), segment_tokens=tokens) for tokens in (48, 6))
    texts = process_cache.texts(one)
    assert process_cache.texts(small_trial(layer=2, probes=("recital",), lr=0.5)) is texts
    assert process_cache.texts(other).probes["recital"].plan.segment_tokens == 6
    for name, value in {"num_shots": 2, "claims_per_page": 1, "seed": 4}.items():
        (plan,) = (probe.plan for probe in process_cache.texts(small_trial(layer=1, **{name: value})).probes.values())
        assert getattr(plan, name) == value
