from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainables.data.documents import Claim
from trainables.data.fever import group_by_page, load_splits, read_rows
from trainables.data.sources import resolve_sources
from trainables.errors import DataError

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


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "a list where a JSON object is needed"),
        ('{"id": 1, "label": "SUPPORTS"}', "no field 'claim', 'evidence' or 'evidence_wiki_url' .there"),
        ('{"id": 1, "label": "SUPPORTS", "claim": null, "evidence": []}', "field 'claim' is None, not text"),
        ('{"id": 1, "label": "TRUE", "claim": "x", "evidence": []}', "label 'TRUE' must be one of"),
        ('{"id": 1, "label": "SUPPORTS", "claim": "x"}', "no field 'evidence' or 'evidence_wiki_url'"),
        ('{"id": 1, "label": "SUPPORTS", "claim": "x", "evidence": [[1]]}', "'evidence' must be lists"),
        ('{"id": 1, "label": "SUPPORTS", "claim": "x", "evidence": [[[1, 2, 3, 4]]]}', "page is 3, not text"),
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
    with pytest.raises(DataError, match=rf"train\{suffix}.*: no column 'claim', 'evidence' or .*: 'id', 'label'"):
        list(read_rows(path))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_another_format_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"train{suffix}"
    path.write_bytes(b"\xff\xfe\x00 nothing of the kind")
    with pytest.raises(DataError, match="cannot be read as|in UTF-16"):
        list(read_rows(path))
