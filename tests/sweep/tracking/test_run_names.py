"""Run names tell the trials of a sweep apart within the characters that MLflow shows."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product

import pytest

from sweep.tracking.run_names import WIDTH, Naming
from trainables.trial.making import make_spec

MODELS = {"sample": ("sample-neox", "sample-llama"), "inductive": ("pythia-6.9b", "llama2-7b")}
ALLOCATIONS = ("random", "partitioned", "simset1", "simset2", "simset3")
ALPHAS = (0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0)


def trial(model: str = "llama2-7b", **values) -> dict:
    return {**asdict(make_spec({"model": model, "memory_dim": 4096, **values})), "model": model}


def study(models: tuple[str, str], documents: tuple[int, ...], layers: tuple[int, ...]) -> list[dict]:
    """The trials of an inductive study: every layer at alpha 0, then alpha x allocation x documents at one of them."""
    plain = [trial(m, layer=at, alpha=0.0, num_documents=max(documents)) for m, at in product(models, layers)]
    rest = [
        trial(m, layer=layers[-2], alpha=a, allocation=s, num_documents=n)
        for m, a, s, n in product(models, ALPHAS, ALLOCATIONS, documents)
    ]
    return [*plain, *rest]


@pytest.mark.parametrize(
    "trials",
    [
        study(MODELS["sample"], (4, 12), (1, 3, 5, 7)),
        study(MODELS["inductive"], (2, 10, 50, 100, 1000), (2, 5, 9, 12, 15, 18, 21, 25, 28, 31)),
        [trial(layer=layer, num_documents=500) for layer in range(32)],
        [trial("m", method="pretrained", num_shots=shots) for shots in range(6)],
        [trial(layer=9, seed=seed) for seed in range(20)],
    ],
    ids=["sample", "inductive", "layers", "shots", "seeds"],
)
def test_the_first_characters_tell_trials_apart(trials: list[dict]) -> None:
    naming = Naming.of(trials)
    beginnings = {naming.of_values(values)[:WIDTH] for values in trials}
    assert len(beginnings) == len(trials), sorted(beginnings)


def test_what_varies_most_comes_first_and_what_does_not_vary_is_left_out() -> None:
    trials = [trial(alpha=a, allocation=s, layer=9) for a, s in product(ALPHAS, ("random", "simset1"))]
    assert Naming.of(trials).of_values(trials[-1]) == "a5 simset1"


def test_fields_that_pretrained_models_lack_are_not_taken_to_vary() -> None:
    trials = [trial(alpha=a, allocation="simset1", layer=9) for a in ALPHAS]
    assert Naming.of([*trials, trial(method="pretrained")]).of_values(trials[-1]) == "a5"
    assert Naming.of([*trials, trial(method="pretrained", num_documents=9)]).of_values(trials[-1]) == "a5 n10"
    gates = [trial(layer=9, norm_and_gate=gate) for gate in (True, False)]
    assert [Naming.of([*gates, trial(method="pretrained")]).of_values(each) for each in gates] == ["a0", "a0 no-norm"]


def test_models_are_named_by_what_they_do_not_share() -> None:
    trials = [trial(model, layer=9) for model in MODELS["sample"]]
    assert [Naming.of(trials).of_values(values) for values in trials] == ["neox", "llama"]


def test_kinds_of_trials_have_words() -> None:
    naming = Naming()
    assert naming.of_values(trial(layer=9, mode="hard", allocation="simset2", granularity="token")).startswith(
        "hard simset2-token"
    )
    assert naming.of_values(trial(method="pretrained", num_documents=9)) == "pretrained n9 llama2-7b"


def test_a_single_trial_has_a_full_name() -> None:
    assert (
        Naming.of([trial(alpha=0.2, layer=23, allocation="simset2", num_documents=1000)]).of_values(
            trial(alpha=0.2, layer=23, allocation="simset2", num_documents=1000)
        )
        == "a0.2 simset2 n1000 L23 llama2-7b"
    )
