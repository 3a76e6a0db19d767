"""Results as tables: what is in them, and that every column is documented."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from sweep import load_results
from sweep.export import app
from sweep.records.columns import PROBES, TABLES, columns_page, described
from tests.sweep.report.conftest import FakeStorage
from trainables.errors import ConfigError
from trainables.probes.registry import PROBES as REGISTRY

ROOT = Path(__file__).parents[3]
KEPT = ROOT / "tests" / "data" / "formats"


@pytest.fixture
def fake(tmp_path) -> FakeStorage:
    made = FakeStorage(tmp_path / "outputs")
    made.add("a", "all", method="pretrained", num_documents=4, accuracy=0.4)
    curves = {"train/nll": [[1, 3.0], [2, None]], "memory/nll": [[2, 1.5]]}
    made.add("b", "all", layer=2, num_documents=4, accuracy=0.6, metrics={"memory/nll": 1.5}, curves=curves)
    made.add("b", "all", layer=3, num_documents=4, status="diverged")
    made.write_plans()
    return made


def test_the_page_is_what_the_code_declares():
    assert (ROOT / "docs" / "results.md").read_text() == columns_page(), (
        "python -m sweep.records.columns > docs/results.md"
    )


@pytest.mark.filterwarnings("ignore:.*left out")  # not all files of the kept storages are kept
@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_every_table_is_documented(fake, table):
    for path in [fake.root, *(folder for folder in KEPT.glob("*") if folder.is_dir())]:
        frame = load_results(path, table)
        assert len(frame) and [name for name in frame.columns if described(table, name) is None] == []
    assert described(table, "something_else") is None and described(table, "other/thing") is None


def test_what_any_probe_measures_or_answers_is_documented():
    for name in REGISTRY:
        plan = REGISTRY[name]
        if not plan.__module__.startswith("trainables."):
            continue  # of another test
        for metric in plan.metrics if not isinstance(plan.metrics, property) else ("arc_easy_acc_norm", "t_f1_none"):
            assert described("trials", f"{name}/{metric}") in PROBES, (name, metric)
            assert described("askings", metric), (name, metric)
        for column in plan.answers:
            assert described("answers", column), (name, column)


def test_tables_share_ids_and_hold_what_the_records_hold(fake):
    trials = load_results(fake.root)
    assert set(trials["status"]) == {"done", "diverged"} and len(trials) == 3
    curves = load_results(fake.root / "b", "curves").set_index(["curve", "epoch"])["value"]
    assert sorted(curves.index) == [("memory/nll", 2), ("train/nll", 1), ("train/nll", 2)]
    assert (curves["train/nll", 1], curves["memory/nll", 2]) == (3.0, 1.5) and pd.isna(curves["train/nll", 2])
    askings = load_results(fake.root, "askings")
    done = trials[trials["status"] == "done"].set_index("id")
    told = askings.dropna(subset=["accuracy"]).set_index("id")
    assert told["accuracy"].to_dict() == done["fever/accuracy"].to_dict() and set(told["method"]) == {
        "memory",
        "pretrained",
    }
    answers = load_results(fake.root, "answers")
    assert set(answers["id"]) == set(done.index) and set(answers["asking"]) == {"fever"}
    shares = answers.groupby("id").apply(lambda own: (own["correct"] * own["rows"]).sum() / own["rows"].sum())
    assert shares.to_dict() == pytest.approx(done["fever/accuracy"].to_dict())
    assert load_results(fake.root, "answers", asking="recall").empty


def test_answers_that_cannot_be_read_are_left_out_with_a_warning(fake):
    path = next(fake.root.rglob("predictions.parquet"))
    path.write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match="left out, it is missing or broken"):
        assert load_results(fake.root, "answers")["id"].nunique() == 1


def test_an_unknown_table_is_refused(fake):
    with pytest.raises(ConfigError, match="table='answer'.*answers"):
        load_results(fake.root, "answer")


def test_tables_are_written_as_files(fake, tmp_path):
    done = CliRunner().invoke(app, [str(fake.root), "--to", str(tmp_path / "t")])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "t").iterdir()} == {"trials.csv", "askings.csv", "curves.csv"}
    assert len(pd.read_csv(tmp_path / "t" / "trials.csv")) == 3
    done = CliRunner().invoke(app, [str(fake.root), "--to", str(tmp_path / "t"), "--parquet", "--table", "answers"])
    assert len(pd.read_parquet(tmp_path / "t" / "answers.parquet")) == len(load_results(fake.root, "answers"))
    wrong = CliRunner().invoke(app, [str(fake.root), "--to", str(tmp_path), "--table", "trial"])
    assert wrong.exit_code == 2 and len(wrong.output.strip().splitlines()) == 1
