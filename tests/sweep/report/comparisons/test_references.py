"""Which trials are compared with each other, field by field."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.report.comparisons.references import References
from sweep.report.naming import label_texts, labels_of
from sweep.report.study import Trial
from trainables.lm.card import model_card
from trainables.trial.spec import STATED_FIELDS, identity, make_spec, trial_id, unused_fields

BASE: dict[str, Any] = {
    "model": "llama2-7b", "data": "hub", "content": "document+template", "num_documents": 50, "num_clusters": 20,
    "layer": 23, "memory_dim": 1024, "allocation": "simset2", "entries_per_group": 7, "alpha": 0.4,
    "eval_epochs": (5, 10), "probes": ("fever", "counterfact"),
}  # fmt: skip
OTHER: dict[str, Any] = {
    "model": "llama2-13b", "revision": "v2", "dtype": "bfloat16", "data": "sample", "detokenize": True,
    "method": "full_update", "content": "template", "template_loss": "answer", "num_documents": 40,
    "page_order": "subjects", "num_clusters": 3, "segment_tokens": 50, "max_segments": 1, "layer": 3,
    "memory_dim": 4096, "norm_and_gate": False, "mode": "hard", "allocation": "random", "granularity": "token",
    "entries_per_group": 4, "mem_seed": 1, "alpha": 0.5, "epochs": 12, "batch_size": 64, "lr": 0.02,
    "weight_decay": 0.5, "warmup_steps": 0, "grad_clip": 1.0, "seed": 1, "num_shots": 4, "notes_labels": True,
    "claims_per_page": 1, "eval_epochs": (1,), "probes": ("fever",), "counterfact_records": 2, "num_answers": 1,
    "answer_tokens": 1, "temperature": 0.5,
}  # fmt: skip
ASKED_OF = {"model", "revision", "dtype"}
CLAIMS = {
    "data", "detokenize", "num_documents", "page_order", "seed", "num_shots", "notes_labels", "claims_per_page",
}  # fmt: skip
ENTRY_SETS = {"num_clusters", "mode", "allocation", "granularity", "entries_per_group", "mem_seed", "alpha"}
NOT_TOLD = {"revision", "seed", "mem_seed", "probes"}


def trial(**values: Any) -> Trial:
    spec = make_spec({**BASE, **values})
    card = model_card(spec.model, spec.revision)
    point = identity(spec, card, f"{spec.data}@1")
    return Trial(
        trial_id(point),
        "s",
        "",
        "done",
        card.name,
        point,
        spec.data,
        {},
        {},
        {},
        card.num_blocks,
        "",
        unused_fields(point),
    )


def test_every_stated_field_has_another_value() -> None:
    assert set(OTHER) == set(STATED_FIELDS)


@pytest.mark.parametrize("name", sorted(set(STATED_FIELDS) - {"method"}))
def test_the_baseline_is_the_same_model_asked_the_same_claims_in_the_same_way(name: str) -> None:
    baseline = trial(method="pretrained")
    found = References([baseline]).baseline(trial(**{name: OTHER[name]}))
    assert (found is None) == (name in ASKED_OF | CLAIMS)


def test_a_baseline_that_is_not_asked_claims_is_none() -> None:
    baseline = trial(method="pretrained", probes=("counterfact",))
    assert References([baseline]).baseline(trial()) is None


@pytest.mark.parametrize("name", sorted(set(STATED_FIELDS) - {"method"}))
def test_the_plain_memory_differs_in_its_structure_only(name: str) -> None:
    plain = trial(allocation="none")
    found = References([plain]).plain(trial(**{name: OTHER[name]}))
    assert (found is plain) == (name in ENTRY_SETS)


@pytest.mark.parametrize("name", sorted(STATED_FIELDS))
def test_labels_tell_trials_apart_whatever_they_differ_in(name: str) -> None:
    """Seeds are averaged over; a model's revision and the probes are not part of what a row is about."""
    two = [trial(), trial(**{name: OTHER[name]})]
    one, other = (label_texts(each, labels_of(two)) for each in two)
    assert (one == other) == (name in NOT_TOLD)
