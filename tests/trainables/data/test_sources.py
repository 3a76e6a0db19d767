from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from trainables.data.sources import data_key, resolve_sources
from trainables.errors import ConfigError, DataError

MakeFever = Callable[..., Path]


def test_files_are_recognised_in_the_folder_and_one_level_below(make_fever: MakeFever) -> None:
    folder = make_fever(articles=True)
    (above,) = resolve_sources(str(folder))
    (inside,) = resolve_sources(str(folder / "fever"))
    assert above.train == inside.train == folder / "fever" / "train.jsonl"
    assert [path.name for path in above.wiki_pages] == ["wiki-001.jsonl", "wiki-002.jsonl"]
    assert above.wiki_pages == inside.wiki_pages
    assert above.wiki_docs and not inside.wiki_docs


def test_a_folder_of_page_files_is_a_source(make_fever: MakeFever) -> None:
    (source,) = resolve_sources(str(make_fever() / "fever" / "wiki-pages"))
    assert len(source.wiki_pages) == 2 and not source.has_claims


def test_the_key_follows_content_and_not_place(make_fever: MakeFever, tmp_path: Path) -> None:
    folder = make_fever()
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert data_key(str(folder)) == data_key(str(copy)) == data_key(str(folder / "fever"))
    with open(copy / "fever" / "train.jsonl", "a") as file:
        file.write("\n")
    assert data_key(str(folder)) != data_key(str(copy))


def test_the_key_names_every_source(make_fever: MakeFever) -> None:
    from trainables.data.sample.facts import SAMPLE_VERSION

    folder = make_fever()
    sample, fever, files = data_key(f"sample, fever,{folder}").split(",")
    assert (sample, fever) == (f"sample@v{SAMPLE_VERSION}", data_key("fever"))
    assert files.startswith("files@") and str(folder) not in files


@pytest.mark.parametrize("data", ["", "sample,", "sample,,hub"])
def test_an_empty_source_is_refused(data: str) -> None:
    with pytest.raises(ConfigError, match="an empty source"):
        resolve_sources(data)


def test_claims_from_two_sources_are_refused(make_fever: MakeFever) -> None:
    for named in ("fever", "hub", "hub:someone/else"):
        with pytest.raises(ConfigError, match=f"FEVER claims in {named} and "):
            resolve_sources(f"{named},{make_fever()}")  # said before anything is downloaded


def test_two_files_for_the_same_thing_are_refused(make_fever: MakeFever) -> None:
    folder = make_fever()
    (folder / "fever" / "train.csv").touch()
    with pytest.raises(ConfigError, match=r"train\.jsonl and .*train\.csv serve the same purpose"):
        resolve_sources(str(folder))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        resolve_sources(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="did you mean 'sample'"):
        resolve_sources("sampel")


def test_a_folder_without_data_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for train with .* counterfact, documents and questions "):
        resolve_sources(str(tmp_path))


@pytest.mark.parametrize(("kept", "missing"), [("train", "paper_dev"), ("paper_dev", "train")])
def test_one_half_of_the_claims_is_refused(make_fever: MakeFever, kept: str, missing: str) -> None:
    folder = make_fever()
    (folder / "fever" / f"{missing}.jsonl").unlink()
    with pytest.raises(DataError, match=rf"{kept}\.jsonl has no {missing} beside it"):
        resolve_sources(str(folder))
