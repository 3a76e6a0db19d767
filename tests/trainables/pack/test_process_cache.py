"""What a worker process keeps: its timings."""

from __future__ import annotations

import time

import pytest
import torch

from trainables.pack.process_cache import Workbench


def test_a_second_is_counted_for_one_part_only():
    bench = Workbench(torch.device("cpu"), None)
    start = time.perf_counter()
    with bench.timing("outer_s"):
        time.sleep(0.02)
        with bench.timing("inner_s"):
            time.sleep(0.05)
            with bench.timing("innermost_s"):
                time.sleep(0.02)
        with bench.timing("inner_s"):
            time.sleep(0.01)
    whole = time.perf_counter() - start
    found = bench.take_timings()
    assert sum(found.values()) == pytest.approx(whole, abs=0.01)
    assert found["inner_s"] >= 0.06 and found["innermost_s"] >= 0.02 and found["outer_s"] >= 0.02
    with bench.timing("later_s"):
        time.sleep(0.01)
    assert bench.take_timings()["later_s"] >= 0.01


def test_loading_the_tokenizer_is_not_counted_as_reading_data(tiny_models, sample_data):
    from trainables.trial.spec import canonical, make_spec

    spec = canonical(make_spec({"model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 0}))
    bench = Workbench(torch.device("cpu"), None)
    start = time.perf_counter()
    bench.texts(spec)
    whole = time.perf_counter() - start
    found = bench.take_timings()
    assert set(found) == {"data_s", "load_s"} and sum(found.values()) <= whole


def test_a_hub_model_is_taken_at_the_commit_that_the_sweep_began_with():
    from trainables.trial.spec import make_spec

    spec = make_spec({"model": "pythia-70m", "layer": 0})
    bench = Workbench(torch.device("cpu"), None, {"EleutherAI/pythia-70m@main": "c0ffee"})
    card = bench.card(spec)
    assert card.commit == "c0ffee" and card.key == "EleutherAI/pythia-70m@main", "the id does not depend on it"
    assert bench.card(make_spec({"model": "pythia-160m", "layer": 0})).commit == ""
