"""What a worker process keeps: its timings."""

from __future__ import annotations

import gc
import weakref

import torch

from trainables.adapters.adapter import PackTexts
from trainables.adapters.registry import adapter_plan
from trainables.data.counterfact import facts_to_train, load_counterfact
from trainables.lm.texts import NO_DOCUMENT
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec


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

    began = model_card("pythia-70m", "main", "c" * 40)
    spec = canonical(make_spec({"model": "pythia-70m", "layer": 0}), began)
    card = ProcessCache(torch.device("cpu"), None).card(spec)
    assert (card.key, card.commit) == (began.key, "c" * 40) and began.key == f"EleutherAI/pythia-70m@{'c' * 40}"


def test_prompts_about_other_subjects_are_texts_of_no_document_with_their_answers(tiny_models):
    stated = {"model": str(tiny_models["llama"]), "data": "sample", "layer": 0, "num_documents": 8}
    stated |= {"page_order": "subjects", "template_facts": 5, "template_loss": "answer", "probes": ("counterfact",)}
    cache = ProcessCache(torch.device("cpu"), None)

    def texts(**more):
        spec = canonical(make_spec(stated | more))
        return cache.texts(spec), cache.tokenizer(spec)

    without, _ = texts(content="template", template_facts=0)
    found, tokenizer = texts(content="template")
    facts = found.train[len(without.train) :]
    assert len(facts) == 5 and all(text.document == NO_DOCUMENT for text in facts)
    chosen = facts_to_train(load_counterfact("sample"), [document.title for document in found.documents], 5)
    for text, record in zip(facts, chosen, strict=True):
        assert tokenizer.decode(text.tree.tokens) == f"{record.question} {record.target_true}"
        assert tokenizer.decode(text.tree.tokens[text.first_target :]).strip() == record.target_true
    whole, _ = texts(content="template", template_loss="full")
    assert [text.first_target for text in whole.train[-5:]] == [1] * 5
    pages, _ = texts(content="document")
    assert len(pages.train) == len(pages.segments), "only pages are trained on"
    asked = next(iter(pages.asked.values()))
    assert asked.counts == next(iter(found.asked.values())).counts
    both = {record.subject for record in chosen} & {record.subject for record in asked._records}
    assert not both, "nothing is asked about their subjects, whatever is trained on"


def build_in(cache, spec):
    texts, plan = cache.texts(spec), adapter_plan(vars(spec))
    shared = PackTexts(texts.train, texts.segments, len(texts.documents))
    return plan.load()([plan], cache.parts(spec), shared)


def test_a_model_is_freed_before_another_is_loaded(small_trial, tiny_models):
    cache = ProcessCache(torch.device("cpu"), 10**9)
    one, other = (small_trial(layer=1, model=str(tiny_models[name])) for name in ("llama", "gpt_neox"))
    adapter = build_in(cache, one)
    cache.parts(one).whole_model()
    held = [weakref.ref(part) for part in (adapter.upper, cache.parts(one).whole_model(), adapter.states)]
    assert cache.parts(one).upper(1) is adapter.upper, "of one model all are kept"
    del adapter
    cache.parts(other).hidden_states()
    gc.collect()
    assert [part() for part in held] == [None] * 3
    again = build_in(cache, other)
    assert again.nll_before > 0 and cache.parts(other).upper(1) is again.upper
