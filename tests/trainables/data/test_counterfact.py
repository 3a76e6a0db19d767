from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from trainables.data.counterfact import CounterfactRecord, facts_to_ask, facts_to_train, load_counterfact
from trainables.errors import ConfigError, DataError

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


def changed(**parts: Any) -> dict[str, Any]:
    return FULL | {"requested_rewrite": REWRITE | parts}


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
        ({"a": 1}, r"counterfact\.json:1: no field 'case_id', 'requested_rewrite' \(there are: 'a'\)"),
        ([FULL, {"case_id": 1}], "record 1: no field 'requested_rewrite'"),
        ([FULL | {"requested_rewrite": {"prompt": "{} is"}}], "no field 'subject'"),
        ([7], "record 0: a int where a JSON object is needed"),
        ([FULL | {"case_id": "x"}], "record 0: case_id 'x': must be a whole number"),
        ([FULL | {"case_id": -1}], "case_id -1: must be a whole number of at least 0"),
        ([FULL | {"case_id": 7.5}], "case_id 7.5: must be a whole number"),
        ([FULL | {"case_id": float("nan")}], "case_id nan"),
        ([FULL | {"case_id": float("inf")}], "case_id inf"),
        ([FULL | {"case_id": True}], "case_id True"),
        ([FULL, FULL | {"paraphrase_prompts": []}], "record 1: case_id 7 names another record at .*: record 0"),
        ([FULL | {"requested_rewrite": None}], "field 'requested_rewrite' is None"),
        ([changed(prompt="The mother tongue is")], "record 0: prompt 'The mother tongue is' has no {} in its subject"),
        ([changed(prompt=" ")], "prompt is empty"),
        ([changed(subject="")], "record 0: subject is empty"),
        ([changed(subject="\ud800")], r"subject holds \\ud800 at character 1"),
        ([changed(target_true={"str": ""})], "record 0: target_true is empty"),
        ([changed(target_new={"str": " \n"})], "target_new is empty"),
        ([changed(target_new={"str": None})], "target_new is None, not text"),
        ([changed(target_new={"id": "Q1"})], "target_new is {'id': 'Q1'}"),
        ([changed(target_new="English")], "target_new is 'English'"),
        ([changed(target_new={"str": " french"})], "target_true and target_new are both 'French'"),
        ([FULL | {"paraphrase_prompts": "What?"}], "paraphrase_prompts is 'What\\?', not a list"),
        ([FULL | {"neighborhood_prompts": ["a", ""]}], r"neighborhood_prompts\[1\] is empty"),
        ([FULL | {"neighborhood_prompts": [3]}], r"neighborhood_prompts\[0\] is 3, not text"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_counterfact(write(tmp_path, content))


def test_broken_json_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "counterfact.json").write_text("[\n{,\n]")
    with pytest.raises(DataError, match=r"counterfact\.json:2: not valid JSON"):
        load_counterfact(str(tmp_path))


@pytest.mark.parametrize("name", ["counterfact.json", "counterfact.jsonl", "counterfact.json.gz"])
def test_records_one_a_line_are_read_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    expected = load_counterfact(write(tmp_path, [FULL, SHORT]))
    (tmp_path / "counterfact.json").unlink()
    lines = "".join(f"{json.dumps(record)}\n" for record in (FULL, SHORT)).encode()
    (tmp_path / name).write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    assert load_counterfact(str(tmp_path)) == expected


@pytest.mark.parametrize("form", ["parquet", "datasets"])
def test_records_of_nested_columns_are_read(tmp_path: Path, form: str) -> None:
    import datasets

    records = [FULL, FULL | {"case_id": 9, "paraphrase_prompts": None}]
    table = datasets.Dataset.from_list(records)
    if form == "parquet":
        table.to_parquet(tmp_path / "counterfact.parquet")
    else:
        table.save_to_disk(tmp_path / "counterfact")
    full, short = load_counterfact(str(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    (expected,) = load_counterfact(write(other, [FULL]))
    assert full == expected and short.paraphrase_prompts == ()


def records_about(*subjects: str) -> list[CounterfactRecord]:
    return [
        CounterfactRecord(case_id, "{} speaks", subject, "French", "English")
        for case_id, subject in enumerate(subjects)
    ]


def test_prompts_trained_on_are_about_neither_documents_nor_subjects_asked() -> None:
    subjects = [f"Person {number // 2}" for number in range(40)]  # two records each
    records = records_about(*subjects, "Alan Bates (actor)", "Marseille")
    titles = ["Alan_Bates_-LRB-actor-RRB-", "Person_3"]
    trained = facts_to_train(records, titles, 9)
    asked = facts_to_ask(records, titles, 9)
    assert len(trained) == 9
    assert not {record.subject for record in trained} & {record.subject for record in asked}
    assert not {record.subject for record in trained} & {"Alan Bates (actor)", "Person 3"}
    assert [record.subject for record in asked[:3]] == ["Person 3", "Person 3", "Alan Bates (actor)"]
    assert len(asked) == 42 - 2 * 5, "the fifth subject's second record is not trained on, and not asked either"
    turned = facts_to_train(list(reversed(records)), titles, 9)
    assert [record.subject for record in turned] == [record.subject for record in trained], "not the file's order"
    assert facts_to_ask(records, [], 0) == records


def test_too_many_prompts_to_train_on_are_refused() -> None:
    records = records_about("Ada", "Bo")
    with pytest.raises(ConfigError, match="template_facts=2: there are 1 CounterFact records about subjects other"):
        facts_to_train(records, ["Ada"], 2)
    with pytest.raises(ConfigError, match="template_facts=2: no CounterFact record is left to be asked"):
        facts_to_ask(records, [], 2)
