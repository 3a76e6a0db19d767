"""Comparisons as plain values for MLflow."""

from __future__ import annotations

import csv
import io
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.records.record import Origin, begin_record, complete_record
from sweep.records.sweep_storage import SweepStorage
from sweep.report.findings import extras_of
from sweep.tracking.run_content import ChangedAnswer
from trainables.data.fever import group_by_page, read_rows
from trainables.data.sources import resolve_sources
from trainables.lm.card import model_card
from trainables.node.checksums import content_sum
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.making import make_spec

PAGES, CLAIMS = 12, 8


@pytest.fixture
def storage(tmp_path) -> SweepStorage:
    """Sweep `study`: a plain memory that is right nearly always, a structured one that is right half the time."""
    storage = SweepStorage(str(tmp_path / "out"))
    add(storage, "study", right=7, method="memory", layer=9)
    add(storage, "study", right=4, method="memory", layer=9, alpha=0.5, allocation="partitioned")
    return storage


def add(
    storage: SweepStorage, sweep: str, right: int, asked: list[dict] = (), samples: list[dict] = (), **fields
) -> str:
    """Record a trial that has `right` of each page's claims right; return its id.

    `asked` are rows of its answers instead, `samples` records of CounterFact.
    """
    spec = make_spec({"model": "llama2-7b", "num_documents": PAGES, "memory_dim": 64, "epochs": 3, **fields})
    card = model_card(spec.model)
    spec = canonical(spec, card)
    begun = begin_record(spec, identity(spec, card, "sample@v1"), card, Origin(sweep, "main", "p"))
    rows = asked or [
        {
            "claim_id": f"{page}-{claim}",
            "page": f"page {page}",
            "label": "SUPPORTS",
            "rows": 1,
            "parsed": "a" if claim < right else "b",
        }
        for page in range(PAGES)
        for claim in range(CLAIMS)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    contents = (
        {"predictions.parquet": sink.getvalue()} if not samples else {"samples.json": json.dumps(samples).encode()}
    )
    files = {name: {"bytes": len(data), "blake2b": content_sum(data)} for name, data in contents.items()}
    result = {"status": "done", "metrics": {"memory/nll": 1.0}, "timings": {}, "files": files}
    record = complete_record(begun, result)
    folder = f"{sweep}/trains/lm_x/layer_0/1/none_0/alpha_0/{record['id']}"
    for name, data in contents.items():
        storage.write(f"{folder}/{name}", data)
    storage.write_record(record, folder)
    return str(record["id"])


def test_without_a_baseline_structure_is_compared_with_plain_memorising_alone(storage) -> None:
    (finding,) = extras_of(storage, ["study"], storage.index()).findings.values()
    assert finding.values["vs_plain/accuracy"] == pytest.approx(-3 / 8)
    assert finding.tags == {"verdict_vs_plain": "worse"}
    assert finding.note.startswith("Of 96 claims 0 newly right, 36 newly wrong, compared with plain memorising")


@pytest.mark.thorough(beside="test_without_a_baseline_structure_is_compared_with_plain_memorising_alone")
def test_a_baseline_of_another_sweep_serves_and_changes_the_findings(storage) -> None:
    before = extras_of(storage, ["study"], storage.index()).findings
    add(storage, "few_shot", right=2, method="pretrained")
    found = extras_of(storage, ["study"], storage.index()).findings
    assert len(found) == 2
    for finding, difference in zip(sorted(found.values(), key=lambda f: len(f.tags)), (5 / 8, 2 / 8), strict=True):
        assert finding.values["vs_pretrained/accuracy"] == pytest.approx(difference)
        low, high = finding.values["vs_pretrained/accuracy_low"], finding.values["vs_pretrained/accuracy_high"]
        assert low <= difference <= high and finding.tags["verdict"] == "better"
        assert f"{round(96 * difference)} newly right, 0 newly wrong" in finding.note
        assert all(math.isfinite(value) for value in finding.values.values())
    assert {trial: finding.mark for trial, finding in before.items()}.items() - {
        trial: finding.mark for trial, finding in found.items()
    }.items()


def test_a_trial_that_another_sweep_ran_is_compared_where_the_plan_asks_for_it(storage) -> None:
    add(storage, "few_shot", right=2, method="pretrained")
    shared = [head.id for head in storage.index().values() if head.sweep == "study"]
    storage.write_json("second/plan.json", {"stages": [{"name": "main", "ids": shared[:1]}]})
    assert list(extras_of(storage, ["second"], storage.index()).findings) == shared[:1]


def sample_answers(right: set[int]) -> tuple[list[dict], list[str]]:
    """Answer the sample world's claims about one page, these right and the others wrong; return words, too."""
    (source,) = resolve_sources("sample")
    page, claims = next(iter(group_by_page(read_rows(source.valid)).pages.items()))
    rows = [
        {
            "claim_id": claim.id,
            "page": page,
            "label": claim.label,
            "rows": claim.rows,
            "parsed": claim.letter if i in right else "abc"[("abc".index(claim.letter) + 1) % 3],
        }
        for i, claim in enumerate(claims)
    ]
    return rows, [claim.text for claim in claims]


def test_answers_that_changed_are_told_with_the_claims_words(tmp_path) -> None:
    storage = SweepStorage(str(tmp_path / "out"))
    base, words = sample_answers({0})
    add(storage, "study", 0, asked=base, data="sample", method="pretrained")
    own, _ = sample_answers({1})
    trial = add(storage, "study", 0, asked=own, data="sample", method="memory", layer=9)
    extras = extras_of(storage, ["study"], storage.index())
    finding = extras.findings[trial]
    assert [(each.question, each.gained) for each in finding.changed] == [(words[1], True), (words[0], False)]
    gained, lost = finding.changed
    assert gained.after == gained.truth != gained.before and lost.before == lost.truth != lost.after
    table = list(csv.DictReader(io.StringIO(extras.changed[trial]().decode())))
    assert [(row["claim"], row["change"]) for row in table] == [(words[1], "newly right"), (words[0], "newly wrong")]
    assert table[0]["trial"] == table[0]["truth"] == gained.truth


def test_claims_of_data_that_has_changed_are_named_by_their_number(tmp_path) -> None:
    storage = SweepStorage(str(tmp_path / "out"))
    base, words = sample_answers({0})
    for row in base:
        row["rows"] += 1  # another table than the one that is here
    add(storage, "study", 0, asked=base, data="sample", method="pretrained")
    own = [{**row, "parsed": "c"} for row in base]
    trial = add(storage, "study", 0, asked=own, data="sample", method="memory", layer=9)
    changed = extras_of(storage, ["study"], storage.index()).findings[trial].changed
    assert changed and all(each.question.startswith("claim ") for each in changed)


def test_sampled_answers_that_changed_are_told_with_their_comparison(tmp_path) -> None:
    storage = SweepStorage(str(tmp_path / "out"))

    def samples(named: int) -> list[dict]:
        true, other = [" Italy, of course", " Italy"], [" the sea", " a"]
        texts = {"target_true": "Italy", "target_new": "Peru"}
        return [
            {"case_id": i, "prompt": f"Place {i} lies in", **texts, "answers": true if i < named else other}
            for i in range(30)
        ]

    fields = {"probes": ("counterfact",), "data": "sample"}
    add(storage, "study", 0, samples=samples(2), method="pretrained", **fields)
    trial = add(storage, "study", 0, samples=samples(25), method="memory", layer=9, **fields)
    finding = extras_of(storage, ["study"], storage.index()).findings[trial]
    assert finding.values["vs_pretrained/counterfact_true_rate"] == pytest.approx(23 / 30)
    low, high = (finding.values[f"vs_pretrained/counterfact_true_rate_{end}"] for end in ("low", "high"))
    assert 0.5 < low < 23 / 30 < high < 1
    assert finding.tags["verdict_counterfact_true_rate"] == "higher"
    assert finding.tags["verdict_counterfact_new_rate"] == "no difference found"
    assert finding.changed[0] == ChangedAnswer("Place 2 lies in", "Italy", "the sea", "Italy, of course", True)
    assert len(finding.changed) == 3


def test_no_more_pictures_are_drawn_than_the_page_shows(fake, monkeypatch) -> None:
    import sweep.report.figures.alpha as alpha
    import sweep.report.figures.answers as answers

    drawn: list[str] = []
    for module in (alpha, answers):
        finish = module.finish

        def finished(canvas, slug, *texts, finish=finish):
            drawn.append(slug)
            return finish(canvas, slug, *texts)

        monkeypatch.setattr(module, "finish", finished)
    fake.add_inductive("s", models=("pythia-1b",), depths=(0.75,), documents=(10,), alphas=(0.0, 1.0))
    fake.write_plans()
    storage = SweepStorage(str(fake.root))
    shown = [picture.name for picture in extras_of(storage, ["s"], storage.index()).pictures("s")]
    assert shown == drawn == ["differences", "alpha_allocation_accuracy"]
