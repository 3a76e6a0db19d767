"""Facts about real FEVER data; SWEEP_REAL_DATA names the folder that holds it."""

from __future__ import annotations

import os
import time

import pytest

from trainables.data.corpus import Corpus, load_corpus

pytestmark = pytest.mark.real_data

# Validation rows tell the release: the official paper_dev, and the excerpt this project was built against.
PAGES_BY_VALID_ROWS = {18_999: 1_460, 4_521: 249}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    data = os.environ.get("SWEEP_REAL_DATA")
    if not data:
        pytest.skip("SWEEP_REAL_DATA does not name a folder with FEVER's files")
    return load_corpus(data)


def test_evidence_pages_are_as_many_as_known(corpus: Corpus) -> None:
    if corpus.valid_rows not in PAGES_BY_VALID_ROWS:
        pytest.skip(f"paper_dev with {corpus.valid_rows} rows is none of the known releases")
    assert len(corpus.pages) == PAGES_BY_VALID_ROWS[corpus.valid_rows]


def test_the_top_hundred_pages_hardly_shrink(corpus: Corpus) -> None:
    counts = corpus.select(100).counts
    assert counts["n_top"] == 100
    assert counts["n_trunc"] >= 90, "the notes report 99"


def test_pages_are_ranked_by_rows(corpus: Corpus) -> None:
    rows = [page.valid_rows for page in corpus.pages]
    assert rows == sorted(rows, reverse=True)


def test_detokenised_pages_keep_no_bracket_tokens(corpus: Corpus) -> None:
    undone = load_corpus(os.environ["SWEEP_REAL_DATA"], detokenize=True)
    assert not any("-LRB-" in page.text or " ," in page.text for page in undone.pages)


def test_loading_an_excerpt_takes_less_than_a_second(corpus: Corpus) -> None:
    if corpus.valid_rows > 10_000:
        pytest.skip("the full set takes longer the first time")
    start_s = time.perf_counter()
    load_corpus(os.environ["SWEEP_REAL_DATA"])
    assert time.perf_counter() - start_s < 1.0
