from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.data.corpus import load_corpus, subject_of, title_of, with_subject_pages
from trainables.errors import ConfigError, DataError

MakeFever = Callable[..., Path]


def test_selection_drops_pages_without_text_or_training_rows(make_fever: MakeFever) -> None:
    selection = load_corpus(str(make_fever())).select(5)
    titles = [document.title for document in selection.documents]
    assert titles == ["Ann", "Bob", "Caf\u00e9_Zoë"], "Cy has no text, Dee no training row"


def test_counts_tell_the_table_from_the_selection(make_fever: MakeFever) -> None:
    assert load_corpus(str(make_fever())).select(4).counts == {
        "n_full": 5,
        "n_top": 4,
        "n_trunc": 3,
        "train_rows": 8,
        "valid_rows": 11,
        "train_rows_selected": 5,
        "valid_rows_selected": 8,
        "claims_selected": 5,
    }


def test_smaller_selections_begin_larger_ones(make_fever: MakeFever) -> None:
    corpus = load_corpus(str(make_fever(articles=True)))
    largest = corpus.select(8).documents
    for number in range(1, 8):
        documents = corpus.select(number).documents
        assert documents == largest[: len(documents)]


def test_articles_follow_the_pages_and_need_no_training_rows(make_fever: MakeFever) -> None:
    selection = load_corpus(str(make_fever(articles=True))).select(8)
    assert [d.title for d in selection.documents] == ["Ann", "Bob", "Caf\u00e9_Zoë", "Moon", "Sun"]
    assert [d.source for d in selection.documents] == ["fever"] * 3 + ["wiki"] * 2
    assert (selection.counts["n_top"], selection.counts["n_trunc"]) == (8, 5)


def test_subjects_have_their_own_pages_first_whether_claims_point_to_them_or_not(make_fever: MakeFever) -> None:
    folder = make_fever(articles=True)
    more = {
        "Eve_-LRB-singer-RRB-": "Eve -LRB- born 1980 -RRB- .",
        "Star_Wars-COLON-_A_Film": "A film .",
        "Other": "No .",
    }
    lines = [json.dumps({"id": title, "text": text}) for title, text in more.items()]
    (folder / "fever" / "wiki-pages" / "wiki-003.jsonl").write_text("\n".join(lines))
    corpus = load_corpus(str(folder))
    subjects = ["Star Wars: A Film", "Nobody", "Sun", "Eve (singer)", "Bob", "Caf\u00e9 Zo\u00eb"]
    found = with_subject_pages(corpus, str(folder), subjects)
    selection = found.select(8, subjects)
    assert [d.title for d in selection.documents] == [
        "Bob", "Caf\u00e9_Zo\u00eb", "Sun", "Star_Wars-COLON-_A_Film", "Eve_-LRB-singer-RRB-", "Ann",
    ]  # fmt: skip
    assert [d.source for d in selection.documents[3:5]] == ["wiki", "wiki"] and not selection.documents[4].claims
    assert (
        with_subject_pages(corpus, str(folder), subjects, detokenize=True).subject_pages[1].text == "Eve (born 1980)."
    )
    assert corpus.select(8, subjects).documents[:3] == selection.documents[:3], "they need not be looked for"
    with pytest.raises(ConfigError, match="has 10 documents"):
        found.select(11)


def test_a_subject_and_its_page_have_one_spelling() -> None:
    for subject in ("Alan Bates (actor)", "Guns N' Roses", "Yahoo!", "AT&T", "Star Wars: A Film", "Cafe\u0301"):
        assert subject_of(title_of(subject)) == subject_of(subject)
    assert title_of("Alan Bates (actor)") == "Alan_Bates_-LRB-actor-RRB-"


def test_an_article_that_is_an_evidence_page_is_not_taken_twice(make_fever: MakeFever) -> None:
    corpus = load_corpus(str(make_fever(articles=True)))
    assert [article.title for article in corpus.articles] == ["Moon", "Void", "Sun"]


def test_too_few_documents_says_how_many_there_are(make_fever: MakeFever) -> None:
    corpus = load_corpus(str(make_fever(articles=True)))
    with pytest.raises(ConfigError, match=r"num_documents=9: the data has 8 documents \(5 FEVER pages, 3"):
        corpus.select(9)


def test_articles_alone_are_a_corpus(make_fever: MakeFever, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (make_fever(articles=True) / "wiki_docs.jsonl").rename(alone / "wiki_docs.jsonl")
    counts = load_corpus(str(alone)).select(4).counts
    assert (counts["n_full"], counts["n_trunc"], counts["valid_rows"]) == (0, 3, 0)


def test_sources_add_up(make_fever: MakeFever, tmp_path: Path) -> None:
    folder = make_fever(articles=True)
    (tmp_path / "more").mkdir()
    (folder / "wiki_docs.jsonl").rename(tmp_path / "more" / "wiki_docs.jsonl")
    together = load_corpus(f"{folder}, {tmp_path / 'more'}")
    assert together == load_corpus(str(make_fever(articles=True)))


def test_detokenize_touches_the_texts_of_fever_pages_only(make_fever: MakeFever) -> None:
    folder = str(make_fever(articles=True))
    plain, undone = load_corpus(folder), load_corpus(folder, detokenize=True)
    assert plain.pages[0].text == "Ann -LRB- born 1990 -RRB- sings ."
    assert undone.pages[0].text == "Ann (born 1990) sings."
    assert undone.pages[0].claims == plain.pages[0].claims
    assert undone.articles == plain.articles


def test_claims_without_page_files_say_what_was_looked_for(make_fever: MakeFever) -> None:
    folder = make_fever()
    (folder / "fever" / "wiki-pages").rename(folder / "fever" / "pages")
    with pytest.raises(DataError, match=r"looked for wiki-pages/\*\.jsonl"):
        load_corpus(str(folder))


def test_a_broken_article_line_is_named(make_fever: MakeFever) -> None:
    path = make_fever(articles=True) / "wiki_docs.jsonl"
    path.write_text('{"id": "Moon", "text": "x"}\n{"id": "Sun"}\n')
    with pytest.raises(DataError, match=r"wiki_docs\.jsonl:2: no field 'text'"):
        load_corpus(str(path.parent))


def test_the_sample_world_is_a_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    corpus = load_corpus("sample")
    selection = corpus.select(len(corpus.pages))
    assert selection.counts["n_trunc"] >= 10
    assert all(document.claims for document in selection.documents)


def test_importing_the_loaders_loads_no_heavy_library() -> None:
    code = (
        "import sys, trainables.data.corpus, trainables.data.counterfact, trainables.data.prompts\n"
        "heavy = {'torch', 'transformers', 'ray', 'pandas', 'pyarrow', 'datasets', 'sklearn'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
