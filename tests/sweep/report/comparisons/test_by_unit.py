"""Answers to any probe are compared with the pretrained model's, question by question, pages drawn whole."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.report.build import Options, build_report
from sweep.report.comparisons import by_unit
from sweep.report.comparisons.by_unit import unit_comparisons
from sweep.report.probe_rows import ASKED
from sweep.report.render import markdown_text
from sweep.report.study import load_study
from trainables.probes.forgetting.plan import ForgettingPlan
from trainables.probes.probe import answers_bytes
from trainables.probes.recall.plan import RecallPlan

RECALL = next(probe for probe in ASKED if probe.name == "recall")
USUAL = {"probes": ("recall",), "model": "pythia-70m", "num_documents": 2, "accuracy": None}


def recalled(right: int, pages: int = 30) -> bytes:
    """The first `right` pages are written word by word, of the others nothing."""
    rows = [
        {
            "page": f"Page_{i}", "prompt": "Page\nIt is", "expected": f" the {i}th <page> of\nall.",
            "written": f" the {i}th <page> of\nall." if i < right else "", "tokens": 8, "tokens_right": 8 * (i < right),
            "rouge_l": float(i < right), "words": 5, "words_right": 5 * (i < right),
        }
        for i in range(pages)
    ]  # fmt: skip
    plan = RecallPlan(recall_documents=pages, recall_title=True, recall_words=2, recall_tokens=8)
    return answers_bytes(plan, rows)


def add(fake, right: int, pages: int = 30, **fields) -> str:
    share = {"recall/rouge_l": right / pages, "recall/token_accuracy": right / pages}
    return fake.add("s", "x", extra={"recall.parquet": recalled(right, pages)}, metrics=share, **USUAL, **fields)


@pytest.fixture
def study(fake):
    add(fake, 2, method="pretrained")
    add(fake, 22, layer=2)
    add(fake, 2, layer=3)
    fake.write_plans()
    return load_study(SweepStorage(str(fake.root)))


def test_before_and_after_are_paired(study):
    found = {(c.trial.get("layer"), c.score): c for c in unit_comparisons(study, RECALL)}
    assert set(found) == {(k, s) for k in (2, 3) for s in ("token_accuracy", "rouge_l", "verbatim")}
    rise = found[2, "verbatim"]
    assert rise.verdict == "better" and (rise.units, rise.groups) == (30, 30)
    assert (rise.before, rise.after) == pytest.approx((2 / 30, 22 / 30)) and 0.4 < rise.interval[0] < 2 / 3
    assert found[3, "verbatim"].verdict == "no difference found" and found[3, "verbatim"].p == 1


def test_one_of_many_trials_can_be_told_from_the_pretrained_model(fake):
    """Of 2,000 draws the smallest p is too large for 120 comparisons."""
    add(fake, 2, method="pretrained")
    for k in range(1, 41):
        add(fake, 22 if k == 7 else 2, layer=1, lr=k / 1000)
    fake.write_plans()
    found = unit_comparisons(load_study(SweepStorage(str(fake.root))), RECALL, resamples=200)
    assert len(found) == 120
    assert {c.trial.get("lr") for c in found if c.verdict == "better"} == {0.007}


def test_only_questions_that_both_were_asked_are_compared(fake):
    add(fake, 2, pages=10, method="pretrained")
    add(fake, 22, layer=2, recall_documents=40)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    assert unit_comparisons(study, RECALL) == [], "other settings ask something else"
    add(fake, 22, layer=2)
    fake.write_plans()
    found = unit_comparisons(load_study(SweepStorage(str(fake.root))), RECALL)
    assert {c.units for c in found} == {10} and {c.after for c in found} == {1.0}


def test_the_report_has_table_comparison_and_examples(study):
    report = build_report(study, Options(resamples=200))
    text = markdown_text(report, embed=False)
    (section,) = [s for s in report.sections if s.heading == RECALL.heading]
    assert [table.slug for table in section.tables] == ["recall", "recall_against_pretrained"]
    assert len(section.tables[0].rows) == 3 and len(report.data["recall_against_pretrained"]) == 6
    assert "## Examples of recall" in text and "truth:   the 0th <page> of all." in text
    assert "written: the 0th <page> of all." in text and "8 of 8 tokens, 5 of 5 words in a row" in text


def test_missing_answers_are_named_and_compare_nothing(fake):
    add(fake, 2, method="pretrained")
    lost = add(fake, 22, layer=2)
    fake.write_plans()
    next(path for path in fake.root.rglob("recall.parquet") if lost in str(path)).write_bytes(b"PAR1")
    study = load_study(SweepStorage(str(fake.root)))
    report = build_report(study, Options(resamples=200))
    assert any(
        lost in line and "is missing or broken: in no comparison of answers to recall" in line
        for line in report.warnings
    )
    assert "recall_against_pretrained" not in report.data


def test_what_memorising_costs_is_told_apart_by_kind(fake):
    def asked(nll: float, right: int) -> bytes:
        empty = dict.fromkeys(ForgettingPlan.answers)
        rows = [
            {**empty, "kind": kind, "page": f"P{i}", "text": "t", "tokens": 5, "nll": nll + i}
            for kind in ("held out", "general")
            for i in range(8)
        ]
        rows[0]["nll"] = None
        rows += [
            {**empty, "kind": "claim", "page": f"P{i}", "text": "c", "claim_id": str(i), "label": "SUPPORTS",
             "answer": " (a)", "parsed": "a", "correct": i < right}
            for i in range(8)
        ]  # fmt: skip
        return answers_bytes(ForgettingPlan, rows)  # type: ignore[arg-type]  # of a plan it reads what its class states

    usual = {"probes": ("forgetting",), "model": "pythia-70m", "num_documents": 2, "accuracy": None}
    for layer, nll, right in ((None, 1.0, 6), (2, 1.5, 1)):
        fields = {"method": "pretrained"} if layer is None else {"layer": layer}
        found = {"forgetting/nll": nll, "forgetting/accuracy": right / 8}
        fake.add("s", "x", extra={"forgetting.parquet": asked(nll, right)}, metrics=found, **usual, **fields)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    forgetting = next(probe for probe in ASKED if probe.name == "forgetting")
    costs = {c.score: c for c in unit_comparisons(study, forgetting)}
    assert {name: c.units for name, c in costs.items()} == {"nll": 7, "general_nll": 8, "accuracy": 8}
    assert costs["nll"].after - costs["nll"].before == pytest.approx(0.5) and costs["nll"].verdict == "worse"
    assert costs["accuracy"].after == 1 / 8 and "label: SUPPORTS, answered ' (a)': right" in markdown_text(
        build_report(study, Options(resamples=100)), embed=False
    )


def test_each_asking_is_compared_once_and_a_later_one_stands_in_for_what_was_not_asked(monkeypatch):
    calls = []

    def compare(study, probe, resamples):
        calls.append(probe.asking)
        return ["found"] if probe.asking == "forgetting:heldout_claims=1" else []

    monkeypatch.setattr(by_unit, "unit_comparisons", compare)
    asked = SimpleNamespace(status="done", answers={"forgetting:heldout_claims=1": "", "recall": ""})
    units = by_unit.UnitComparisons(SimpleNamespace(trials=[asked]))
    found = units.by_probe()
    assert found["forgetting"] == ["found"] and found["recall"] == []
    (forgetting,) = (probe for probe in ASKED if probe.name == "forgetting")
    assert units.of(forgetting.under("forgetting:heldout_claims=1")) == ["found"]
    assert units.of(forgetting.under("forgetting")) == [] and units.by_probe() == found
    assert len(calls) == len(set(calls)), "each once"
