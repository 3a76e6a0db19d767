from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainables.data.counterfact import CounterfactRecord, load_counterfact
from trainables.errors import DataError

REWRITE = {
    "prompt": "The mother tongue of {} is",
    "relation_id": "P103",
    "target_new": {"str": "English", "id": "Q1860"},
    "target_true": {"str": "French", "id": "Q150"},
    "subject": "Danielle Darrieux",
}
FULL = {
    "case_id": 7,
    "pararel_idx": 2796,
    "requested_rewrite": REWRITE,
    "paraphrase_prompts": ["Danielle Darrieux, a native", "Danielle Darrieux spoke the language"],
    "neighborhood_prompts": ["The mother tongue of Léon Blum is"],
    "attribute_prompts": [],
    "generation_prompts": ["Danielle Darrieux's mother tongue is"],
}
SHORT = {"case_id": 8, "requested_rewrite": REWRITE | {"relation_id": None}}


def write(folder: Path, content: Any) -> str:
    (folder / "counterfact.json").write_text(json.dumps(content))
    return str(folder)


def test_full_and_short_records_are_read(tmp_path: Path) -> None:
    full, short = load_counterfact(write(tmp_path, [FULL, SHORT]))
    assert full == CounterfactRecord(
        case_id=7,
        prompt="The mother tongue of {} is",
        subject="Danielle Darrieux",
        target_true="French",
        target_new="English",
        paraphrase_prompts=("Danielle Darrieux, a native", "Danielle Darrieux spoke the language"),
        neighborhood_prompts=("The mother tongue of Léon Blum is",),
    )
    assert (short.case_id, short.paraphrase_prompts, short.neighborhood_prompts) == (8, (), ())


def test_the_question_has_its_subject_filled_in(tmp_path: Path) -> None:
    (record,) = load_counterfact(write(tmp_path, [FULL]))
    assert record.question == "The mother tongue of Danielle Darrieux is"


def test_no_records_say_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "wiki_docs.jsonl").touch()
    with pytest.raises(DataError, match=r"no CounterFact records; looked for counterfact\.json"):
        load_counterfact(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": 1}, "a dict where a list of records is needed"),
        ([FULL, {"case_id": 1}], "record 1: no field 'requested_rewrite'"),
        ([FULL | {"requested_rewrite": {"prompt": "{} is"}}], "no field 'subject'"),
        ([7], "record 0: not laid out"),
        ([FULL | {"case_id": "x"}], "record 0: not laid out"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_counterfact(write(tmp_path, content))


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "counterfact.json").write_text("[\n{,\n]")
    with pytest.raises(DataError, match=r"counterfact\.json:2: not valid JSON"):
        load_counterfact(str(tmp_path))
