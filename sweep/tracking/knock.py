"""Asking a tracking address whether anybody answers there, before MLflow does, which asks for minutes.

MLflow opens a database with ten attempts, and each may wait as long as the system lets it.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sweep.tracking.address import is_web

ANSWER_S = 4
_TAKES_TIMEOUT = ("postgresql", "mysql", "mariadb")
_TABLES_LOCK = 7236410258417
"""An arbitrary number, the same in every process of ours, under which PostgreSQL keeps a lock."""


def knock(uri: str) -> None:
    """Return as soon as something answers at an address; do nothing for files.

    Raises:
        OSError: a server refuses, or does not answer within `ANSWER_S`.
        sqlalchemy.exc.SQLAlchemyError: a database does.
    """
    if is_web(uri):
        try:
            urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=ANSWER_S).close()
        except urllib.error.HTTPError:
            return  # an answer, too: one that wants a log-in, or a proxy without that page
        except urllib.error.URLError as error:
            raise OSError(f"does not answer ({error.reason})") from None
        except TimeoutError:
            raise OSError(f"does not answer within {ANSWER_S} s") from None
    elif uri.startswith(_TAKES_TIMEOUT):
        with _connected(uri):
            return


@contextmanager
def tables_alone(uri: str) -> Iterator[None]:
    """Let one process at a time make the tables of a PostgreSQL database: of two, MLflow fails in one."""
    if not uri.startswith("postgresql"):
        yield
        return
    from sqlalchemy import text

    with _connected(uri) as connection:
        connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": _TABLES_LOCK})
        yield  # the lock ends with the connection


@contextmanager
def _connected(uri: str) -> Iterator[Any]:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": ANSWER_S})
    with engine.connect() as connection:
        yield connection
