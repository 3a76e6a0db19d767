"""What a person sees: the printed link, the saved views, comparisons and the sweep's page, in a real browser."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from sweep.records.record import Origin, begin_record, complete_record
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import resolve_tracking
from sweep.tracking.publish import Extras, publish
from sweep.tracking.run_content import ChangedAnswer, ComparisonResult
from sweep.tracking.sweep_run import Picture
from trainables.lm.card import model_card
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.making import make_spec

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]
ARGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE_MS = 120_000
LAYERS, ALPHAS, ALLOCATIONS = (
    (7, 15, 23, 31),
    (0.2, 0.4, 0.8, 1.0, 2.0),
    ("random", "partitioned", "simset1", "simset2"),
)
REPORT = b"<html><body><h1>The report itself</h1></body></html>"


def png(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "#0072b2").save(out, "png")
    return out.getvalue()


def record(stage: str, nll: float, accuracy: float, **fields) -> dict:
    spec = make_spec({"num_documents": 100, "memory_dim": 4096, "epochs": 3, **fields})
    card = model_card(spec.model)
    spec = canonical(spec, card)
    result = {
        "status": "done",
        "metrics": {"memory/nll": nll, "memory/nll_before": 3.0, "fever/accuracy": accuracy, "memory/leakage": 0.5},
        "curves": {"train/nll": [[1, 3.0], [2, 2.0], [3, nll]], "fever/accuracy": [[3, accuracy]]},
        "timings": {"train_s": 3.0},
        "flops": 1e12,
        "started_at": "2026-01-02T03:04:05.000+00:00",
        "finished_at": "2026-01-02T03:05:05.000+00:00",
    }
    return complete_record(
        begin_record(spec, identity(spec, card, "sample@v1"), card, Origin("study", stage, "p")), result
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[SweepStorage]:
    """A study of two models: layers, then alpha x allocation; published with comparisons, a picture and a report."""
    storage = SweepStorage(str(tmp_path_factory.mktemp("browser") / "out"))
    Path(storage.uri).mkdir()
    shutil.copy(empty_database, Path(storage.uri) / "mlflow.db")
    models = ("llama2-7b", "pythia-6.9b")
    stages: dict[str, list[dict]] = {"baseline": [], "layer_selection": [], "inductive": []}
    stages["baseline"] = [record("baseline", 3.0, 0.3, model=model, method="pretrained") for model in models]
    for i, (model, layer) in enumerate(product(models, LAYERS)):
        stages["layer_selection"].append(
            record("layer_selection", 2.0 - layer / 40, 0.5 + i / 100, model=model, layer=layer, alpha=0.0)
        )
    for i, (model, alpha, allocation) in enumerate(product(models, ALPHAS, ALLOCATIONS)):
        fields = {"model": model, "layer": 23, "alpha": alpha, "allocation": allocation}
        stages["inductive"].append(record("inductive", 1.2 + i / 100, 0.4 + i / 200, **fields))
    for i, own in enumerate(each for stage in stages.values() for each in stage):
        storage.write_record(own, f"study/trains/lm_x/layer_0/1/none_0/alpha_{i}/{own['id']}")
    plan = [{"name": name, "points": len(own), "ids": [r["id"] for r in own]} for name, own in stages.items()]
    plan[2]["ids"] += [r["id"] for r in stages["layer_selection"] if r["identity"]["layer"] == 23]  # alpha 0
    storage.write_json("study/plan.json", {"space": "study", "title": "A study of two models", "stages": plan})
    storage.write("study/report/report.html", REPORT)
    against = {f"vs_pretrained/accuracy{end}": 0.1 for end in ("", "_low", "_high")}
    changed = (ChangedAnswer("Ada met Bo.", "refutes", "supports", "refutes", True),)
    findings = {
        r["id"]: ComparisonResult(against, {"verdict": "better"}, "1 newly right.", changed)
        for own in stages.values()
        for r in own
    }
    tables = dict.fromkeys(findings, lambda: b"claim,truth\nAda met Bo.,refutes\n")
    extras = Extras(findings, lambda sweep: [Picture("main", "The main figure", png(40, 30))], tables)
    tracking = resolve_tracking(storage, f"sqlite:///{storage.uri}/mlflow.db", "memory-sweep")
    publish(storage, ["study"], tracking, storage.index(), extras=extras)
    yield storage


@pytest.fixture(scope="module")
def links(storage: SweepStorage) -> Iterator[dict[str, str]]:
    """What `python -m sweep.ui` prints: addresses by the title of the view."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-u", "-m", "sweep.ui", f"{storage.uri}/study", "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    found = {}
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("The server runs"):
            break
        title, _, address = line.strip().partition(": http")
        found[title] = f"http{address}"
    yield found
    server.send_signal(signal.SIGINT)
    assert server.wait(60) == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright from the dev extra")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=ARGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser) -> Iterator[object]:
    context = browser.new_context(viewport={"width": 2400, "height": 1200})
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    yield opened
    context.close()


def expect(locator):
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE_MS)
    return expect(locator)


def followed(page, name: str):
    """Follow a link of a description: it opens a page of its own."""
    with page.context.expect_page() as opened:
        page.get_by_role("link", name=name, exact=True).click()
    return opened.value


def test_the_printed_link_opens_the_sweeps_table_with_names_and_values(page, links) -> None:
    page.goto(links["study: all trials"])
    expect(page.get_by_test_id("saved-views-trigger")).to_contain_text("study: all trials")
    expect(page.get_by_text(re.compile(r"^\s*50\s*matching runs"))).to_be_visible()
    best = page.locator(".ag-pinned-left-cols-container .ag-row[row-index='0']")
    expect(best).to_contain_text("a0.2")  # the lowest NLL first
    row = page.locator(".ag-center-cols-container .ag-row[row-index='0']")
    for column, value in (
        ("params.`alpha`", "0.2"),
        ("params.`memory_allocation`", "random"),
        ("params.`hook_layer`", "23"),
        ("tags.`verdict`", "better"),
        ("metrics.`memory/nll`", "1.2"),
        ("metrics.`fever/accuracy`", "0.4"),
    ):
        expect(row.locator(f'[col-id="{column}"]')).to_have_text(value)


def test_charts_are_bars_in_the_order_of_the_questions(page, links) -> None:
    page.goto(links["study: all trials"].replace("TABLE", "CHART"))
    headers = page.get_by_test_id("experiment-view-compare-runs-section-header")
    expect(headers).to_have_count(4)
    assert [re.match(r"\w+", text.strip())[0] for text in headers.all_inner_texts()] == [
        "Answer", "Memory", "Training", "Cost"
    ]  # fmt: skip
    card = page.get_by_test_id("experiment-view-compare-runs-card").filter(has_text="fever/accuracy").first
    expect(card.locator(".barlayer .point").nth(19)).to_be_attached()  # the first 20 runs
    assert card.locator(".scatterlayer .point").count() == 0


@pytest.mark.parametrize(
    ("title", "runs"),
    [("layers", 8), ("alpha x allocation", 42), ("against pretrained", 50), ("failed and diverged", 0)],
)
def test_each_saved_view_opens_with_its_runs(page, links, title: str, runs: int) -> None:
    page.goto(links[f"study: {title}"])
    expect(page.get_by_test_id("saved-views-trigger")).to_contain_text(f"study: {title}")
    found = re.compile(rf"^\s*{runs}\s*matching runs?" if runs else "No runs|matching runs")
    expect(page.get_by_text(found).first).to_be_visible()
    if title == "alpha x allocation":
        expect(page.get_by_text("Parallel Coordinates").first).to_be_visible()
        assert page.get_by_test_id("experiment-view-compare-runs-card").count() >= 5


def test_all_views_are_in_the_menu(page, links) -> None:
    page.goto(links["study: all trials"])
    page.get_by_test_id("saved-views-trigger").click()
    for title in links:
        expect(page.get_by_role("menu").get_by_text(title, exact=True)).to_be_visible()


@pytest.mark.parametrize("number", [2, 50])
def test_runs_are_compared_side_by_side(page, links, number: int) -> None:
    page.goto(links["study: all trials"])
    expect(page.locator(".ag-row[row-index='1']").first).to_be_visible()
    if number == 2:
        for index in (0, 1):
            page.locator(f".ag-row[row-index='{index}'] .ag-selection-checkbox input").check()
    else:
        page.locator(".ag-header input[type=checkbox]").first.check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text(f"Comparing {number} Runs from 1 Experiment")).to_be_visible()
    expect(page.get_by_text("a0.2").first).to_be_visible()


def test_a_trials_page_shows_answers_that_changed_and_the_file_of_all(page, links) -> None:
    page.goto(links["study: all trials"])
    page.locator(".ag-pinned-left-cols-container .ag-row[row-index='0'] a").first.click()
    page.get_by_text("Show more").click()
    cells = page.get_by_role("row").filter(has_text="Ada met Bo.").get_by_role("cell")
    expect(cells).to_have_text(["+", "Ada met Bo.", "refutes", "supports", "refutes"])
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("changed_answers.csv").first.click()
    expect(page.get_by_text("Previewing the first 1 rows")).to_be_visible()


def test_the_sweeps_page_shows_results_figure_and_report(page, links) -> None:
    page.goto(links["study: all trials"])
    page.locator(".ag-pinned-left-cols-container .ag-row[row-index='0'] a").first.click()
    page.get_by_text("Show more").click()
    page = followed(page, "the sweep study")  # from a trial's description to the sweep's
    expect(page.get_by_role("heading", name="A study of two models")).to_be_visible()
    page.get_by_text("Show more").click()
    expect(page.get_by_text("50 trials recorded")).to_be_visible()
    expect(page.get_by_text("against the pretrained model: 50 better")).to_be_visible()
    picture = page.locator("img[src*='get-artifact']")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") == 40
    page = followed(page, "report")
    expect(page.frame_locator("iframe").get_by_text("The report itself")).to_be_visible()
