"""Read records from any file that holds them: JSON lines, a JSON list, CSV, Parquet, or what `datasets` has saved.

Lines are counted here rather than read by a library, for a mistake is told with its line; Parquet is read by Arrow, and
a folder of `Dataset.save_to_disk` by `datasets`, which maps it from disk.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainables.data.data_files import COMPRESSIONS, decoded, opened, plain_suffix
from trainables.data.jsonl import json_records, require
from trainables.errors import DataError

Needed = Sequence[str | Sequence[str]]
Records = Iterator[tuple[str, Mapping[str, Any]]]

JSON_SUFFIXES = (".jsonl", ".json")
TABLE_SUFFIXES = (*JSON_SUFFIXES, ".csv", ".parquet")
_SAVED = ("dataset_dict.json", "state.json")
_BATCH_ROWS = 1000


def table_names(stem: str) -> list[str]:
    """Return the names under which a table may lie in a folder, that of a folder saved by `datasets` last."""
    packed = [suffix + end for suffix in (*JSON_SUFFIXES, ".csv") for end in COMPRESSIONS]
    return [f"{stem}{suffix}" for suffix in (*packed, ".parquet")] + [stem]


def is_table(path: Path) -> bool:
    """Say whether a path is a file that may hold records, by its name, or a folder saved by `datasets`."""
    if path.is_dir():
        return is_saved(path)
    suffix = plain_suffix(path)
    return suffix in TABLE_SUFFIXES and (suffix == path.suffix or suffix != ".parquet") and path.is_file()


def is_saved(folder: Path) -> bool:
    """Say whether `datasets` has saved a folder (`save_to_disk`)."""
    return any((folder / name).is_file() for name in _SAVED)


def table_files(path: Path) -> list[Path]:
    """Return the files that hold a table's content."""
    return sorted(path.rglob("*.arrow")) if path.is_dir() else [path]


def read_table(path: Path, needed: Needed, more: Sequence[str] = ()) -> Records:
    """Yield `(place, record)` for every record of a table.

    Args:
        path: of the file or of a folder saved by `datasets`.
        needed: columns that must be there; several in a tuple where one of them is enough.
        more: columns that are read where they are there; JSON and CSV are read whole.

    Raises:
        DataError: the file cannot be read, is broken, or lacks a column; all that are missing are named.
    """
    readers: dict[str, Callable[[Path, Needed, Sequence[str]], Records]] = {
        ".jsonl": _json,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    yield from (_saved if path.is_dir() else readers[plain_suffix(path)])(path, needed, more)


def _json(path: Path, needed: Needed, more: Sequence[str]) -> Records:
    for where, record in json_records(path):
        require(record, needed, where)
        yield where, record


def _csv(path: Path, needed: Needed, more: Sequence[str]) -> Records:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a page may be longer than the 128 KB allowed by default
    with opened(path) as file:
        lines = (decoded(f"{path}:{number}", line) for number, line in enumerate(file, start=1))
        # `lines` splits at \n as Python's own text files do, so that the reader's count of lines is the file's
        reader = csv.DictReader(lines, strict=True)
        try:
            names = list(reader.fieldnames or ())
            require(names, needed, f"{path}:1", "column")
            twice = sorted({repr(name) for name in names if names.count(name) > 1})
            if twice:
                raise DataError(f"{path}:1: column {', '.join(twice)} more than once")
            for record in reader:
                where = f"{path}:{reader.line_num}"
                if None in record or None in record.values():
                    count = len([value for name, value in record.items() if name and value is not None])
                    extra = len(record.get(None) or ())  # type: ignore[call-overload]  # the rest has no name
                    raise DataError(f"{where}: {count + extra} values where the header has {len(names)} columns")
                yield where, record
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: not valid CSV ({error}); is a quote left open?") from None


def _parquet(path: Path, needed: Needed, more: Sequence[str]) -> Records:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        require(names, needed, str(path), "column")
        columns = _chosen(names, needed, more)
        rows = (row for batch in file.iter_batches(_BATCH_ROWS, columns=columns) for row in batch.to_pylist())
        for number, record in enumerate(rows, start=1):
            yield f"{path}:{number}", record
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({_line(error)})") from None


def _saved(path: Path, needed: Needed, more: Sequence[str]) -> Records:
    import datasets
    import pyarrow

    try:
        loaded = datasets.load_from_disk(str(path))
        splits = loaded.items() if isinstance(loaded, datasets.DatasetDict) else [("", loaded)]
        for split, table in splits:
            place = str(path / split) if split else str(path)
            require(table.column_names, needed, place, "column")
            batches = table.select_columns(_chosen(table.column_names, needed, more)).with_format("arrow")
            rows = (row for batch in batches.iter(_BATCH_ROWS) for row in batch.to_pylist())
            for number, record in enumerate(rows, start=1):
                yield f"{place}:{number}", record
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a folder saved by `datasets` ({_line(error)})") from None


def _chosen(there: Sequence[str], needed: Needed, more: Sequence[str]) -> list[str]:
    wanted = {name for names in needed for name in ((names,) if isinstance(names, str) else names)} | set(more)
    return [name for name in there if name in wanted]


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
