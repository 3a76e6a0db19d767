"""What a worker process keeps: its timings."""

from __future__ import annotations

import torch

from trainables.pack.process_cache import ProcessCache


def test_a_second_is_counted_for_one_part_only(monkeypatch):
    now = 0.0
    monkeypatch.setattr("trainables.pack.process_cache.time.perf_counter", lambda: now)
    cache = ProcessCache(torch.device("cpu"), None)
    with cache.timing("outer_s"):
        now += 2
        with cache.timing("inner_s"):
            now += 5
            with cache.timing("innermost_s"):
                now += 3
        now += 1
        with cache.timing("inner_s"):
            now += 10
    assert cache.take_timings() == {"outer_s": 3, "inner_s": 15, "innermost_s": 3}
    with cache.timing("later_s"):
        now += 7
    assert cache.take_timings() == {"later_s": 7}


def test_loading_the_tokenizer_is_not_counted_as_reading_data(tiny_models, sample_data):
    from trainables.trial.spec import canonical, make_spec

    spec = canonical(make_spec({"model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 0}))
    cache = ProcessCache(torch.device("cpu"), None)
    cache.texts(spec)
    assert set(cache.take_timings()) == {"data_s", "load_s"}


def test_another_setting_of_a_probe_makes_it_anew(small_trial, process_cache):
    one, other = (small_trial(layer=1, probes=("recital",), segment_tokens=tokens) for tokens in (48, 6))
    texts = process_cache.texts(one)
    assert process_cache.texts(small_trial(layer=2, probes=("recital",), lr=0.5)) is texts
    assert process_cache.texts(other).probes["recital"].plan.segment_tokens == 6
    for name, value in {"num_shots": 2, "claims_per_page": 1, "seed": 4}.items():
        (plan,) = (probe.plan for probe in process_cache.texts(small_trial(layer=1, **{name: value})).probes.values())
        assert getattr(plan, name) == value


def test_a_hub_model_is_taken_at_the_commit_that_the_sweep_began_with():
    from trainables.lm.card import model_card
    from trainables.trial.spec import canonical, make_spec

    began = model_card("pythia-70m", "main", "c" * 40)
    spec = canonical(make_spec({"model": "pythia-70m", "layer": 0}), began)
    card = ProcessCache(torch.device("cpu"), None).card(spec)
    assert (card.key, card.commit) == (began.key, "c" * 40) and began.key == f"EleutherAI/pythia-70m@{'c' * 40}"
