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
