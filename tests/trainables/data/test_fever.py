from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.data.corpus import load_corpus
from trainables.data.documents import Claim
from trainables.data.fever import group_by_page, load_splits, read_rows
from trainables.data.sources import resolve_sources
from trainables.errors import ConfigError, DataError

MakeFever = Callable[..., Path]


def splits(folder: Path) -> Any:
    return load_splits(resolve_sources(str(folder))[0])


def test_rows_are_counted_per_evidence_annotation_on_that_page(make_fever: MakeFever) -> None:
    train, valid = splits(make_fever())
    assert valid.pages["Ann"] == (
        Claim("1", "Ann sings.", "SUPPORTS", rows=3),
        Claim("2", "Ann is Bob.", "REFUTES", rows=1),
    )
    assert valid.pages["Bob"][0] == Claim("2", "Ann is Bob.", "REFUTES", rows=1)
    assert train.pages["Ann"][1].rows == 2


def test_rows_without_a_page_count_in_the_total_only(make_fever: MakeFever) -> None:
    train, valid = splits(make_fever())
    assert (train.rows, valid.rows) == (8, 11)
    texts = [claim.text for claims in valid.pages.values() for claim in claims]
    assert "Ann eats." not in texts


def test_training_claims_are_kept_for_validation_pages_only(make_fever: MakeFever) -> None:
    train, valid = splits(make_fever())
    assert "Eve" not in train.pages
    assert set(train.pages) <= set(valid.pages)


def test_titles_that_differ_in_unicode_form_are_one_page(make_fever: MakeFever) -> None:
    train, valid = splits(make_fever())
    assert "Caf\u00e9_Zoë" in valid.pages
    assert "Caf\u00e9_Zoë" in train.pages


def test_ranking_is_by_rows_then_title(make_fever: MakeFever) -> None:
    _, valid = splits(make_fever())
    assert valid.ranking() == ["Ann", "Bob", "Caf\u00e9_Zoë", "Cy", "Dee"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_table_form_gives_the_same_claims_as_the_official_layout(make_fever: MakeFever, form: str) -> None:
    assert splits(make_fever(form, name=form)) == splits(make_fever("official", name="official"))


class FakeHub:
    """Stands in for `datasets.load_dataset`; the repository itself may refuse to load, as scripts do."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]], has_script: bool) -> None:
        self.tables, self.has_script = tables, has_script
        self.calls: list[str] = []

    def __call__(self, path: str, name: str | None = None, *, split: str, data_files: Any = None) -> Any:
        from datasets import Dataset

        self.calls.append(path)
        if path == "parquet":
            assert data_files[split].startswith("hf://datasets/fever/fever@refs/convert/parquet/")
        elif self.has_script:
            raise RuntimeError("Dataset scripts are no longer supported, but found fever.py")
        return Dataset.from_list(self.tables[split])


@pytest.mark.parametrize("has_script", [False, True])
def test_hub_gives_the_same_corpus_as_files(
    make_fever: MakeFever,
    hub_table: Callable[..., Any],
    train_records: Any,
    valid_records: Any,
    page_texts: dict[str, str],
    has_script: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pages = [{"id": title, "text": text, "lines": ""} for title, text in page_texts.items()]
    hub = FakeHub(
        {"train": hub_table(train_records), "paper_dev": hub_table(valid_records), "wikipedia_pages": pages},
        has_script,
    )
    monkeypatch.setattr("datasets.load_dataset", hub)
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "cache"))
    assert load_corpus("hub") == load_corpus(str(make_fever()))
    assert len(hub.calls) == (6 if has_script else 3)
    load_corpus("hub")
    assert len(hub.calls) == (10 if has_script else 5), "page texts come from the cache"


def test_without_a_network_the_hub_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'fever/fever' on the Hub\nmore")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(ConfigError, match=r"'hub' needs fever/fever .*Couldn't reach.*; go online") as caught:
        load_corpus("hub")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a list where a JSON object is needed"),
        ('{"id": 1, "label": "SUPPORTS"}', "no field 'claim'"),
        ('{"id": 1, "label": "SUPPORTS", "claim": null}', "field 'claim' is None, not text"),
        ('{"id": 1, "label": "TRUE", "claim": "x"}', "label 'TRUE' must be one of"),
        ('{"id": 1, "label": "SUPPORTS", "claim": "x"}', "no field 'evidence_wiki_url'"),
        ('{"id": 1, "label": "SUPPORTS", "claim": "x", "evidence": [[1]]}', "'evidence' must be lists"),
        ('{"id": 1, "label": "SUPPORTS", "claim": "x", "evidence": [[[1, 2, 3, 4]]]}', "page 3 is not text"),
        ('{"id": 9, "label": "REFUTES", "claim": "x", "evidence": [[[1, 2, "A", 4]]]}', "id 9 names another"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    good = '{"id": 9, "label": "SUPPORTS", "claim": "x", "evidence": [[[1, 2, "A", 4]]]}'
    path.write_text(f"{good}\n\n{line}\n")
    with pytest.raises(DataError, match=message) as caught:
        group_by_page(read_rows(path))
    assert str(caught.value).startswith(f"{path}:3: ")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_without_a_needed_column_is_named(tmp_path: Path, suffix: str) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    path = tmp_path / f"train{suffix}"
    table = pyarrow.Table.from_pylist([{"id": 1, "label": "SUPPORTS"}])
    if suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    with pytest.raises(DataError, match=rf"train\{suffix}:\d: no field 'claim'"):
        list(read_rows(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_another_format_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_bytes(b"\xff\xfe\x00 nothing of the kind")
    with pytest.raises(DataError, match="cannot be read as"):
        list(read_rows(path))
