"""Answers in the files of lm-evaluation-harness, held against what the library writes itself."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from sweep.records.sweep_storage import SweepStorage
from sweep.report.__main__ import app
from sweep.report.sample_files import _lm_eval, store_samples, write_samples
from sweep.report.study import load_study

SAMPLE = {
    "prompt": "Google Patents, a product developed by", "target_true": "Google", "target_new": "Microsoft",
    "answers": ["Google, allows users to", "Microsoft"],
}  # fmt: skip
OF_THE_LIBRARY = {
    "doc_id": 3, "doc": {"question": "2 + 2?", "choices": ["3", "4"]}, "target": 1,
    "arguments": [("2 + 2?", " 3"), ("2 + 2?", " 4")], "resps": [[(-3.5, False)], [(-1.25, True)]],
    "filtered_resps": [(-3.5, False), (-1.25, True)], "filter": "none", "metrics": ["acc"], "doc_hash": "a",
    "prompt_hash": "b", "target_hash": "c", "acc": 1.0,
}  # fmt: skip


@pytest.fixture
def study(fake):
    fake.add("s", "all", layer=1, num_documents=4, accuracy=0.6)
    fake.add(
        "s", "all", method="pretrained", probes=("counterfact",), accuracy=None,
        metrics={"counterfact/true_rate": 0.5}, extra={"samples.json": [SAMPLE]},
    )  # fmt: skip
    fake.add("s", "all", layer=2, status="failed")
    fake.write_plans()
    return load_study(SweepStorage(str(fake.root)), ["s"])


def written_by_the_library(folder) -> dict:
    tracker = pytest.importorskip("lm_eval.loggers.evaluation_tracker", reason="needs the extra lm-eval")
    own = SimpleNamespace(
        output_path=str(folder), general_config_tracker=SimpleNamespace(model_name_sanitized="m"), date_id="d",
        api=None, push_samples_to_hub=False,
    )  # fmt: skip
    sample = json.loads(json.dumps(OF_THE_LIBRARY))
    tracker.EvaluationTracker.save_results_samples(own, "arith", [sample])
    (line,) = (folder / "m" / "samples_arith_d.jsonl").read_text().splitlines()
    return json.loads(line)


def test_what_the_library_asked_is_written_as_the_library_writes_it(tmp_path):
    ours = _lm_eval(0, {"sample": json.dumps(OF_THE_LIBRARY, default=str, sort_keys=True), "task": "arith"})
    assert json.loads(json.dumps(ours)) == written_by_the_library(tmp_path)


def test_our_own_answers_have_the_librarys_fields_and_types(study, tmp_path):
    theirs = written_by_the_library(tmp_path)
    assert write_samples(study, tmp_path / "out") == 2
    for path in (tmp_path / "out").rglob("samples_*.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            assert theirs.keys() - {"acc"} <= line.keys() and all(name in line for name in line["metrics"])
            for name in theirs.keys() - {"acc"}:
                assert type(line[name]) is type(theirs[name]), name
            assert isinstance(line["resps"][0], list) and isinstance(line["resps"][0][0], str)
            assert set(line["arguments"]["gen_args_0"]) == {"arg_0"}
        datasets = pytest.importorskip("datasets")
        read = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(read) == len(lines)


def test_the_mean_of_the_samples_is_the_trials_own_figure(study, tmp_path):
    write_samples(study, tmp_path)
    (trial,) = (t for t in study.trials if "fever/accuracy" in t.metrics)
    (path,) = (tmp_path / trial.id).glob("samples_fever_*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    weights = [line["doc"]["rows"] for line in lines]
    mean = sum(line["acc"] * w for line, w in zip(lines, weights, strict=True)) / sum(weights)
    assert mean == pytest.approx(trial.metrics["fever/accuracy"])
    assert all((line["filtered_resps"] == [line["target"]]) == bool(line["acc"]) for line in lines)
    (path,) = tmp_path.rglob("samples_counterfact_*.jsonl")
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["true_rate"] == 0.5 and line["filtered_resps"] == SAMPLE["answers"] and line["target"] == "Google"


def test_the_command_writes_them_beside_the_report_and_a_repeat_replaces_them(study, fake):
    for _ in range(2):
        done = CliRunner().invoke(app, [f"{fake.root}/s", "--no-mlflow", "--samples", "--resamples", "100"])
        assert done.exit_code == 0 and f"2 files of answers: {fake.root}/s/samples" in done.output, done.output
    assert len(list((fake.root / "s" / "samples").rglob("*.jsonl"))) == 2
    assert store_samples(study)[0] == 2
