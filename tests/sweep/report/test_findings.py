"""Comparisons as plain values for MLflow."""

from __future__ import annotations

import io
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sweep.records.record import Origin, begin_record, complete_record
from sweep.records.store import Store
from sweep.report.findings import extras_of
from trainables.lm.card import model_card
from trainables.node.checksums import content_sum
from trainables.trial.spec import canonical, identity, make_spec

PAGES, CLAIMS = 12, 8


@pytest.fixture
def store(tmp_path) -> Store:
    """Sweep `study`: a plain memory that is right nearly always, a structured one that is right half the time."""
    store = Store(str(tmp_path / "out"))
    add(store, "study", right=7, method="memory", layer=9)
    add(store, "study", right=4, method="memory", layer=9, alpha=0.5, allocation="partitioned")
    return store


def add(store: Store, sweep: str, right: int, **fields) -> str:
    """Record a trial that has `right` of each page's claims right; return its id."""
    spec = make_spec({"model": "llama2-7b", "num_documents": PAGES, "memory_dim": 64, "epochs": 3, **fields})
    card = model_card(spec.model)
    spec = canonical(spec, card)
    begun = begin_record(spec, identity(spec, card, "sample@v1"), card, Origin(sweep, "main", "p"))
    rows = [
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
    content = sink.getvalue()
    files = {"predictions.parquet": {"bytes": len(content), "blake2b": content_sum(content)}}
    result = {"status": "done", "metrics": {"memory/nll": 1.0}, "timings": {}, "files": files}
    record = complete_record(begun, result)
    folder = f"{sweep}/trains/lm_x/layer_0/1/none_0/alpha_0/{record['id']}"
    store.write(f"{folder}/predictions.parquet", content)
    store.write_record(record, folder)
    return str(record["id"])


def test_without_a_baseline_structure_is_compared_with_plain_memorising_alone(store) -> None:
    (finding,) = extras_of(store, ["study"], store.index()).findings.values()
    assert finding.values["vs_plain/accuracy"] == pytest.approx(-3 / 8)
    assert finding.tags == {"verdict_vs_plain": "worse"} and finding.note == ""


def test_a_baseline_of_another_sweep_serves_and_changes_the_findings(store) -> None:
    before = extras_of(store, ["study"], store.index()).findings
    add(store, "few_shot", right=2, method="pretrained")
    found = extras_of(store, ["study"], store.index()).findings
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


def test_a_trial_that_another_sweep_ran_is_compared_where_the_plan_asks_for_it(store) -> None:
    add(store, "few_shot", right=2, method="pretrained")
    shared = [head.id for head in store.index().values() if head.sweep == "study"]
    store.write_json("second/plan.json", {"stages": [{"name": "main", "ids": shared[:1]}]})
    assert list(extras_of(store, ["second"], store.index()).findings) == shared[:1]
