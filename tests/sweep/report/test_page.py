"""The page in a real browser: what a reader does with it, without a network."""

from __future__ import annotations

import shutil

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.report.build import Options, build_report, written
from sweep.report.study import load_study

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]
ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture
def page(fake):
    """The report of nine trials, one diverged, in a narrow window; any error of its script fails the test."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright from the dev extra")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    fields = {"num_documents": 10, "metrics": {"memory/nll": 1.5}}
    fake.add("s", "all", method="pretrained", num_documents=10, accuracy=0.3)
    first = ""
    for layer in range(7):
        curves = {"train/nll": [[1, 3.0], [2, 2.0 - layer / 10]]}
        own = fake.add("s", "all", layer=layer, accuracy=0.3 + 0.08 * layer, curves=curves, **fields)
        first = first or own
    told = {"added_by": "ada@desk", "added_at": "2026-01-02T03:04", "added_as": "clone", "cloned_from": first}
    fake.add("s", "all", layer=7, status="diverged", labels=told)
    fake.write_plans()
    study = load_study(SweepStorage(str(fake.root)), ["s"])
    report = build_report(study, Options(resamples=200))
    with written(study, report) as (_, where), playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=path, args=ARGS)
        opened = launched.new_page(viewport={"width": 800, "height": 900}, offline=True)
        opened.set_default_timeout(60_000)
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.goto(f"file://{where}")
        opened.wait_for_selector("body[data-ready=yes]")
        yield opened
        launched.close()
        assert errors == []


def ids(page) -> list[str]:
    return page.eval_on_selector_all(".trials tbody a", "links => links.map(link => link.hash.slice(7))")


def test_the_table_filters_sorts_and_leads_to_a_trial_and_back(page, fake):
    assert len(ids(page)) == 9
    page.fill("input.filter", "accuracy>0.5 layer<6")
    trials = load_study(SweepStorage(str(fake.root)), ["s"]).trials
    wanted = {t.id for t in trials if (t.metric("fever/accuracy") or 0) > 0.5 and (t.get("layer") or 9) < 6}
    page.wait_for_function(f"document.querySelectorAll('.trials tbody tr').length === {len(wanted)}")
    assert set(ids(page)) == wanted and 1 < len(wanted) < 6
    page.fill("input.filter", "")
    page.wait_for_function("document.querySelectorAll('.trials tbody tr').length === 9")
    page.select_option("select[aria-label=status]", label="diverged")
    assert len(ids(page)) == 1
    page.click(".trials tbody a")
    page.click("#one-trial >> text=the trial it is a clone of")
    page.wait_for_function("document.querySelector('#one-trial').innerText.includes('layer 0 of')")
    page.click("#one-trial >> text=all trials")
    page.select_option("select[aria-label=status]", label="status: all")
    for _ in range(2):
        page.click(".trials thead th:has-text('accuracy')")
    best = ids(page)[0]
    page.click(".trials tbody a >> nth=0")
    text = page.inner_text("#one-trial")
    assert f"Trial {best}" in text and "layer 6 of" in text and "newly right" in text and "better" in text
    assert page.is_hidden("main") and page.locator("#one-trial svg").count() == 1
    page.click("#one-trial >> text=all trials")
    assert page.is_visible("main") and page.is_hidden("#one-trial")


def test_the_verdict_stays_in_view_and_nothing_makes_the_page_wider_than_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth") == 800
    for selector in (".trials .fixed1", ".judged td:last-child"):
        cell = page.locator(selector).last
        cell.scroll_into_view_if_needed()
        for left in (0, 10_000):
            cell.evaluate("(cell, left) => { cell.closest('.wide').scrollLeft = left; }", left)
            box = cell.bounding_box()
            assert 0 <= box["x"] and box["x"] + box["width"] <= 800, (selector, left)


def test_printed_tables_sort_by_number_and_what_is_missing_stays_last(page):
    head = page.locator(".judged thead th", has_text="difference").first
    place = head.evaluate("th => th.cellIndex")
    for direction in (1, -1):
        head.click()
        cells = f".judged tbody tr td:nth-child({place + 1})"
        shown = page.eval_on_selector_all(cells, "cells => cells.map(c => Number(c.dataset.key))")
        assert shown == sorted(shown, reverse=direction < 0) and len(set(shown)) > 3


def test_on_paper_all_of_a_table_is_there_and_nothing_to_click(page):
    page.emulate_media(media="print")
    assert page.is_hidden(".filters") and page.is_hidden("nav")
    assert page.eval_on_selector(".trials", "table => getComputedStyle(table.parentElement).overflowX") == "visible"
    page.set_viewport_size({"width": 1047, "height": 718})  # A4 on its side, less the margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 1047


def test_a_trial_that_is_not_there_is_said(page):
    page.evaluate("location.hash = '#trial-0000'")
    page.wait_for_function("document.querySelector('#one-trial').textContent.includes('No trial 0000')")
    page.go_back()
    page.wait_for_selector("main", state="visible")
