"""Documents and questions of a user's own: any texts, any questions with choices.

    documents   id, title, text           only `text` is needed; also one `.txt` file a document, named by the file
    questions   id, document, question or prompt, choices, answer, split

A question names its document by id or title, FEVER's pages and articles included. `choices` is a list (in CSV: JSON, or
parts between `|`). `answer` is the text of a choice, its letter, or its place counted from 0. `split` is `train` for
few-shot examples and templates, else the question is asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from trainables.data.data_files import decoded, opened
from trainables.data.documents import Document, Question
from trainables.data.fever import is_missing
from trainables.data.jsonl import checked_text, text_field
from trainables.data.source_files import SourceFiles
from trainables.data.tables import is_table, read_table
from trainables.data.titles import normal_title
from trainables.errors import DataError, nearest

COLUMNS = ("choices", "answer", ("question", "prompt"))
MORE_COLUMNS = ("id", "document", "split", "question", "prompt")
TRAIN = "train"
ASKED = ("test", "validation", "valid", "val", "dev", "paper_dev", "eval")


@dataclass(frozen=True)
class Row:
    """One row of a table of questions; `document` is empty for a training question about none."""

    question: Question
    document: str
    train: bool
    where: str


def read_documents(source: SourceFiles) -> dict[str, Document]:
    """Read a source's own documents, by id.

    Their titles tell them apart everywhere, so where several share one, each has its id behind it.

    Raises:
        DataError: a broken row, or an id that two documents have.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for path in source.documents:
        for where, ident, title, text in _texts(path):
            known = found.setdefault(ident, (title, text, where))
            if known[2] != where:
                raise DataError(f"{where}: id {ident!r} names another document at {known[2]}; give each its own")
    times = Counter(title for title, _, _ in found.values())
    return {
        ident: Document(title if times[title] == 1 else f"{title} ({ident})", text, (), (), "own")
        for ident, (title, text, _) in found.items()
    }


def _texts(path: Path) -> Iterable[tuple[str, str, str, str]]:
    """Yield place, id, title and text."""
    if not is_table(path):
        with opened(path) as file:
            yield str(path), path.stem, path.stem, decoded(str(path), file.read())
        return
    for number, (where, record) in enumerate(read_table(path, ("text",), ("id", "title")), start=1):
        title = record.get("title")
        title = "" if _is_none(title) else text_field(record, "title", where).strip()
        ident = _name(record.get("id"), where) or title or f"document {number}"
        yield where, ident, title or ident, text_field(record, "text", where)


def read_questions(path: Path) -> list[Row]:
    """Read a table of questions.

    Raises:
        DataError: a row that cannot be asked: file, line and what is missing or wrong.
    """
    found: list[Row] = []
    places: dict[str, str] = {}
    for number, (where, record) in enumerate(read_table(path, COLUMNS, MORE_COLUMNS), start=1):
        ident = _name(record.get("id"), where) or f"question {number}"
        if places.setdefault(ident, where) != where:
            raise DataError(f"{where}: id {ident!r} names another question at {places[ident]}; give each its own")
        found.append(_row(record, ident, where))
    return found


def training_pool(sources: Iterable[SourceFiles]) -> list[Question]:
    """Return every training question, in file order, whatever its document: where a document's own are too few."""
    rows = (row for source in sources if source.questions for row in read_questions(source.questions))
    return [row.question for row in rows if row.train]


def _row(record: Mapping[str, Any], ident: str, where: str) -> Row:
    is_prompt = _is_none(record.get("question"))
    name = "prompt" if is_prompt else "question"
    if _is_none(record.get(name)):
        raise DataError(f"{where}: neither a question nor a prompt; one of them is needed")
    text = checked_text(record[name], f"field {name!r}", where)
    choices = _choices(record["choices"], where)
    answer = _answer(record["answer"], choices, where)
    document = _name(record.get("document"), where)
    train = _is_train(record.get("split"), where)
    if not document and not train:
        raise DataError(f"{where}: no document; a question that is asked needs the id or title of one")
    return Row(Question(ident, text, choices, answer, is_prompt), document, train, where)


def _is_none(value: Any) -> bool:
    return value is None or value == "" or value != value


def _name(value: Any, where: str) -> str:
    """Return an id as text, empty for none; tables with gaps turn whole numbers into `7.0`."""
    if _is_none(value):
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise DataError(f"{where}: {value!r} names nothing; a number or text is needed")
    text = checked_text(str(value), "a name", where).strip()
    return text.removesuffix(".0") if text.removesuffix(".0").isdigit() else text


def _choices(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else value.split("|")
        except ValueError:
            raise DataError(f"{where}: choices {value[:80]!r} are no JSON list") from None
    if not isinstance(value, (list, tuple)) or any(isinstance(c, (bool, list, dict)) or _is_none(c) for c in value):
        raise DataError(f"{where}: choices {str(value)[:80]!r} must be a list of texts (in CSV also text|text)")
    found = tuple(checked_text(str(choice), "a choice", where).strip() for choice in value)
    if not 2 <= len(found) <= len(ascii_lowercase):
        raise DataError(f"{where}: {len(found)} choices; 2 to {len(ascii_lowercase)} are needed")
    if len(set(found)) < len(found) or not all(found):
        raise DataError(f"{where}: choices {list(found)!r}: each must be another text, and none empty")
    return found


def _answer(value: Any, choices: Sequence[str], where: str) -> int:
    """Return the place of the right choice: told by its text, its letter, or its place."""
    letters = ascii_lowercase[: len(choices)]
    text = str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    if text in choices:
        return choices.index(text)
    letter = text.lower().strip("().")
    if len(letter) == 1 and letter in letters:
        return letters.index(letter)
    place = text.removesuffix(".0")
    if place.isdigit() and int(place) < len(choices):
        return int(place)
    raise DataError(
        f"{where}: answer {value!r} is none of the choices {list(choices)!r}, their letters ({letters[0]} to "
        f"{letters[-1]}) or places (0 to {len(choices) - 1})"
    )


def _is_train(value: Any, where: str) -> bool:
    if _is_none(value) or is_missing(value):
        return False
    split = str(value).strip().lower()
    if split != TRAIN and split not in ASKED:
        known = (TRAIN, *ASKED)
        raise DataError(f"{where}: split {value!r} must be one of {', '.join(known)}{nearest(split, known)}")
    return split == TRAIN


def with_questions(
    documents: Sequence[Document], sources: Sequence[SourceFiles], own: Mapping[str, Mapping[str, Document]]
) -> tuple[Document, ...]:
    """Return documents with the questions that all sources ask about them.

    Args:
        documents: of the corpus.
        sources: where questions may be.
        own: name of a source -> id -> its own documents.

    Raises:
        DataError: a broken row, or a question about a document that is not there.
    """
    by_title = {document.title: place for place, document in enumerate(documents)}
    asked: dict[int, list[Question]] = {}
    train: dict[int, list[Question]] = {}
    for source in sources:
        for row in read_questions(source.questions) if source.questions else ():
            if not row.document:
                continue
            known = own.get(source.name, {}).get(row.document)
            title = known.title if known else row.document
            place = by_title.get(title, by_title.get(normal_title(title)))
            if place is None:
                raise DataError(
                    f"{row.where}: document {row.document!r} is neither id nor title of one of the {len(documents):,} "
                    f"documents there are{nearest(row.document, [*own.get(source.name, {}), *by_title])}"
                )
            (train if row.train else asked).setdefault(place, []).append(row.question)
    return tuple(
        replace(document, train_questions=tuple(train.get(at, ())), questions=tuple(asked.get(at, ())))
        if at in train or at in asked
        else document
        for at, document in enumerate(documents)
    )
