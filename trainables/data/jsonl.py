"""Read JSON and check its fields, naming file and line when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.data.data_files import decoded, opened
from trainables.errors import DataError

_SHOWN_FIELDS = 20


def numbered_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield `("path:line", content)` for every line that is not blank.

    Raises:
        DataError: the file cannot be opened, unpacked or read, or is in UTF-16 or UTF-32.
    """
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield f"{path}:{number}", line


def json_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(place, object)` for every object of a file: one a line, or all in one list.

    Raises:
        DataError: the file cannot be read, or is neither.
    """
    with opened(path) as file:
        is_list = file.peek(2**12).lstrip()[:1] == b"["  # type: ignore[attr-defined]  # of BufferedReader
        content = decoded(str(path), file.read()) if is_list else ""
    if not is_list:
        for where, line in numbered_lines(path):
            yield where, parse_object(where, line)
        return
    for index, record in enumerate(_parsed(str(path), content, names_line=True)):
        where = f"{path}: record {index}"
        yield where, _object(where, record)


def parse_object(where: str, line: bytes) -> dict[str, Any]:
    """Parse one line as a JSON object.

    Raises:
        DataError: it is none.
    """
    return _object(where, _parsed(where, decoded(where, line)))


def _parsed(where: str, text: str, names_line: bool = False) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{where}:{error.lineno}" if names_line else where
        raise DataError(f"{where}: not valid JSON ({error.msg}: column {error.colno}); is the file cut off?") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise DataError(f"{where}: not valid JSON ({error})") from None


def _object(where: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{where}: a {type(record).__name__} where a JSON object is needed")
    return record


def require(
    there: Mapping[str, Any] | Sequence[str], needed: Sequence[str | Sequence[str]], where: str, what: str = "field"
) -> None:
    """Refuse a record or a table without some fields; all that are missing are named, and those that are there.

    Args:
        there: the names there are, or what has them.
        needed: names; several in a tuple where one of them is enough.
        where: file and line.
        what: they are called.

    Raises:
        DataError: some are missing.
    """
    groups = [(names,) if isinstance(names, str) else names for names in needed]
    missing = [" or ".join(map(repr, names)) for names in groups if not any(name in there for name in names)]
    if missing:
        names = [repr(name)[:60] for name in there]
        shown = ", ".join(names[:_SHOWN_FIELDS]) + (", …" if len(names) > _SHOWN_FIELDS else "")
        raise DataError(f"{where}: no {what} {', '.join(missing)} (there are: {shown or 'none'})")


def field(record: Mapping[str, Any], name: str, where: str) -> Any:
    """Return a field that must be there.

    Raises:
        DataError: it is missing.
    """
    require(record, (name,), where)
    return record[name]


def text_field(record: Mapping[str, Any], name: str, where: str) -> str:
    """Return a field that must be there and be text.

    Raises:
        DataError: it is missing, no text, or holds half of a surrogate pair, which is no character.
    """
    return checked_text(field(record, name, where), f"field {name!r}", where)


def checked_text(value: Any, what: str, where: str) -> str:
    """Return a value that must be text.

    Raises:
        DataError: it is none, or holds half of a surrogate pair, which is no character.
    """
    if not isinstance(value, str):
        raise DataError(f"{where}: {what} is {repr(value)[:80]}, not text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(value[error.start]):04x}"
            raise DataError(
                f"{where}: {what} holds {half} at character {error.start + 1}, half of a surrogate pair and no "
                "character; correct the line"
            ) from None
    return value
