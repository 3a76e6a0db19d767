from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainables.data import pages
from trainables.data.pages import load_pages, read_pages
from trainables.data.source_files import SourceFiles
from trainables.data.titles import normal_title
from trainables.errors import DataError


def write_pages(path: Path, texts: dict[str, str], **dump: bool) -> Path:
    lines = [json.dumps({"id": title, "text": text, "lines": ""}, **dump) for title, text in texts.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ascii_", [True, False])
def test_titles_are_found_however_they_are_escaped(tmp_path: Path, ascii_: bool) -> None:
    texts = {'The_"Quote"': "a", 'Odd", "title': "b", 'End",': "c", "Back\\slash": "d", "Zoë": "e", "": ""}
    path = write_pages(tmp_path / "wiki-001.jsonl", texts, ensure_ascii=ascii_)
    wanted = {normal_title(title): text for title, text in texts.items() if title}
    assert read_pages([path], wanted.keys()) == wanted


def test_another_order_of_fields_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "wiki-001.jsonl"
    path.write_text('{"text": "a", "id": "A"}\n{"id":"B","text":"b"}\n')
    assert read_pages([path], {"A", "B", "C"}) == {"A": "a", "B": "b"}


def test_two_pages_of_one_name_are_taken_for_one_only_where_they_are_alike(tmp_path: Path) -> None:
    path = tmp_path / "wiki-001.jsonl"
    path.write_text('{"id": "A_b", "text": "a"}\n{"id": "A b", "text": "a"}\n')
    assert read_pages([path], {"A_b"}) == {"A_b": "a"}
    path.write_text('{"id": "A_b", "text": "a"}\n{"id": "B", "text": "x"}\n{"id": "A b", "text": "other"}\n')
    with pytest.raises(DataError, match=r"001\.jsonl:3: page 'A_b' has another text at .*001\.jsonl:1"):
        read_pages([path], {"A_b"})


def test_a_wanted_page_without_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "wiki-001.jsonl"
    path.write_text('{"id": "Unwanted", "lines": ""}\n{"id": "A", "lines": ""}\n')
    with pytest.raises(DataError, match=r"wiki-001\.jsonl:2: no field 'text'"):
        read_pages([path], {"A"})


def test_pages_of_a_large_set_are_kept_until_the_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGE_BYTES", 1)
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "cache"))
    path = write_pages(tmp_path / "wiki-001.jsonl", {"A": "a", "Ö": "o"})
    source = SourceFiles("data", wiki_pages=(path,))
    assert load_pages([source], {"A", "Ö"}) == {"A": "a", "Ö": "o"}
    with monkeypatch.context() as patch:
        patch.setattr(pages, "read_pages", lambda *_: pytest.fail("read again"))
        assert load_pages([source], {"A", "Ö"}) == {"A": "a", "Ö": "o"}
    write_pages(path, {"A": "changed"})
    assert load_pages([source], {"A", "Ö"}) == {"A": "changed"}
