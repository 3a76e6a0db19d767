"""What the parts of a record look like inside, so that no reader meets a list where it expects an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Check = Callable[[Any], bool]
_NUMBERS = {int, float}


def wrong_part(record: Mapping[str, Any]) -> str:
    """Return the path of the first part of a record that is not as it should be; empty if all are.

    Args:
        record: whose parts are there, each an object or text as a record has it.
    """
    for path, check in _CHECKS.items():
        value: Any = record
        for name in path.split("."):
            value = value.get(name)
        if not check(value):
            return path
    return ""


def is_number(value: Any) -> bool:
    """Say whether a JSON value is a number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _moment(value: Any) -> bool:
    try:
        datetime.fromisoformat(value).timestamp()
    except (ValueError, OverflowError):
        return False
    return True


def _all(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _curve(value: Any) -> bool:
    """Say whether it is a list of pairs; kinds are gathered without a loop, for records are mostly curves."""
    if not isinstance(value, list):
        return False
    if not value:
        return True
    if set(map(type, value)) != {list} or set(map(len, value)) != {2}:
        return False
    at, reached = (set(map(type, column)) for column in zip(*value, strict=True))
    return at <= _NUMBERS and reached <= _NUMBERS | {type(None)}


def _file(value: Any) -> bool:
    return isinstance(value, dict) and type(value.get("bytes")) is int and _text(value.get("blake2b"))


_CHECKS: dict[str, Check] = {
    "model.name": _text,
    "model.num_blocks": lambda value: type(value) is int and value > 0,
    "data.given": _text,
    "started_at": _moment,
    "finished_at": _moment,
    "metrics": _all(_number_or_none),
    "curves": _all(_curve),
    "counts": _all(_number_or_none),
    "timings": _all(_number_or_none),
    "flops": _number_or_none,
    "versions": _all(_text),
    "labels": _all(lambda value: not isinstance(value, (dict, list))),
    "error": lambda value: value is None or _all(lambda told: told is None or _text(told))(value),
    "files": lambda value: value is None or _all(_file)(value),
}
