"""Which questions a sweep's trials answer: the fields in which they differ, and the stage that compares them best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.records.record import Record
from sweep.records.study_questions import QUESTIONS, StudyQuestion
from trainables.trial.canonical import unused_fields
from trainables.trial.identity import STATED_DEFAULTS
from trainables.trial.parts import IDENTITY_FIELDS

_FIRST = ("model", "layer", "alpha", "allocation", "num_documents")


@dataclass(frozen=True)
class AskedQuestion:
    """A question that a sweep asks.

    Attributes:
        question: which.
        fields: those of the question in which its trials differ.
        numeric: those of them whose values are numbers.
        about: values of fields that tell its trials from the sweep's others; empty where it is about all.
        stage: the stage that compares best; empty where only all stages together do.
    """

    question: StudyQuestion
    fields: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    about: Mapping[str, Any] | None = None
    stage: str = ""


def asked_of(plan: Mapping[str, Any], records: Sequence[Record]) -> list[AskedQuestion]:
    """Return the questions that a sweep asks, in the order of their declaration.

    Args:
        plan: its plan.json; without one there are no stages.
        records: of its trials.
    """
    found = []
    for question in QUESTIONS:
        own = [record for record in records if _is_about(record, question)]
        varied = varied_fields(own)
        fields = tuple(name for name in question.over if name in varied)
        if fields or (own and not question.over):
            numeric = tuple(name for name in fields if all(_is_number(record["identity"].get(name)) for record in own))
            about = {} if len(own) == len(records) else question.about
            stage = _telling_stage(plan, own, fields, [name for name in varied if name not in fields])
            found.append(AskedQuestion(question, fields, numeric, about, stage))
    return found


def varied_fields(records: Sequence[Record]) -> list[str]:
    """Return the fields in which trials differ that use them: first those of the study, then as a trial declares them.

    `model` stands for the model's name; `depth` is told by the layer.
    """
    found: dict[str, set[str]] = {name: set() for name in IDENTITY_FIELDS}
    for record in records:
        unused = unused_fields(record["identity"])
        for name in IDENTITY_FIELDS:
            if name not in unused:
                found[name].add(_value(record, name))
    names = [*_FIRST, *(name for name in IDENTITY_FIELDS if name not in _FIRST)]
    return [name for name in names if len(found[name]) > 1 and name != "depth"]


def _is_about(record: Record, question: StudyQuestion) -> bool:
    stated = {**STATED_DEFAULTS, **record["identity"]}
    return all(stated.get(name) == value for name, value in question.about.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(record: Record, name: str) -> str:
    return str(record["model"]["name"]) if name == "model" else repr(record["identity"].get(name))


def _telling_stage(
    plan: Mapping[str, Any], records: Sequence[Record], fields: Sequence[str], others: Sequence[str]
) -> str:
    """Return the first stage that tries as many values of some fields, for one setting of the others, as all do."""
    by_id = {record["id"]: record for record in records}

    def most(own: Sequence[Record]) -> int:
        values: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
        for record in own:
            values[tuple(_value(record, name) for name in others)].add(tuple(_value(record, name) for name in fields))
        return max(map(len, values.values()), default=0)

    best = (1, "")
    for stage in plan.get("stages") or ():
        tried = most([by_id[i] for i in stage.get("ids") or () if i in by_id])
        if tried > best[0]:
            best = (tried, str(stage["name"]))
    return best[1] if best[0] >= most(records) else ""
