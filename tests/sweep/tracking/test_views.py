"""Saved views: what they hold, how they are stored, the links that open them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, unquote

import pytest

from sweep.records.study_questions import AGAINST_PRETRAINED, COUNTERFACT, INDUCTIVE, LAYERS, MEMORY_SIZE, TRUE_RATE
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import Tracking, resolve_tracking
from sweep.tracking.asked import AskedQuestion, asked_of
from sweep.tracking.client import Runs, TrackingError
from sweep.tracking.link import no_database, pages, server_version, view_link
from sweep.tracking.saved_views import (
    MAX_TAG_CHARS,
    TAG,
    decode,
    encode,
    filtered_path,
    on_server,
    run_path,
    view_id,
    view_path,
    view_state,
)
from sweep.tracking.views import views_of

STUDY = ("model", "layer", "alpha", "allocation", "num_documents")
METRICS = (
    "memory/nll", "memory/nll_before", "memory/leakage", "fever/accuracy", "fever/f1_macro", "train/nll", "train/loss",
    "cost/total_s", "cost/flops", *(f"vs_pretrained/accuracy{end}" for end in ("", "_low", "_high")),
)  # fmt: skip


def study_views() -> dict:
    asked = [
        AskedQuestion(LAYERS, ("layer",), ("layer",), {"method": "memory"}, "layer_selection"),
        AskedQuestion(INDUCTIVE, ("alpha", "allocation"), ("alpha",), {}, "main"),
        AskedQuestion(MEMORY_SIZE, ("memory_dim",), ("memory_dim",)),
        AskedQuestion(COUNTERFACT),
    ]
    return {view.key: view for view in views_of("demo", STUDY, METRICS, asked)}


def test_the_main_view_has_the_studys_columns_in_the_order_of_its_questions() -> None:
    view = study_views()["all"]
    names = [column.partition("`")[2].strip("`") for column in view.columns]
    assert names[:6] == ["lm_size", "hook_layer", "alpha", "memory_allocation", "selected_docs", "verdict"]
    assert names[6:] == [
        "memory/nll_before", "memory/nll", "memory/leakage", "fever/accuracy", "fever/f1_macro",
        "vs_pretrained/accuracy", "vs_pretrained/accuracy_low", "vs_pretrained/accuracy_high",
        "Source", "Version", "Dataset",
    ]  # fmt: skip
    assert list(view.sections) == ["Answer", "Memory", "Training", "Cost"]
    assert (view.order_by, view.ascending) == ("metrics.`memory/nll`", True)


def test_each_question_has_a_view_and_questions_that_cannot_be_answered_have_none() -> None:
    assert list(study_views()) == ["all", "layers", "alpha_allocation", "memory_size", "against", "failed"]
    assert [view.key for view in views_of("demo", ["num_shots"], ["fever/accuracy"])] == ["all", "failed"]
    plain = views_of("demo", ["alpha"], ["memory/nll", "vs_plain/accuracy"])
    assert [view.title for view in plain if view.key == "against"] == ["against plain memorising"]


def test_a_question_looks_at_its_own_trials_in_the_stage_that_compares_them() -> None:
    views = study_views()
    assert views["layers"].where == "tags.`in_demo` LIKE '%layer_selection%' AND params.method = 'memory'"
    assert views["alpha_allocation"].where == "tags.`in_demo` LIKE '%main%'"
    assert views["memory_size"].where == ""


def test_a_question_is_drawn_over_its_fields_by_the_qualities_of_the_reports_tables() -> None:
    views = study_views()
    layers = views["layers"].sections["By layer (colour: model)"]
    assert [chart["yaxis"]["key"] for chart in layers] == [quality.metric for quality in LAYERS.qualities]
    assert {chart["xaxis"]["key"] for chart in layers} == {"hook_depth"}
    (lines,) = views["alpha_allocation"].sections["Every trial a line"]
    assert lines["selectedParams"] == ["alpha", "memory_allocation", "lm_size"]
    assert lines["selectedMetrics"][-1] == "fever/accuracy"  # the last gives the colour
    assert (views["layers"].order_by, views["layers"].ascending) == ("metrics.`memory/nll`", True)


def test_every_quality_and_verdict_of_a_comparison_of_sampled_answers_has_a_column() -> None:
    rates = [AGAINST_PRETRAINED.rate(TRUE_RATE, end) for end in ("", "_low", "_high")]
    (view, *_) = views_of("demo", ["alpha"], ["counterfact/true_rate", *rates])
    names = [column.partition("`")[2].strip("`") for column in view.columns]
    assert names[:6] == ["alpha", "verdict_counterfact_true_rate", "counterfact/true_rate", *rates]
    assert (view.order_by, view.ascending) == ("metrics.`counterfact/true_rate`", False)


@pytest.fixture
def study(finished) -> tuple[list[dict], dict]:
    """Two models: the pretrained ones, layers, then alpha x allocation for two numbers of documents; with the plan."""
    stages: dict[str, list[dict]] = {"baseline": [], "layer_selection": [], "inductive": [], "document_count": []}
    for model in ("llama2-7b", "pythia-6.9b"):
        stages["baseline"].append(finished(model=model, method="pretrained", layer=None))
        for layer in (7, 15, 23):
            plain = {"model": model, "layer": layer, "alpha": 0.0, "allocation": "none"}
            stages["layer_selection"].append(finished(**plain))
        for documents, stage in ((1000, "inductive"), (10, "document_count")):
            for alpha in (0.2, 1.0):
                for allocation in ("random", "simset1"):
                    fields = {"model": model, "alpha": alpha, "allocation": allocation, "num_documents": documents}
                    stages[stage].append(finished(**fields))
    plan = [{"name": name, "ids": [record["id"] for record in own]} for name, own in stages.items()]
    plain = [record["id"] for record in stages["layer_selection"] if record["identity"]["layer"] == 23]
    plan[2]["ids"] += plain  # alpha 0 of every allocation, which the stage before has run
    return [record for own in stages.values() for record in own], {"stages": plan}


def test_the_questions_of_a_sweep_follow_from_its_trials(study) -> None:
    records, plan = study
    found = {asked.question.key: asked for asked in asked_of(plan, records)}
    assert {key: (asked.fields, asked.stage) for key, asked in found.items()} == {
        "layers": (("layer",), "layer_selection"),
        "alpha_allocation": (("alpha", "allocation"), "inductive"),
        "documents": (("num_documents",), ""),  # no stage tries several
        "counterfact": ((), ""),
    }
    assert found["alpha_allocation"].numeric == ("alpha",)
    assert found["layers"].about == {"method": "memory"} and found["counterfact"].about == {}


def test_a_question_of_which_only_one_value_was_tried_is_not_asked(study) -> None:
    records, plan = study
    few = [r for r in records if r["id"] in plan["stages"][2]["ids"] and r["identity"]["alpha"] == 1.0]
    assert "documents" not in {asked.question.key for asked in asked_of(plan, few)}
    assert next(asked for asked in asked_of(plan, few) if asked.question is INDUCTIVE).fields == ("allocation",)


def test_every_metric_has_its_chart_or_is_marked_as_left_out() -> None:
    for view in study_views().values():
        state = view_state(view, "storage", "demo", METRICS)
        bars = {chart["metricKey"] for chart in state["compareRunCharts"] if "metricKey" in chart}
        assert bars == set(METRICS)
        shown = [chart for chart in state["compareRunCharts"] if not chart["deleted"]]
        sections = {section["uuid"] for section in state["compareRunSections"]}
        assert {chart["metricSectionId"] for chart in shown} == sections
        assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == len(state["compareRunCharts"])


def test_a_view_survives_its_tag_and_fits_into_it() -> None:
    for view in study_views().values():
        many = [*METRICS, *(f"memory/leakage_{k}" for k in range(40))]
        state = view_state(view, "storage", "demo", many)
        value = encode("demo: " + view.title, state, 17)
        assert decode(value) == ("demo: " + view.title, state) and len(value) < MAX_TAG_CHARS / 4
    with pytest.raises(ValueError, match="MLflow takes 20000"):
        encode("large", {str(k * 7919**3): k * 104729**2 for k in range(3000)}, 1)


def test_links_keep_a_servers_path_prefix_and_no_password() -> None:
    path = view_path("7", view_id("0123456789ab", "demo", "all"), charts=True)
    url = on_server("https://me:secret@lab.example/mlflow/", path)
    assert url.startswith("https://lab.example/mlflow/#/experiments/7/runs?viewStateShareKey=01234567-demo-all&")
    assert url.endswith("compareRunsMode=CHART")
    assert run_path("7", "r1", "report/report.html") == "#/experiments/7/runs/r1/artifacts/report/report.html"
    query = parse_qs(unquote(filtered_path("7", "s", "demo")).partition("?")[2])
    assert query["searchFilter"] == ["tags.`in_demo` LIKE '%' AND tags.storage = 's'"]


@pytest.fixture
def published(storage, tracking) -> Runs:
    """An experiment that holds two views of `demo`."""
    runs = Runs(tracking, storage.storage_id())
    for view in [study_views()[key] for key in ("against", "layers", "all")]:
        state = view_state(view, runs.storage, "demo", METRICS)
        runs.tag_experiment(TAG + view_id(runs.storage, "demo", view.key), encode(f"demo: {view.title}", state, 1))
    return runs


def test_a_sweeps_pages_are_its_views_the_main_one_first(storage, tracking, published) -> None:
    found = pages(storage, tracking, "demo", (3, 17, 2))
    assert [page.title for page in found] == ["demo: all trials", "demo: layers", "demo: against pretrained"]
    assert "demo-all" in found[0].path and "CHART" in found[1].path and not found[0].note


def test_an_older_server_gets_the_filtered_table_and_a_word_on_why(storage, tracking, published) -> None:
    (page,) = pages(storage, tracking, "demo", (3, 9, 0))
    assert "searchFilter" in page.path and page.note == "saved views need MLflow 3.16 or newer"


def test_without_a_server_the_link_is_the_command_that_starts_one(storage, tracking) -> None:
    assert view_link(storage, tracking, "demo").endswith(f" -m sweep.ui {storage.uri}/demo")
    elsewhere = view_link(storage, Tracking("postgresql://me:secret@db/runs", "x"), "demo")
    assert elsewhere.endswith("--tracking-uri 'postgresql://…@db/runs' --experiment x") and "secret" not in elsewhere


def test_beside_an_object_store_the_link_says_where_mlflows_files_are(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    storage = SweepStorage("memory://bucket/out")
    told = view_link(storage, resolve_tracking(storage), "demo")
    assert "memory://bucket/out/demo" in told and told.endswith(f"artifacts are in this folder: {tmp_path})")
    assert "in this folder" not in view_link(
        storage, Tracking(f"sqlite:///{tmp_path}/other.db", "memory-sweep"), "demo"
    )
    assert no_database(storage, resolve_tracking(storage)).endswith("-m sweep.publish memory://bucket/out makes it")
    (tmp_path / "mlflow.db").touch()
    assert no_database(storage, resolve_tracking(storage)) == ""


def test_a_server_that_does_not_answer_is_named_without_its_password(storage) -> None:
    with pytest.raises(TrackingError) as error:
        Runs(Tracking("http://me:secret@127.0.0.1:9", "x"), "s")
    assert "secret" not in str(error.value)
    told = view_link(storage, Tracking("http://me:secret@127.0.0.1:9", "x"), "demo")
    assert told.startswith("http://…@127.0.0.1:9 (MLflow at") and "secret" not in told


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "pw"}, "Basic bWU6cHc="),
        ({"MLFLOW_TRACKING_TOKEN": "t0k"}, "Bearer t0k"),
    ],
)
def test_a_servers_version_is_asked_under_its_prefix_with_credentials(monkeypatch, variables, sent) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"3.17.2")

        def log_message(self, *_) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        assert server_version(f"http://127.0.0.1:{server.server_port}/mlflow/") == (3, 17, 2)
    assert asked == [("/mlflow/version", sent)]
