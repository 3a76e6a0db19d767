"""Read JSON lines and check their fields, naming file and line when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.errors import DataError


def numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield `("path:line", content)` for every line that is not blank.

    Raises:
        DataError: the file cannot be opened or read.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield f"{path}:{number}", line
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def parse_object(where: str, line: bytes) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises:
        DataError: it is none.
    """
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error}); is the file cut off?") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a {type(record).__name__} where a JSON object is needed")
    return record


def field(record: Mapping[str, Any], name: str, where: str) -> Any:
    """Return a field that must be there.

    Raises:
        DataError: it is missing.
    """
    try:
        return record[name]
    except KeyError:
        there = ", ".join(map(repr, record)) or "none"
        raise DataError(f"{where}: no field {name!r} (there are: {there})") from None


def text_field(record: Mapping[str, Any], name: str, where: str) -> str:
    """Return a field that must be there and be text.

    Raises:
        DataError: it is missing or no text.
    """
    value = field(record, name, where)
    if not isinstance(value, str):
        raise DataError(f"{where}: field {name!r} is {value!r}, not text")
    return value
