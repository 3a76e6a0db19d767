"""Which trials are compared with each other, field by field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.report.answers import read_answers
from sweep.report.build import Options, build_report
from sweep.report.naming import label_texts, labels_of
from sweep.report.references import References, mixed_code, mixed_versions
from sweep.report.study import Trial, load_study
from sweep.report.tables.of_all_trials import code_table
from trainables.lm.card import model_card
from trainables.trial.canonical import unused_fields
from trainables.trial.identity import STATED_FIELDS, identity, trial_id
from trainables.trial.making import make_spec

ASKED_OF = {"model", "revision", "dtype"}
CLAIMS = {
    "data", "detokenize", "num_documents", "page_order", "seed", "num_shots", "notes_labels", "claims_per_page",
}  # fmt: skip
ENTRY_SETS = {"num_clusters", "grouping", "mode", "allocation", "granularity", "entries_per_group", "mem_seed", "alpha"}
NOT_TOLD = {"revision", "seed", "mem_seed", "probes"}


@pytest.fixture
def trial(other_values: Callable[..., dict[str, Any]]) -> Callable[..., Trial]:
    """Make the record of a trial in which every field matters, with another value of the field named."""

    def make(name: str | None = None, **values: Any) -> Trial:
        spec = make_spec({**other_values(name), **values})
        card = model_card(spec.model, spec.revision)
        point = identity(spec, card, f"{spec.data}@1")
        unused, parts = unused_fields(point), ({}, {}, {}, card.num_blocks, "")
        return Trial(trial_id(point), "s", "", "done", card.name, point, spec.data, *parts, unused)

    return make


@pytest.mark.parametrize("name", sorted(set(STATED_FIELDS) - {"method", "allow_missing_pages"}))  # the hub's data only
def test_the_baseline_is_the_same_model_asked_the_same_claims_in_the_same_way(trial, name) -> None:
    baseline = trial(method="pretrained")
    found = References([baseline]).baseline(trial(name))
    assert (found is None) == (name in ASKED_OF | CLAIMS)


def test_a_baseline_that_is_not_asked_claims_is_none(trial) -> None:
    baseline = trial(method="pretrained", probes=("counterfact",))
    assert References([baseline]).baseline(trial()) is None


@pytest.mark.parametrize("name", sorted(set(STATED_FIELDS) - {"method"}))
def test_the_plain_memory_differs_in_its_structure_only(trial, name) -> None:
    plain = trial(allocation="none")
    found = References([plain]).plain(trial(name))
    assert (found is plain) == (name in ENTRY_SETS)


@pytest.mark.parametrize("name", sorted(STATED_FIELDS))
def test_labels_tell_trials_apart_whatever_they_differ_in(trial, name) -> None:
    """Seeds are averaged over; a model's revision and the probes are not part of what a row is about."""
    two = [trial(), trial(name)]
    one, other = (label_texts(each, labels_of(two)) for each in two)
    assert (one == other) == (name in NOT_TOLD)


def test_a_comparison_that_mixes_versions_of_a_probe_says_so_and_the_same_version_is_preferred(fake):
    fake.add("s", "all", method="pretrained", num_documents=8, probe_versions={"fever": 2})
    fake.add("s", "all", method="pretrained", num_documents=4)
    new = fake.add("s", "all", layer=1, num_documents=4, probe_versions={"fever": 2})
    old = fake.add("s", "all", layer=2, num_documents=4)
    trials = {trial.id: trial for trial in load_study(SweepStorage(str(fake.root))).trials}
    references = References(trials.values(), read_answers(SweepStorage(str(fake.root)), trials.values()))
    pairs = [(trials[i], references.baseline(trials[i])) for i in (new, old)]
    assert [other.get("num_documents") for _, other in pairs] == [8, 4]
    assert mixed_versions(pairs, "fever") == ()
    (line,) = mixed_versions([(trials[new], trials[old]), *pairs], "fever")
    assert line.startswith("1 of 3 comparisons mix versions of the probe fever (2 with 1)")


def test_comparisons_and_reports_that_mix_versions_of_the_code_say_so(fake):
    old, new = {"memory-sweep": "0.1.0", "commit": "abc"}, {"memory-sweep": "0.1.0", "commit": "def"}
    fake.add("s", "all", method="pretrained", num_documents=8, versions=old)
    fake.add("s", "all", layer=1, num_documents=8, versions=new)
    fake.add("s", "all", layer=2, num_documents=8, versions=old)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    report = build_report(study, Options(resamples=100))
    tables = {table.slug: table for section in report.sections for table in section.tables}
    assert {labels[0]: cells[0].value for labels, cells in tables["versions"].rows} == {"0.1.0+abc": 2, "0.1.0+def": 1}
    assert (
        "1 of 2 comparisons are between trials of different versions of the code."
        in tables["against_pretrained"].legend
    )
    alike = [trial for trial in study.trials if trial.code == "0.1.0+abc"]
    assert mixed_code([(alike[0], alike[1])]) == () and code_table(alike) is None
