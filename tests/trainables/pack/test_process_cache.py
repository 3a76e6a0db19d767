"""What a worker process keeps: its timings."""

from __future__ import annotations

import torch

from trainables.pack.process_cache import Workbench


def test_a_second_is_counted_for_one_part_only(monkeypatch):
    now = 0.0
    monkeypatch.setattr("trainables.pack.process_cache.time.perf_counter", lambda: now)
    bench = Workbench(torch.device("cpu"), None)
    with bench.timing("outer_s"):
        now += 2
        with bench.timing("inner_s"):
            now += 5
            with bench.timing("innermost_s"):
                now += 3
        now += 1
        with bench.timing("inner_s"):
            now += 10
    assert bench.take_timings() == {"outer_s": 3, "inner_s": 15, "innermost_s": 3}
    with bench.timing("later_s"):
        now += 7
    assert bench.take_timings() == {"later_s": 7}


def test_loading_the_tokenizer_is_not_counted_as_reading_data(tiny_models, sample_data):
    from trainables.trial.spec import canonical, make_spec

    spec = canonical(make_spec({"model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 0}))
    bench = Workbench(torch.device("cpu"), None)
    bench.texts(spec)
    assert set(bench.take_timings()) == {"data_s", "load_s"}
