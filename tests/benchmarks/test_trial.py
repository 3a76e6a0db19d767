"""The benchmark compares like with like: the whole model with a hook gives the split model's losses and answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.common import NotTheSame
from benchmarks.plain import run_plain
from benchmarks.trial import check_same, compare, run_ours
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.thorough(only=("gpt_neox",))
def test_split_and_whole_model_agree_in_every_loss_and_answer(family, layer, tiny_models, sample_data):
    table = compare(
        {
            "model": str(tiny_models[family]),
            "data": str(sample_data),
            "layer": layer,
            "num_documents": 3,
            "epochs": 2,
            "memory_dim": 16,
            "segment_tokens": 48,
            "lr": 1e-2,
        },
        repeats=1,
    )
    assert table["claims"] > 10 and set(table["seconds"]) == {"ours", "plain", "plain-nograd"}
    assert all(found["min"] > 0 for ratios in table["ratios"].values() for found in ratios.values())


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("allocation, granularity", [("partitioned", "dim"), ("simset2", "token")])
@pytest.mark.thorough(only=("gpt_neox",))
def test_the_inductive_loss_is_the_same_too(family, allocation, granularity, tiny_models, sample_data):
    spec = canonical(
        make_spec(
            {
                "model": str(tiny_models[family]),
                "data": str(sample_data),
                "layer": 2,
                "num_documents": 3,
                "epochs": 3,
                "memory_dim": 16,
                "segment_tokens": 48,
                "lr": 1e-2,
                "alpha": 2.0,
                "allocation": allocation,
                "granularity": granularity,
                "claims_per_page": 3,
            }
        )
    )
    cache = ProcessCache(torch.device("cpu"), None)
    ours = run_ours(spec, cache)
    plain = run_plain(cache.card(spec), spec, cache.texts(spec), cache.tokenizer(spec))
    check_same(ours, plain, "plain")
    assert len(plain.leakage) == 3 and plain.leakage[-1] < plain.leakage[0] - 0.01
    without = run_plain(cache.card(spec), replace(spec, alpha=0.1), cache.texts(spec), cache.tokenizer(spec))
    with pytest.raises(NotTheSame, match="curves differ"):
        check_same(ours, without, "another alpha")


def test_no_ratio_is_given_for_programs_that_differ():
    from benchmarks.plain import TrialTimes

    one = TrialTimes(0, 1, 1, 1, [3.0, 2.0], 1.9, ["a", None])
    check_same(one, one, "itself")
    with pytest.raises(NotTheSame, match="loss curves"):
        check_same(one, replace(one, curve=[3.0, 2.001]), "rival")
    with pytest.raises(NotTheSame, match="memorisation errors"):
        check_same(one, replace(one, nll=1.901), "rival")
    with pytest.raises(NotTheSame, match="1 of 2 answers"):
        check_same(one, replace(one, letters=["a", "b"]), "rival")
