"""A storage that has been moved with MLflow's database in it: its artifacts are looked for where they are now.

MLflow keeps whole addresses of artifacts, in the experiment and in every run. After `mv A B` these still name the
folder `A`, which the next artifact would make anew.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse

from sweep.tracking.address import Tracking, sqlite_file

_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_BUSY_S = 20.0


def follow_move(tracking: Tracking) -> list[str]:
    """Correct the addresses of artifacts in a database whose storage has been moved or copied with it.

    Only the artifact folder that lies beside the database is followed; an experiment that keeps its artifacts elsewhere
    on purpose stays as it is, and so does one whose artifacts have been left at the old place.

    Returns:
        The addresses that were replaced.
    """
    database = sqlite_file(tracking.uri)
    if database is None or tracking.artifacts is None or not database.is_file():
        return []
    now = _folder(tracking.artifacts)
    if now is None or not _same(now.parent, database.parent):
        return []
    with closing(sqlite3.connect(database, timeout=_BUSY_S)) as connection, connection:
        columns = [(table, column) for table, column in _ADDRESSES if _has(connection, table, column)]
        if ("experiments", "artifact_location") not in columns:
            return []
        places = {place for (place,) in connection.execute("SELECT artifact_location FROM experiments") if place}
        moved = [place for place in places if _is_left(place, now)]
        for place in moved:
            for table, column in columns:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608 (names are ours)
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (tracking.artifacts, len(place) + 1, place, len(place) + 1, f"{place}/"),
                )
    return moved


def _is_left(place: str, now: Path) -> bool:
    """Say whether artifacts are kept under the name that ours have, in another folder that they have left."""
    then = _folder(place)
    if then is None or then.name != now.name or then == now or _same(then, now):
        return False
    return now.exists() or not then.exists()


def _folder(address: str) -> Path | None:
    parsed = urlparse(address)
    return Path(unquote(parsed.path)) if parsed.scheme == "file" else None


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and os.path.samefile(one, other)


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(name == column for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))
