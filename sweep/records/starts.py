"""What a trial that starts from another one's weights says of that other: in its record, in tables and in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sweep.records.index import RecordHead
from sweep.records.record import Record
from trainables.trial.canonical import unused_fields
from trainables.trial.fields import Role
from trainables.trial.identity import STATED_DEFAULTS
from trainables.trial.parts import REPEATED, fields_in_role

START = "start_from"
_APART = {"model", "revision", "data", START, *REPEATED}
"""Fields that are the same, or do not tell what was trained before: seeds are repetitions, content is no key."""


def told_start(head: RecordHead | None, stated: Mapping[str, Any], data: str) -> dict[str, Any]:
    """Return what a trial's record says of the training that it starts from.

    Args:
        head: of that training; None where it is not there any more.
        stated: the trial's identity.
        data: its data, as the user named them.

    Returns:
        `training`, its id; and where its record is at hand `trial`, `sweep`, `stage`, `folder`, and `fields`: what it
        was trained with otherwise than the trial itself, seeds left out; `start`, the same of what it started from
        itself.
    """
    told: dict[str, Any] = {"training": stated[START]}
    if head is None:
        return told
    record = head.record()
    earlier = {**STATED_DEFAULTS, **record["identity"]}
    names = [name for name in fields_in_role(Role.TRAINING) if name in earlier and name not in _APART]
    unused = unused_fields(earlier)
    fields = {name: earlier[name] for name in names if name not in unused and earlier[name] != stated.get(name)}
    if record["data"]["given"] != data:
        fields["data"] = record["data"]["given"]
    told |= {"trial": record["id"], "sweep": record["sweep"], "stage": record["stage"], "folder": head.folder}
    return told | {"fields": fields} | ({"start": record["start"]} if record.get("start") else {})


def start_text(record: Record) -> str | None:
    """Name in short what a trial started from, alike for its repetitions: `content=document, epochs=25`.

    By the stage where nothing was otherwise; None where it started anew.
    """
    if record["identity"].get(START) is None:
        return None
    told = record.get("start") or {"training": record["identity"][START]}
    return _text(told)


def _text(told: Mapping[str, Any]) -> str:
    if "fields" not in told:
        return str(told["training"])
    fields = ", ".join(f"{name}={_value(value)}" for name, value in sorted(told["fields"].items()))
    earlier = f" after {_text(told['start'])}" if told.get("start") else ""
    return f"{fields or told['stage']}{earlier}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
