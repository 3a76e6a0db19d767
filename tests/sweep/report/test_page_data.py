"""What the page holds of every trial: all of it, small, and right."""

from __future__ import annotations

import base64
import json
import re
import zlib

import optuna
import pyarrow.parquet as pq
import pytest

import sweep.report.page_data as page_data
from sweep.records.sweep_storage import SweepStorage
from sweep.report import importance
from sweep.report.build import Options, build_report
from sweep.report.importance import importance_table
from sweep.report.render import html_page
from sweep.report.study import load_study
from sweep.report.tables.of_failures import failures

pytestmark = pytest.mark.usefixtures("unpainted")
OPTIONS = Options(resamples=200)


def add(fake, **fields):
    if fields.get("method") != "pretrained":
        fields = {"metrics": {"memory/nll": 1.5}, **fields}
    return fake.add("s", "all", **{"num_documents": 10, **fields})


def unpacked(fake) -> tuple[dict, str]:
    fake.write_plans()
    page = html_page(build_report(load_study(SweepStorage(str(fake.root)), ["s"]), OPTIONS))
    (text,) = re.findall(r'<script id="packed-trials" type="text/plain">([^<]*)</script>', page)
    return json.loads(zlib.decompress(base64.b64decode(text))), page


def parts(data: dict, ident: str) -> dict:
    place = [row[0] for row in data["rows"]].index(ident)
    return {name: values[place] for name, values in data["pages"].items()}


def predictions(fake, ident: str) -> list[dict]:
    (path,) = fake.root.rglob(f"{ident}/predictions.parquet")
    return pq.read_table(path).to_pylist()


def test_answers_that_changed_can_be_read_back_from_the_page(fake):
    base = add(fake, method="pretrained", accuracy=0.3)
    own = add(fake, layer=2, accuracy=0.8)
    data, _ = unpacked(fake)
    told = parts(data, own)
    assert told["base"] == base
    places = data["groups"][told["changed"]["group"]]
    before = data["bases"][f"{base} {told['changed']['group']}"]
    found = {
        (data["questions"][places[i]][0], data["questions"][places[i]][2], before[i], now)
        for i, now in enumerate(told["changed"]["answers"])
        if now != "."
    }
    letters = {"SUPPORTS": "a", "REFUTES": "b", "NOT ENOUGH INFO": "c"}
    expected = {
        (f"claim {b['claim_id']}", letters[b["label"]], b["parsed"], a["parsed"])
        for a, b in zip(predictions(fake, own), predictions(fake, base), strict=True)
        if a["parsed"] != b["parsed"]
    }
    assert found == expected and len(expected) > 5
    assert "changed" not in parts(data, base) or parts(data, base)["changed"] is None


def test_every_trial_has_a_row_with_its_verdict_and_what_is_known_of_it(fake):
    add(fake, method="pretrained", accuracy=0.3)
    better = add(fake, layer=2, accuracy=0.9, curves={"train/nll": [[1, 3.0], [2, 2.123456789]]})
    diverged = add(fake, layer=3, status="diverged")
    data, page = unpacked(fake)
    names = [column["name"] for column in data["columns"]]
    rows = {row[0]: dict(zip(names, row, strict=True)) for row in data["rows"]}
    assert len(rows) == 3 and names[:2] == ["trial", "verdict"]
    assert rows[better]["verdict"] == "better" and rows[better]["difference"] > 0.3
    assert rows[better]["low"] <= rows[better]["difference"] <= rows[better]["high"] and rows[better]["layer"] == 2
    assert rows[diverged]["status"] == "diverged" and rows[diverged]["verdict"] == ""
    told = parts(data, better)
    assert told["curves"]["train/nll"] == [[1.0, 2.0], [3.0, 2.1235]]
    assert "layer 2" in told["words"] and told["fields"]["layer"] == "2"
    assert f'href="#trial-{diverged}"' in page and "its loss was no number any more" in page


@pytest.mark.thorough(beside="test_answers_that_changed_can_be_read_back_from_the_page")
def test_the_least_telling_answers_are_left_out_where_the_page_would_become_too_large(fake, monkeypatch):
    add(fake, method="pretrained", accuracy=0.3)
    most, least = add(fake, layer=2, accuracy=0.9), add(fake, layer=3, accuracy=0.33)
    monkeypatch.setattr(page_data, "MAX_ANSWERS_BYTES", 50)
    data, _ = unpacked(fake)
    assert parts(data, most)["changed"]["answers"] and parts(data, least)["changed"] == page_data.TOO_MANY


def test_trials_without_a_result_are_listed_with_their_cause(fake):
    add(fake, layer=1, status="failed")
    add(fake, layer=2, status="diverged", curves={"train/nll": [[1, 3.0], [2, None]]})
    fake.write_plans()
    table = failures(load_study(SweepStorage(str(fake.root))).trials)
    assert table is not None
    assert [(row[0].text, row[1].text) for _, row in table.rows] == [
        ("failed", "no cause was recorded"),
        ("diverged", "its loss was no number any more; the last finite error was 3 in epoch 1"),
    ]
    assert failures(()) is None


@pytest.mark.parametrize("matters, other", [("layer", "lr"), ("lr", "layer")])
def test_the_field_that_makes_the_result_is_the_most_important_one(fake, matters, other):
    for layer in range(5):
        for k in range(5):
            values = {"layer": layer, "lr": 0.001 * (k + 1)}
            step = layer if matters == "layer" else k
            error = 1.0 + step + 0.01 * ((layer + k) % 3)
            add(fake, **values, accuracy=None, probes=(), metrics={"memory/nll": error})
    fake.write_plans()
    table = importance_table(load_study(SweepStorage(str(fake.root))).trials)
    assert table is not None and [labels[0] for labels, _ in table.rows] == [matters, other]
    shares = [row[0].value for _, row in table.rows]
    assert shares[0] > 0.9 and sum(shares) == pytest.approx(1.0) and "Read it with care" in table.legend[0]


def test_of_many_trials_importances_come_from_some_the_same_ones_each_time(fake, monkeypatch):
    for k in range(60):
        fake.add("s", "all", layer=k % 6, alpha=0.1 * (k % 5), seed=k, metrics={"memory/nll": 1.0 + k % 6})
    fake.write_plans()
    trials = load_study(SweepStorage(str(fake.root))).trials
    made = []
    create = optuna.trial.create_trial
    monkeypatch.setattr(optuna.trial, "create_trial", lambda **told: made.append(told["value"]) or create(**told))
    monkeypatch.setattr(importance, "MOST_TRIALS", 30)
    tables = [importance_table(trials) for _ in range(2)]
    assert tables[0] == tables[1] and tables[0].rows[0][0] == ("layer",)
    assert len(made) == 60 and made[:30] == made[30:] and len(set(made[:30])) == 6


def test_without_enough_that_varies_no_importance_is_claimed(fake):
    for layer in range(3):
        add(fake, layer=layer)
    fake.write_plans()
    assert importance_table(load_study(SweepStorage(str(fake.root))).trials) is None


def test_a_trial_that_was_added_says_by_whom_and_of_which_it_is_a_clone(fake):
    plain = add(fake, layer=2)
    told = {"added_by": "ada@desk", "added_at": "2026-01-02T03:04:05+00:00"}
    added = add(fake, layer=3, labels={**told, "added_as": "add --set layer=3"})
    clone = add(fake, layer=4, labels={**told, "added_as": f"clone {plain[:12]} --set layer=4", "cloned_from": plain})
    data, _ = unpacked(fake)
    assert not {"origin", "parent"} & {name for name, value in parts(data, plain).items() if value}
    assert (
        parts(data, added)["origin"] == "Added to the sweep by ada@desk, 2026-01-02 03:04 UTC (ctl add --set layer=3)."
    )
    assert parts(data, added)["parent"] is None
    assert parts(data, clone)["origin"].startswith(f"A clone of trial {plain}, added to the sweep by ada@desk")
    assert parts(data, clone)["parent"] == plain
