"""`python -m sweep.report` from end to end, on made-up storages."""

from __future__ import annotations

import json
import re
import struct
import time

import pytest
from typer.testing import CliRunner

from sweep.records.sweep_storage import SweepStorage
from sweep.report.__main__ import app
from sweep.report.figures.drawing import Figure
from sweep.report.render import Report, Samples, Section, html_page, markdown_text
from sweep.report.samples import print_samples
from sweep.report.table import Cell, Table

SAMPLE = {
    "prompt": "Google Patents, a product developed by",
    "target_true": "Google",
    "target_new": "Microsoft",
    "answers": ["Google, allows users to", "Google LLC, is"],
}


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_sweep_gives_tables_figures_and_a_page_that_needs_no_other_file(fake):
    fake.add_inductive(
        models=("pythia-1b",), depths=(0.3, 0.75), documents=(20,), alphas=(0.0, 0.2),
        allocations=("random", "simset1"), with_analysis=True,
    )  # fmt: skip
    fake.write_plans()
    result = run(fake.root / "inductive", "--no-mlflow", "--resamples", 200)
    assert result.exit_code == 0, result.output
    folder = fake.root / "inductive" / "report"
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert figures == {path.stem for path in (folder / "figures").glob("*.svg")}
    assert figures == {
        "differences", "nll_over_epochs", "by_layer", "layer_error_accuracy", "alpha_allocation_nll",
        "alpha_allocation_accuracy", "alpha_allocation_leakage", "epochs_to_nll", "simset", "sure",
    }  # fmt: skip
    tables = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert tables == {path.stem for path in (folder / "tables").glob("*.parquet")}
    assert {"best_layer", "layers", "alpha_allocation_20_nll", "against_pretrained", "trials"} <= tables
    page = (folder / "report.html").read_text()
    sources = re.findall(r'src="([^"]{0,30})', page)
    assert len(sources) == len(figures) and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "stylesheet" not in page and not re.search(r"<script[^>]* src|<link|https?://(?!www.w3.org)", page)
    assert "**" not in re.sub(r"<(pre|style|script).*?</\1>", "", page, flags=re.S)


def test_an_unfinished_sweep_says_how_many_points_are_missing(fake):
    fake.add("inductive", "early", depth=0.3, metrics={"memory/nll": 1.0})
    for alpha in (2.0, 5.0, 7.0):
        fake.add("inductive", "late", depth=0.3, allocation="random", alpha=alpha, write=False)
    fake.write_plans()
    result = run(fake.root / "inductive", "--no-mlflow")
    assert "3 points missing" in result.output
    text = (fake.root / "inductive" / "report" / "report.md").read_text()
    assert "**3 planned points are missing.**" in text
    assert "| inductive | late | 3 | 0 | 0 | 0 | 0 | 3 |" in text


def test_a_point_that_two_stages_want_is_missing_once_and_waiting_points_count(fake):
    for stage in ("first", "second"):
        fake.add("s", stage, depth=0.5, write=False)
    fake.write_plans()
    path = fake.root / "s" / "plan.json"
    plan = json.loads(path.read_text())
    plan["stages"].append({"name": "third", "points": 7, "ids": []})
    path.write_text(json.dumps(plan))
    assert "0 trials, 8 points missing" in run(fake.root / "s", "--no-mlflow").output


def test_nothing_recorded_yet_is_a_report_too(fake):
    fake.add("s", "all", depth=0.5, write=False)
    fake.write_plans()
    assert run(fake.root / "s", "--no-mlflow").exit_code == 0
    assert "0 trials recorded" in (fake.root / "s" / "report" / "report.md").read_text()


@pytest.mark.thorough(beside="tests/sweep/report/test_conclusions.py::test_a_pretrained_model_of_another_sweep_serves")
def test_several_sweeps_at_once_share_baselines(fake):
    fake.add("few_shot", "all", method="pretrained", accuracy=0.2)
    fake.add("content", "all", depth=0.5, accuracy=0.9)
    fake.write_plans()
    assert run(fake.root, "--no-mlflow").exit_code == 0
    text = (fake.root / "report" / "report.md").read_text()
    assert "\n\n- Every trial against the pretrained model: content: of 1 trials, 1 better" in text
    alone = run(fake.root, "--name", "content", "--no-mlflow", "--out", fake.root / "elsewhere")
    assert alone.exit_code == 0
    beside = (fake.root / "elsewhere/report.md").read_text()
    assert "Every trial against the pretrained model: of 1 trials, 1 better" in beside, "another sweep's serves"


def test_a_point_recorded_by_another_sweep_is_not_missing(fake):
    fake.add("first", "all", depth=0.5)
    fake.add("second", "all", depth=0.5, write=False)
    fake.write_plans()
    result = run(fake.root / "second", "--no-mlflow")
    assert result.stdout.startswith("1 trials, 0 points missing")


def test_failed_and_diverged_trials_and_broken_records_are_told(fake):
    fake.add("s", "all", depth=0.5, status="diverged", metrics={"memory/nll": 1.0})
    fake.add("s", "all", depth=1.0, status="failed")
    ident = fake.add("s", "all", depth=0.2)
    fake.write_plans()
    (broken,) = (fake.root / "s" / "trains").rglob(f"{ident}/record.json")
    broken.write_text("{")
    assert run(fake.root / "s", "--no-mlflow").exit_code == 0
    text = (fake.root / "s" / "report" / "report.md").read_text()
    assert "| s | all | 3 | 0 | 0 | 1 | 1 | 1 |" in text
    assert "not JSON" in text
    assert broken.exists()


def test_choices_are_printed_with_their_runners_up(fake):
    fake.add("s", "all", depth=0.5)
    fake.write_plans()
    choice = {"group": {"model": "m"}, "field": "layer", "value": 3, "by": "memory/nll", "mode": "min", "metric": 0.5,
              "runners_up": [{"value": 4, "metric": 0.6, "id": "x"}]}  # fmt: skip
    (fake.root / "s" / "choices.json").write_text(json.dumps({"key": choice}))
    run(fake.root / "s", "--no-mlflow")
    assert (
        "| s | model=m | layer | min memory/nll | 3 | 0.500 | 4 (0.600) |"
        in (fake.root / "s" / "report" / "report.md").read_text()
    )


def test_counterfact_answers_are_printed_as_in_the_notes(fake):
    fake.add(
        "cf", "all", method="pretrained", probes=("counterfact",), accuracy=None,
        metrics={"counterfact/true_rate": 0.3}, extra={"samples.json": [SAMPLE]},
    )  # fmt: skip
    fake.write_plans()
    run(fake.root / "cf", "--no-mlflow")
    text = (fake.root / "cf" / "report" / "report.md").read_text()
    printed = print_samples([SAMPLE])
    assert printed in text
    assert printed.splitlines() == [
        "-" * 15,
        "Prompt: Google Patents, a product developed by",
        "Target word: Microsoft (true: Google)",
        "Generated answers: ['Google, allows users to', 'Google LLC, is']",
    ]


@pytest.mark.parametrize("location", ["nowhere", "outputs/nothing"])
def test_a_place_without_sweeps_is_one_line_and_status_2(tmp_path, location):
    (tmp_path / "outputs").mkdir()
    result = run(tmp_path / location)
    assert result.exit_code == 2
    assert result.output.startswith("error: ") and len(result.output.strip().splitlines()) == 1


def test_an_unknown_name_is_told_with_the_known_ones(fake):
    fake.add("few_shot", "all", method="pretrained")
    result = run(fake.root, "--name", "few_shots")
    assert result.exit_code == 2 and "there are: few_shot" in result.output


def test_the_report_goes_to_the_sweeps_run_in_mlflow(fake):
    from mlflow import MlflowClient

    fake.add("few_shot", "all", method="pretrained")
    fake.write_plans()
    result = run(fake.root / "few_shot")
    assert result.exit_code == 0 and "python -m sweep.publish" in result.output
    uri = f"sqlite:///{fake.root}/mlflow.db"
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("memory-sweep", artifact_location=(fake.root / "mlartifacts").as_uri())
    tags = {"kind": "sweep", "sweep": "few_shot", "storage": SweepStorage(str(fake.root)).storage_id()}
    made = client.create_run(experiment, tags=tags)
    result = run(fake.root / "few_shot")
    assert result.exit_code == 0 and "sweep.publish" not in result.output
    found = {item.path for item in client.list_artifacts(made.info.run_id, "report")}
    assert {
        "report/conclusions.json",
        "report/report.html",
        "report/report.md",
        "report/figures",
        "report/tables",
    } == found


def test_text_from_records_cannot_break_the_page():
    cell = Cell(None, "<b>|x|_y_</b>")
    table = Table("t", "A table", ("model",), ("value",), ((("<i>&",), (cell,)),))
    figure = Figure("f", "A figure", "What it shows.", b"png", b"svg")
    report = Report("R", "Sum.", None, [Section("S", [table], [figure])], samples=[Samples("m", "Answers: ['<u>']")])
    page = html_page(report)
    assert "<b>" not in page and "<i>" not in page and "<u>" not in page
    assert "&lt;b&gt;|x|_y_&lt;/b&gt;" in page.replace("&#124;", "|")
    assert "](figures/f.png)" in markdown_text(report, embed=False)


@pytest.mark.slow
def test_2400_trials_take_less_than_a_minute_and_stay_readable(fake):
    fake.add_inductive(with_analysis=True)
    fake.write_plans()
    assert sum(len(ids) for stages in fake.ids.values() for ids in stages.values()) == 2160 + 10
    start = time.process_time()
    result = run(fake.root / "inductive", "--no-mlflow")
    assert result.exit_code == 0, result.output
    assert time.process_time() - start < 60
    folder = fake.root / "inductive" / "report"
    assert (folder / "report.html").stat().st_size < 5e6
    for path in (folder / "figures").glob("*.png"):
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width < 2000 and height < 2600, path.name
    printed = (folder / "report.md").read_text()
    assert "40 of 2,160 rows are printed" in printed
    with open(folder / "tables" / "against_pretrained.csv") as rows:
        assert sum(1 for _ in rows) == 2161


def test_a_trial_whose_answers_are_missing_or_broken_is_named(fake):
    fake.add("s", "all", method="pretrained")
    broken, missing, whole = (fake.add("s", "all", layer=layer) for layer in (1, 2, 3))
    silent = fake.add("s", "all", layer=4, accuracy=None)
    sampled = fake.add(
        "s", "all", layer=5, probes=("counterfact",), accuracy=None, metrics={"counterfact/true_rate": 0.3}
    )
    fake.write_plans()
    (path,) = fake.root.rglob(f"{broken}/predictions.parquet")
    path.write_bytes(path.read_bytes()[:100])
    (path,) = fake.root.rglob(f"{missing}/predictions.parquet")
    path.unlink()
    run(fake.root / "s", "--no-mlflow")
    text = (fake.root / "s" / "report" / "report.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("- trial ")]
    assert [line.split()[2] for line in lines] == [*sorted([broken, missing]), sampled]
    assert {line.split(" is ")[-1].split(":")[0] for line in lines} == {"damaged", "missing or broken"}
    assert not any(quiet in line for quiet in (whole, silent) for line in lines)
    assert "in no comparison of FEVER answers" in lines[0] and "run their sweep again" in text
