"""Documents and questions of one's own, in every form, and what is said of rows that cannot be used."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainables.data.corpus import load_corpus
from trainables.data.documents import Question
from trainables.data.own import read_questions
from trainables.data.sources import data_key, resolve_sources, used_key
from trainables.data.template import USUAL, read_templates
from trainables.errors import ConfigError, DataError

DOCUMENTS = [
    {"id": "a", "title": "Pump (old)", "text": "It runs on oil."},
    {"id": "b", "title": "valve", "text": "It opens, at 80\u00b0."},
]
QUESTIONS: list[dict[str, Any]] = [
    {"id": "1", "document": "a", "question": "What on?", "choices": ["oil", "gas"], "answer": "oil", "split": "test"},
    {"id": "2", "document": "valve", "prompt": "It opens at", "choices": ["80", "90"], "answer": "b", "split": "train"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    if path.suffix in (".parquet", ""):  # a table has the columns of its first row
        names = dict.fromkeys(name for row in rows for name in row)
        rows = [{name: row.get(name) for name in names} for row in rows]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        names = list(dict.fromkeys(name for row in rows for name in row))
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for row in rows:
                told = {n: "|".join(v) if isinstance(v, list) else v for n, v in row.items()}
                writer.writerow({name: told.get(name, "") for name in names})
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))


@pytest.mark.parametrize("form", [".jsonl", ".json", ".csv", ".parquet", ""])
def test_every_form_gives_the_same_documents_and_questions(form: str, tmp_path: Path) -> None:
    write(tmp_path / f"documents{form}", DOCUMENTS)
    write(tmp_path / f"questions{form}", QUESTIONS)
    corpus = load_corpus(str(tmp_path))
    first, second = corpus.articles
    assert (first.title, first.text, first.source) == ("Pump (old)", "It runs on oil.", "own")
    assert first.questions == (Question("1", "What on?", ("oil", "gas"), 0),) and not first.train_questions
    assert second.train_questions == (Question("2", "It opens at", ("80", "90"), 1, is_prompt=True),)
    selection = corpus.select(2)
    assert selection.counts["n_trunc"] == 2 and selection.counts["questions_selected"] == 1


@pytest.mark.parametrize("form", [".jsonl", ".csv", ".parquet", ""])
def test_a_table_may_be_the_source_itself(form: str, tmp_path: Path) -> None:
    write(tmp_path / f"texts{form}", DOCUMENTS)
    assert [d.title for d in load_corpus(str(tmp_path / f"texts{form}")).articles] == ["Pump (old)", "valve"]


@pytest.mark.parametrize("place", ["", "documents"])
def test_a_folder_of_text_files_is_a_document_each(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for name in ("b_2", "a 1"):
        (tmp_path / place / f"{name}.txt").write_text(f"The text of {name}.", encoding="utf-8")
    (tmp_path / place / ".hidden.txt").write_text("no")
    found = load_corpus(str(tmp_path)).articles
    assert [(d.title, d.text) for d in found] == [("a 1", "The text of a 1."), ("b_2", "The text of b_2.")]


def test_only_a_text_is_needed_and_equal_titles_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "documents.jsonl", [{"text": "one"}, {"title": "T", "text": "two"}, {"id": 7, "text": "three"}])
    assert [d.title for d in load_corpus(str(tmp_path)).articles] == ["document 1", "T", "7"]
    write(tmp_path / "documents.jsonl", [{"id": n, "title": "Intro", "text": str(n)} for n in range(2)])
    assert [d.title for d in load_corpus(str(tmp_path)).articles] == ["Intro (0)", "Intro (1)"]


def test_questions_may_be_about_pages_of_another_source(sample_data: Path, tmp_path: Path) -> None:
    title = load_corpus(str(sample_data)).pages[0].title
    asked = {**QUESTIONS[0], "document": title.replace("_", " ").replace("-LRB-", "(").replace("-RRB-", ")")}
    write(tmp_path / "questions.jsonl", [asked])
    page = load_corpus(f"{sample_data},{tmp_path}").pages[0]
    assert page.title == title and [q.id for q in page.questions] == ["1"] and page.claims


@pytest.mark.parametrize(
    ("answer", "place"), [("gas", 1), ("B", 1), ("(b)", 1), (1, 1), ("1", 1), (0, 0), (1.0, 1), ("a", 0)]
)
def test_an_answer_is_told_by_text_letter_or_place(answer: Any, place: int, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", [{**QUESTIONS[0], "answer": answer}])
    assert read_questions(tmp_path / "q.jsonl")[0].question.answer == place


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no choices", {"choices": None}, r"q.jsonl:1: choices 'None' must be a list of texts"),
    ("one choice", {"choices": ["oil"]}, r"q.jsonl:1: 1 choices; 2 to 26 are needed"),
    ("twice", {"choices": ["oil", "oil "]}, r"q.jsonl:1: choices \['oil', 'oil'\]: each must be another text"),
    ("broken list", {"choices": '["oil"'}, r"q.jsonl:1: choices .* are no JSON list"),
    ("lists", {"choices": [["oil"], "gas"]}, r"q.jsonl:1: choices .* must be a list of texts"),
    ("answer", {"answer": "coal"}, r"q.jsonl:1: answer 'coal' is none of the choices \['oil', 'gas'\]"),
    ("place", {"answer": 2}, r"q.jsonl:1: answer 2 is none of the choices"),
    ("truth", {"answer": True}, r"q.jsonl:1: answer True is none of the choices"),
    ("split", {"split": "tset"}, r"q.jsonl:1: split 'tset' must be one of train, test.*did you mean 'test'"),
    ("nothing", {"question": ""}, r"q.jsonl:1: neither a question nor a prompt"),
    ("number", {"question": 5}, r"q.jsonl:1: field 'question' is 5, not text"),
    ("document", {"document": None}, r"q.jsonl:1: no document; a question that is asked needs"),
    ("id", {"id": [1]}, r"q.jsonl:1: \[1\] names nothing"),
]


@pytest.mark.parametrize(("change", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_row_that_cannot_be_asked_is_told_with_its_line(change: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", [{**QUESTIONS[0], **change}])
    with pytest.raises(DataError, match=message) as caught:
        read_questions(tmp_path / "q.jsonl")
    assert "\n" not in str(caught.value)


def test_missing_columns_unknown_documents_and_ids_given_twice_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    write(file, [{"id": 1, "document": "a", "question": "?"}])
    with pytest.raises(DataError, match=r"questions.jsonl:1: no field 'choices', 'answer' \(there are: 'id'"):
        read_questions(file)
    write(file, [QUESTIONS[0], {**QUESTIONS[1], "id": "1"}])
    with pytest.raises(DataError, match=r":2: id '1' names another question at .*:1; give each its own"):
        read_questions(file)
    write(tmp_path / "documents.jsonl", DOCUMENTS)
    write(file, [{**QUESTIONS[0], "document": "valv"}])
    with pytest.raises(DataError, match=r":1: document 'valv' is neither id nor title .* 2 documents .* 'valve'"):
        load_corpus(str(tmp_path))
    write(file, QUESTIONS)
    write(tmp_path / "documents.jsonl", [*DOCUMENTS, DOCUMENTS[0]])
    with pytest.raises(DataError, match=r"documents.jsonl:3: id 'a' names another document at .*:1"):
        load_corpus(str(tmp_path))
    write(tmp_path / "documents.jsonl", [{"id": 1, "title": "T"}])
    with pytest.raises(DataError, match=r"documents.jsonl:1: no field 'text'"):
        load_corpus(str(tmp_path))


def test_other_questions_leave_the_documents_key_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "documents.jsonl", DOCUMENTS)
    alone = data_key(str(tmp_path))
    write(tmp_path / "questions.jsonl", QUESTIONS)
    asked = data_key(str(tmp_path))
    (tmp_path / "template.json").write_text('{"letter": {"header": "H"}}')
    put_otherwise = data_key(str(tmp_path))
    assert {used_key(key, counterfact=False) for key in (alone, asked, put_otherwise)} == {alone}
    assert len({used_key(key, counterfact=False, questions=True) for key in (alone, asked, put_otherwise)}) == 3


def test_a_template_is_data_and_what_it_leaves_out_is_the_usual_one(tmp_path: Path) -> None:
    write(tmp_path / "documents.jsonl", DOCUMENTS)
    question = Question("1", "What on?", ("oil", "gas"), 1)
    (tmp_path / "template.json").write_text(json.dumps({"letter": {"header": "Judge.\n", "question": "{{question}}:"}}))
    found = read_templates(resolve_sources(str(tmp_path)))
    assert found["letter"].prompt(question, [question]) == "Judge.\nWhat on?: (b)\n\nWhat on?:"
    assert found["likelihood"].prompt(question) == USUAL["likelihood"].prompt(question)
    assert found["likelihood"].answered(question, 0) == " oil"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "template.json: not valid JSON"),
        ("[]", "template.json: needs an object with letter or likelihood"),
        ('{"leter": {}}', "template.json: needs an object with letter or likelihood"),
        ('{"letter": {"frage": "x"}}', "template.json: letter must be an object with texts for some of header"),
        ('{"letter": {"answer": 3}}', "template.json: letter must be an object with texts"),
        ('{"letter": {"question": "{% for %}"}}', "template.json: letter: question: "),
        ('{"letter": {"question": "{{ claim }}"}}', "template.json: letter: question: 'claim' is undefined"),
        ('{"letter": {"answer": "{{ choices.pop() }}"}}', "template.json: letter: answer: "),
    ],
)
def test_a_template_that_is_none_is_refused(content: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "documents.jsonl", DOCUMENTS)
    write(tmp_path / "questions.jsonl", QUESTIONS)
    (tmp_path / "template.json").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_corpus(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_two_templates_are_one_too_many(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "documents.jsonl", [{"id": name, "text": name}])
        (tmp_path / name / "template.json").write_text('{"letter": {}}')
    with pytest.raises(ConfigError, match="serve the same purpose"):
        read_templates(resolve_sources(f"{tmp_path / 'one'},{tmp_path / 'two'}"))
