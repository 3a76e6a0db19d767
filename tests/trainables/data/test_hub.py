"""FEVER from the hub: the repository's files as they are listed, its missing pages from the official archive."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub import constants

from tests.stand_ins import Hub, OfficialSite, Repo, Rule
from trainables.data import online
from trainables.data.assumptions import check_hub
from trainables.data.corpus import load_corpus
from trainables.data.fever import normal_title, read_rows
from trainables.data.hub import hub_files
from trainables.data.prepare import prepare_folder
from trainables.data.sources import data_key, pin_sources
from trainables.errors import ConfigError, DataError

SCRIPT = b"import datasets\n\nclass Fever(datasets.GeneratorBasedBuilder):\n    pass\n"
CLAIM_TYPES = pyarrow.schema(
    [
        ("id", pyarrow.int32()),
        ("label", pyarrow.string()),
        ("claim", pyarrow.string()),
        ("evidence_annotation_id", pyarrow.int32()),
        ("evidence_id", pyarrow.int32()),
        ("evidence_wiki_url", pyarrow.string()),
        ("evidence_sentence_id", pyarrow.int32()),
    ]
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(online, "_sleep", pauses.append)
    return pauses


def parquet(rows: list[dict[str, Any]], schema: Any = None) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), out)
    return out.getvalue()


def claims(path: Path) -> list[dict[str, Any]]:
    """The rows of a claims file as the Hub's conversion has them: -1 and "" where there is no evidence."""
    return [
        {
            "id": int(row.claim_id),
            "label": row.label,
            "claim": row.text,
            "evidence_annotation_id": 1,
            "evidence_id": -1 if row.page is None else 2,
            "evidence_wiki_url": row.page or "",
            "evidence_sentence_id": -1,
        }
        for row in read_rows(path)
    ]


def pages_of(sample_data: Path) -> list[dict[str, str]]:
    return [json.loads(line) for path in (sample_data / "wiki-pages").iterdir() for line in path.open()]


def converted(sample_data: Path, left_out: int = 0) -> dict[str, bytes]:
    """The files of `refs/convert/parquet`, the pages in three parts, some evidence pages left out."""
    fever = sample_data / "fever"
    train = claims(fever / "train.jsonl")
    wanted = {row.page for row in read_rows(fever / "paper_dev.jsonl") if row.page}
    there = pages_of(sample_data)
    gone = set(sorted(wanted & {normal_title(page["id"]) for page in there if page["text"]})[:left_out])
    pages = [page for page in there if normal_title(page["id"]) not in gone]
    thirds = [pages[i::3] for i in range(3)]
    return {
        "v1.0/train/0000.parquet": parquet(train[:100], CLAIM_TYPES),
        "v1.0/train/0001.parquet": parquet(train[100:], CLAIM_TYPES),
        "v1.0/paper_dev/0000.parquet": parquet(claims(fever / "paper_dev.jsonl"), CLAIM_TYPES),
        "v1.0/labelled_dev/0000.parquet": parquet(train[:5], CLAIM_TYPES),
        "v2.0/validation/0000.parquet": parquet(train[:5], CLAIM_TYPES),
        **{f"wiki_pages/partial-wikipedia_pages/{i:04d}.parquet": parquet(part) for i, part in enumerate(thirds)},
    }


@pytest.fixture
def fever_repo(hub: Hub, sample_data: Path) -> Callable[..., Repo]:
    """Put `fever/fever` on the Hub: a script on main, the conversion on its branch."""

    def make(left_out: int = 0) -> Repo:
        repo = hub.add("datasets", "fever/fever")
        repo.commit({"README.md": b"# FEVER\n", "fever.py": SCRIPT, "dataset_infos.json": b"{}"})
        repo.commit(converted(sample_data, left_out), "refs/convert/parquet")
        return repo

    return make


def test_the_hub_gives_the_same_corpus_as_files(
    hub: Hub, official: OfficialSite, fever_repo: Callable[..., Repo], sample_data: Path
) -> None:
    fever_repo()
    assert load_corpus("hub") == load_corpus(str(sample_data))
    asked = len(hub.requests)
    hub_files.cache_clear()
    load_corpus(pin_sources("hub"))
    assert not official.requests, "the repository has all pages"
    assert len(hub.requests) - asked <= 4, "the branches are asked for, no file is"
    read = set(hub.asked("GET /cdn|GET /api/resolve"))
    assert len(read) == 6, "splits that nobody asks about are not downloaded"


def test_pages_that_the_hub_lacks_come_from_the_official_archive(
    hub: Hub,
    official: OfficialSite,
    fever_repo: Callable[..., Repo],
    sample_data: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fever_repo(left_out=7)
    corpus = load_corpus("hub")
    assert corpus == load_corpus(str(sample_data))
    total = len(corpus.pages)
    assert f"hub: {total - 7} of {total} evidence pages have a text in fever/fever" in capfd.readouterr().err
    assert official.asked("wiki-pages.zip")


def test_without_the_archive_missing_pages_stop_the_run_unless_allowed(
    hub: Hub, official: OfficialSite, fever_repo: Callable[..., Repo]
) -> None:
    fever_repo(left_out=7)
    official.rules.append(Rule("zip", status=403))
    with pytest.raises(ConfigError, match=r"\d+ of \d+ evidence pages .*--set allow_missing_pages=true") as caught:
        load_corpus("hub")
    assert "\n" not in str(caught.value)
    corpus = load_corpus("hub", allow_missing_pages=True)
    assert sum(not page.text for page in corpus.pages) >= 7


def test_a_branch_that_moves_is_another_id_and_a_commit_stays(
    hub: Hub, official: OfficialSite, fever_repo: Callable[..., Repo], sample_data: Path
) -> None:
    repo = fever_repo()
    key, pinned, corpus = data_key("hub"), pin_sources("hub"), load_corpus("hub")
    repo.commit(converted(sample_data, left_out=3), "refs/convert/parquet")
    hub_files.cache_clear()
    assert data_key("hub") != key and pin_sources("hub") != pinned
    assert data_key(pinned) == key and load_corpus(pinned) == corpus
    repo.commit({**converted(sample_data), "more.txt": b"x"}, "refs/convert/parquet")
    hub_files.cache_clear()
    assert data_key("hub") == key and pin_sources("hub") != pinned, "the key is made of the content"


@pytest.mark.parametrize("form", ["split-names", "json-lines"])
def test_another_copy_may_be_named_in_other_layouts(
    hub: Hub, official: OfficialSite, sample_data: Path, form: str
) -> None:
    fever = sample_data / "fever"
    if form == "split-names":
        files = {
            "v1.0/train-00000-of-00001.parquet": parquet(claims(fever / "train.jsonl"), CLAIM_TYPES),
            "v1.0/paper_dev-00000-of-00001.parquet": parquet(claims(fever / "paper_dev.jsonl"), CLAIM_TYPES),
            "wiki_pages/train-00000-of-00001.parquet": parquet(pages_of(sample_data)),
        }
    else:
        files = {f"data/{name}": (fever / name).read_bytes() for name in ("train.jsonl", "paper_dev.jsonl")}
        files |= {f"wiki-pages/{path.name}": path.read_bytes() for path in (sample_data / "wiki-pages").iterdir()}
    hub.add("datasets", "someone/fever-copy").commit(files)
    assert load_corpus("hub:someone/fever-copy") == load_corpus(str(sample_data))


def test_what_is_in_another_repository_is_listed(hub: Hub) -> None:
    hub.add("datasets", "someone/else").commit({"data/train.csv": b"a,b\n"})
    with pytest.raises(DataError, match="hub:someone/else: it holds no train.*main: data/train.csv"):
        data_key("hub:someone/else")
    with pytest.raises(ConfigError, match="the Hub has no repository no/such"):
        data_key("hub:no/such")
    with pytest.raises(ConfigError, match="no such revision"):
        data_key("hub:someone/else@v9")


def test_a_prepared_folder_has_the_hubs_key(
    hub: Hub, official: OfficialSite, fever_repo: Callable[..., Repo], tmp_path: Path
) -> None:
    fever_repo(left_out=7)
    prepare_folder(["hub", "counterfact"], tmp_path / "made")
    assert data_key(str(tmp_path / "made")) == data_key("hub,counterfact")
    with pytest.raises(ConfigError, match="both hold"):
        prepare_folder(["hub", "fever"], tmp_path / "twice")


def test_a_busy_hub_is_waited_for_and_it_is_said(
    hub: Hub,
    official: OfficialSite,
    fever_repo: Callable[..., Repo],
    no_waiting: list[float],
    capfd: pytest.CaptureFixture[str],
) -> None:
    fever_repo()
    hub.rules += [Rule("tree", times=1, status=429, headers={"Retry-After": "5"}), Rule("cdn", times=1, status=503)]
    load_corpus("hub")
    err = capfd.readouterr().err
    assert no_waiting[0] == 5.0 and len(no_waiting) == 2
    assert err.count("trying again in") == 2 and "Traceback" not in err


def test_a_hub_that_stays_busy_ends_in_one_line_after_two_minutes(hub: Hub, no_waiting: list[float]) -> None:
    hub.add("datasets", "fever/fever")
    hub.rules.append(Rule("/api/", status=503))
    with pytest.raises(ConfigError, match="fever/fever: the server answers 503; given up"):
        data_key("hub")
    assert 60 < sum(no_waiting) <= 120


def test_no_network_is_one_line_without_warnings(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(online.Unreachable, match="127.0.0.1:9 cannot be reached"):
        data_key("hub")
    assert time.monotonic() - start < 10 and not caplog.records and not capfd.readouterr().err


def test_without_a_network_the_data_are_as_they_were_last_seen(
    hub: Hub,
    official: OfficialSite,
    fever_repo: Callable[..., Repo],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fever_repo()
    corpus = load_corpus("hub")
    hub_files.cache_clear()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load_corpus("hub") == corpus
    assert "as it was last seen" in capfd.readouterr().err


def test_offline_by_setting_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        data_key("hub")


def test_check_compares_the_layout_with_the_one_assumed(
    hub: Hub, fever_repo: Callable[..., Repo], sample_data: Path
) -> None:
    repo = fever_repo()
    found = {finding.what: finding for finding in check_hub("hub")}
    assert [f.right for f in found.values()] == [None, True, True, True]
    assert "0000.parquet … wiki_pages/partial-wikipedia_pages/0002.parquet (3 files)" in found["hub: pages"].found
    files = {name.replace("partial-", ""): content for name, content in converted(sample_data).items()}
    repo.commit(files, "refs/convert/parquet")
    hub_files.cache_clear()
    assert [finding.right for finding in check_hub("hub")] == [None, True, True, False]
