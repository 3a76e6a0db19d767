"""A handful of FEVER claims, written in every form in which the data set comes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Record = dict[str, Any]

COLUMNS = [
    "id",
    "label",
    "claim",
    "evidence_annotation_id",
    "evidence_id",
    "evidence_wiki_url",
    "evidence_sentence_id",
]


def claim(id_: int, label: str, text: str, *groups: list[str | None]) -> Record:
    """An official per-claim record; each group lists the pages of its evidence."""
    evidence = [
        [[100 + g, 200 + g, page, s] if page else [100 + g, None, None, None] for s, page in enumerate(pages)]
        for g, pages in enumerate(groups)
    ]
    verifiable = "NOT VERIFIABLE" if label == "NOT ENOUGH INFO" else "VERIFIABLE"
    return {"id": id_, "verifiable": verifiable, "label": label, "claim": text, "evidence": evidence}


def table_rows(records: list[Record], hub: bool = False) -> list[Record]:
    """The same records as one row per evidence annotation; the hub writes -1 and "" for null."""
    rows = []
    for record in records:
        for annotation, evidence, page, sentence in (e for group in record["evidence"] for e in group):
            if hub and page is None:
                evidence, page, sentence = -1, "", -1
            head = [record["id"], record["label"], record["claim"]]
            rows.append(dict(zip(COLUMNS, [*head, annotation, evidence, page, sentence], strict=True)))
    return rows


VALID = [
    claim(1, "SUPPORTS", "Ann sings.", ["Ann"], ["Ann", "Ann"]),
    claim(2, "REFUTES", "Ann is Bob.", ["Ann", "Bob"]),
    claim(3, "NOT ENOUGH INFO", "Ann eats.", [None]),
    claim(4, "REFUTES", "Café Zoë is shut.", ["Cafe\u0301_Zoë"], ["Cafe\u0301_Zoë"]),
    claim(5, "SUPPORTS", 'Bob, the "builder", builds.', ["Bob"]),
    claim(6, "SUPPORTS", "Cy exists.", ["Cy"]),
    claim(7, "SUPPORTS", "Dee exists.", ["Dee"]),
]
TRAIN = [
    claim(11, "SUPPORTS", "Ann is a singer.", ["Ann"]),
    claim(12, "REFUTES", "Ann is mute.", ["Ann"], ["Ann"]),
    claim(13, "SUPPORTS", "Café Zoë is open.", ["Caf\u00e9_Zoë"]),
    claim(14, "NOT ENOUGH INFO", "Eve exists.", [None]),
    claim(15, "SUPPORTS", "Eve works.", ["Eve"]),
    claim(16, "SUPPORTS", "Cy is a person.", ["Cy"]),
    claim(17, "REFUTES", "Bob is a cat.", ["Bob"]),
]
PAGES = {
    "": "",
    "Bob": "Bob builds .",
    "Ann": "Ann -LRB- born 1990 -RRB- sings .",
    "Unasked": "Nobody asks .",
    "Caf\u00e9_Zoë": "A café .",
    "Dee": "Dee .",
}


def write_jsonl(path: Path, records: list[Record], ascii_: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=ascii_) + "\n" for r in records), encoding="utf-8")


def write_claims(path: Path, records: list[Record], form: str) -> Path:
    """Write claims as `official`, or in table form as `jsonl`, `csv` or `parquet`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = table_rows(records)
    if form in ("official", "jsonl"):
        path = path.with_suffix(".jsonl")
        write_jsonl(path, records if form == "official" else rows)
    elif form == "csv":
        path = path.with_suffix(".csv")
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    else:
        import pyarrow
        import pyarrow.parquet

        path = path.with_suffix(".parquet")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def valid_records() -> list[Record]:
    return VALID


@pytest.fixture
def train_records() -> list[Record]:
    return TRAIN


@pytest.fixture
def page_texts() -> dict[str, str]:
    return PAGES


@pytest.fixture
def make_fever(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder in FEVER's layout, claims in any form, and return it."""

    def make(form: str = "official", name: str = "data", articles: bool = False) -> Path:
        folder = tmp_path / name
        write_claims(folder / "fever" / "train", TRAIN, form)
        write_claims(folder / "fever" / "paper_dev", VALID, form)
        pages = [{"id": title, "text": text, "lines": f"0\t{text}"} for title, text in PAGES.items()]
        write_jsonl(folder / "fever" / "wiki-pages" / "wiki-001.jsonl", pages[:3])
        write_jsonl(folder / "fever" / "wiki-pages" / "wiki-002.jsonl", pages[3:], ascii_=False)
        if articles:
            texts = {"Moon": "The Moon .", "Ann": "Ann again.", "Void": " ", "Sun": "The Sun."}
            records = [{"id": title, "title": title, "text": text} for title, text in texts.items()]
            write_jsonl(folder / "wiki_docs.jsonl", records)
        return folder

    return make


@pytest.fixture
def hub_table() -> Callable[[list[Record]], list[Record]]:
    """Turn official records into the hub's rows."""
    return lambda records: table_rows(records, hub=True)
