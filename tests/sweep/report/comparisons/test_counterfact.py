"""CounterFact answers are compared record by record, with known answers on made-up samples."""

from __future__ import annotations

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.report.build import Options, build_report
from sweep.report.comparisons.counterfact import (
    SLUG,
    counterfact_comparisons,
)
from sweep.report.study import load_study
from sweep.report.table import MAX_ROWS

PROBE = {"probes": ("counterfact",), "model": "pythia-70m", "num_documents": 2, "accuracy": None}


def samples(named: int, records: int = 30) -> list[dict]:
    """Return records of which the first `named` are answered with the true target, by every one of two answers."""
    return [
        {
            "prompt": f"Place {i} lies in",
            "target_true": "Italy",
            "target_new": "Peru",
            "answers": [" Italy, I", " italy"] if i < named else [" the sea", " 3"],
            "neighborhood_answers": [" Peru"],
        }
        for i in range(records)
    ]


@pytest.fixture
def study(fake):
    fake.add("probe", "baseline", method="pretrained", extra={"samples.json": samples(0)}, **PROBE)
    fake.add("probe", "memory", layer=2, extra={"samples.json": samples(20)}, **PROBE)
    fake.add("probe", "memory", layer=3, extra={"samples.json": samples(0)}, **PROBE)
    fake.write_plans()
    return load_study(SweepStorage(str(fake.root)))


def test_a_clear_rise_is_told_and_equal_answers_are_no_difference(study):
    found = {(c.trial.get("layer"), c.score): c for c in counterfact_comparisons(study)}
    rise = found[2, "true_rate"]
    assert rise.verdict == "higher" and rise.records == 30 and rise.reference == 0
    assert rise.value == pytest.approx(2 / 3) and rise.interval[0] > 0.4 and rise.interval[1] < 0.9
    for key in ((3, "true_rate"), (2, "neighborhood_new_rate"), (2, "new_rate")):
        assert found[key].verdict == "no difference found" and found[key].p == 1
    assert not any(score.startswith("paraphrase") for _, score in found), "no such answers were kept"


def numbered(named: int, page: bool = False, records: int = 30) -> list[dict]:
    """Number the records, which all have one prompt, and say that every third has a page."""
    found = []
    for i, sample in enumerate(samples(named, records)):
        sample |= {"case_id": 100 + i, "prompt": "It lies in"}
        found.append(sample | ({"page": None if i % 3 else f"Place {i}"} if page else {}))
    return found


def compared(fake, base: list[dict], own: list[dict]):
    fake.add("probe", "baseline", method="pretrained", extra={"samples.json": base}, **PROBE)
    fake.add("probe", "memory", layer=2, extra={"samples.json": own}, **PROBE)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    return {(c.group, c.score): c for c in counterfact_comparisons(study, 200)}


def test_one_of_many_trials_can_be_told_from_the_pretrained_model(fake):
    """Of 2,000 draws the smallest p is too large for hundreds of comparisons."""
    fake.add("probe", "baseline", method="pretrained", extra={"samples.json": samples(0)}, **PROBE)
    for k in range(1, 41):
        own = samples(20 if k == 7 else 0)
        fake.add("probe", "memory", layer=1, lr=k / 1000, extra={"samples.json": own}, **PROBE)
    fake.write_plans()
    found = counterfact_comparisons(load_study(SweepStorage(str(fake.root))), resamples=200)
    assert len(found) >= 100
    assert {c.trial.get("lr") for c in found if c.verdict == "higher"} == {0.007}


def test_records_with_one_prompt_are_compared_case_by_case(fake):
    found = compared(fake, numbered(0), list(reversed(numbered(12))))
    assert found["all", "true_rate"].records == 30 and found["all", "true_rate"].value == pytest.approx(0.4)


def test_files_without_numbers_are_compared_with_those_that_have_them(fake):
    old = [{name: v for name, v in sample.items() if name != "case_id"} for sample in numbered(0)]
    found = compared(fake, old, numbered(12))
    assert found["all", "true_rate"].records == 30 and found["all", "true_rate"].value == pytest.approx(0.4)


def test_records_with_a_page_and_others_are_compared_apart(fake):
    found = compared(fake, numbered(0, page=True), numbered(15, page=True))
    rates = {group: (c.records, c.value) for (group, score), c in found.items() if score == "true_rate"}
    assert rates == {"all": (30, 0.5), "with_page": (10, 0.5), "without_page": (20, 0.5)}
    named = compared(fake, numbered(0), [s | {"page": "P" if i < 10 else None} for i, s in enumerate(numbered(10))])
    assert {g: c.value for (g, score), c in named.items() if score == "true_rate"} == {
        "all": pytest.approx(1 / 3), "with_page": 1.0, "without_page": 0.0,
    }  # fmt: skip


def test_the_report_prints_them(study):
    report = build_report(study, Options(resamples=2000))
    tables = [table for section in report.sections for table in section.tables]
    (table,) = [t for t in tables if t.slug == "counterfact_against_pretrained"]
    assert ("higher", True) in {(cells[-1].text, cells[-1].best) for _, cells in table.rows}


def test_many_comparisons_are_printed_in_part_and_written_whole(fake):
    fake.add("probe", "baseline", method="pretrained", extra={"samples.json": samples(0)}, **PROBE)
    for seed in range(16):
        fake.add(
            "probe",
            "memory",
            layer=2,
            mem_seed=seed,
            allocation="random",
            alpha=1.0,
            extra={"samples.json": samples(20 if seed == 7 else 0)},
            **PROBE,
        )
    fake.write_plans()
    report = build_report(load_study(SweepStorage(str(fake.root))), Options(resamples=10_000))
    (table,) = [t for s in report.sections for t in s.tables if t.slug == SLUG]
    rows = report.data[SLUG]
    assert len(rows) == 16 * 5 and len(table.rows) == MAX_ROWS
    assert f"{MAX_ROWS} of 80 rows are printed" in table.legend[-1]
    assert table.rows[0][1][-1].text == "higher", "those that differ come first"
    assert sum(row["result"] != "no difference found" for row in rows) == sum(
        cells[-1].text != "no difference found" for _, cells in table.rows
    )


@pytest.mark.parametrize(
    "broken", [{"counterfact": []}, [1, "x"], [{"prompt": "P"}], [{**samples(0, 1)[0], "answers": None}], "text", None]
)
def test_samples_in_another_form_are_left_out(fake, broken):
    fake.add("probe", "baseline", method="pretrained", extra={"samples.json": samples(0)}, **PROBE)
    fake.add("probe", "memory", layer=2, extra={"samples.json": broken}, **PROBE)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)))
    assert counterfact_comparisons(study) == []
    assert SLUG not in build_report(study).data
