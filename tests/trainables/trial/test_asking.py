"""Trainings and askings as values: what shares a training, what is the same question, and how it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trainables.adapters.registry import ADAPTERS
from trainables.errors import ConfigError
from trainables.lm.card import model_card
from trainables.probes.registry import PROBES
from trainables.trial.asking import Asking, added_asking, check_probes, own_askings, parse_probe
from trainables.trial.canonical import canonical
from trainables.trial.fields import Part, Role
from trainables.trial.identity import identity, training_id, trial_id
from trainables.trial.making import make_spec
from trainables.trial.spec import FIELDS

USUAL: dict[str, Any] = {"model": "pythia-70m", "data": "sample", "layer": 1, "memory_dim": 32}


def stated(**values: Any) -> dict[str, Any]:
    spec = make_spec({**USUAL, **values})
    return identity(canonical(spec))


OWN = Part.MEMORY | Part.ENTRY_SETS
"""Parts of a trial that some methods have and others have not."""


@pytest.mark.parametrize(
    "asked",
    [
        {"num_shots": 5},
        {"claims_per_page": 2},
        {"notes_labels": True},
        {"eval_epochs": (1, 5)},
        {"probes": ("fever", "counterfact"), "counterfact_records": 7, "temperature": 0.5},
        {"probes": ()},
    ],
    ids=str,
)
def test_trials_that_only_ask_differently_share_a_training(asked: dict[str, Any]) -> None:
    assert trial_id(stated(**asked)) != trial_id(stated())
    assert training_id(stated(**asked)) == training_id(stated()) == trial_id(stated())


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.role is Role.TRAINING])
def test_what_is_trained_decides_the_training(name: str, other_values: Callable[..., dict[str, Any]]) -> None:
    base = {"content": "document+template", "allocation": "simset2", "alpha": 1.0, "num_shots": 3}
    users = [method for method in ADAPTERS if name in ADAPTERS[method].uses() and FIELDS[name].parts & OWN]
    base |= {"method": "memory" if "memory" in users or not users else users[0]}
    if name == "grouping":
        base["num_clusters"] = 2  # fewer groups than documents
    changed = {**USUAL, **base, name: other_values(name)[name]}
    if name == "depth":
        del changed["layer"]
    assert training_id(identity(canonical(make_spec(changed)))) != training_id(stated(**base))


def test_examples_are_part_of_a_training_where_prompts_are_trained_on() -> None:
    one, other = (stated(content="template", num_shots=shots) for shots in (1, 5))
    assert training_id(one) != training_id(other)


def test_counterfact_records_are_no_part_of_the_data_of_a_training() -> None:
    both = {**stated(), "data": "fever@1,counterfact@2"}
    assert training_id(both) == training_id({**stated(), "data": "fever@1"})
    subjects = {**both, "page_order": "subjects"}
    assert training_id(subjects) != training_id({**subjects, "data": "fever@1,counterfact@3"})


def test_the_commit_of_a_hub_model_is_part_of_what_is_trained_and_asked() -> None:
    began, moved = (model_card("pythia-70m", "main", letter * 40) for letter in "ab")
    spec = make_spec(USUAL)
    one, other = (identity(canonical(spec, card), card, "sample@v1") for card in (began, moved))
    assert one["revision"] == "a" * 40 and one["model"].endswith("@" + "a" * 40)
    assert trial_id(one) != trial_id(other) and training_id(one) != training_id(other)


def test_ones_own_questions_are_data_of_what_trains_on_them_or_asks_them_and_of_nothing_else() -> None:
    keys = ("fever@1,questions@2", "fever@1,questions@3")
    for content, same in (("document", True), ("template", False)):
        one, other = (training_id({**stated(content=content), "data": key}) for key in keys)
        assert (one == other) == same
    for probe, same in (("fever", True), ("choices", False)):
        one, other = (added_asking(probe, stated(), key).id for key in keys)
        assert (one == other) == same


def test_the_same_question_has_one_id_whoever_asks_it() -> None:
    (own,) = own_askings(stated(num_shots=5))
    added = added_asking("fever:num_shots=5", stated(), stated()["data"])
    assert (own.label, added.label) == ("fever", "fever:num_shots=5") and own.id == added.id
    assert added_asking("fever:num_shots=5,seed=0", stated(), stated()["data"]).id == own.id
    (other,) = own_askings(stated(num_shots=5, lr=0.5, alpha=1.0, allocation="simset1"))
    assert other.id == own.id


@pytest.mark.parametrize("change", [{"version": 99}, {"data": "sample@v0"}, {"settings": {"num_shots": 2}}])
def test_another_version_data_or_setting_is_another_question(change: dict[str, Any]) -> None:
    (own,) = own_askings(stated())
    changed = {**change, "settings": {**own.settings, **change.get("settings", {})}}
    assert replace(own, **changed).id != own.id


def test_ids_of_askings_stay_what_they_are() -> None:
    settings = {"num_shots": 1, "seed": 0, "notes_labels": False, "claims_per_page": None}
    usual = Asking("fever", 2, "fever", settings, "sample@v1")
    assert usual.id == "98d40038a74b6e45"
    assert replace(usual, settings={}).id == usual.id, "a setting at its default is left out"
    assert replace(usual, epochs=(1,), label="other").id == usual.id, "neither when nor under which name it is asked"


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_comes_back_from_its_plain_form(name: str) -> None:
    spec = canonical(make_spec({**USUAL, "probes": (name,), "eval_epochs": (1,)}))
    (asking,) = own_askings(identity(spec))
    assert Asking.from_dict(asking.to_dict()) == asking
    assert asking.plan(spec) == PROBES[name].from_fields(vars(spec))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fevr", "did you mean 'fever'"),
        ("fever:num_shot=5", "no setting 'num_shot'"),
        ("fever:num_shots", "is no setting"),
        ("lm_eval:piqa,arc_easy", "lm_eval_tasks is stated twice"),
        ("fever:num_shots=9", "must be at most 5"),
        ("fever:num_shots=1,num_shots=2", "stated twice"),
        ("fever:data=elsewhere", "no setting 'data'"),
        ("", "must be one of"),
    ],
)
def test_a_probe_that_cannot_be_asked_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        check_probes([text])
    assert "\n" not in str(caught.value)


def test_probes_are_spelled_in_one_way_and_once() -> None:
    texts = ["fever: seed=1, num_shots=05", "fever:num_shots=5,seed=1", "counterfact", "fever:claims_per_page=none"]
    assert check_probes(texts) == ("fever:num_shots=5,seed=1", "counterfact", "fever:claims_per_page=none")
    assert parse_probe("fever:claims_per_page=none") == ("fever", {"claims_per_page": None})
    tasks = {"lm_eval_tasks": ["arc_easy", "piqa"], "lm_eval_limit": 3}
    assert parse_probe("lm_eval:arc_easy+piqa,lm_eval_limit=3") == ("lm_eval", tasks), "its tasks may stand alone"
