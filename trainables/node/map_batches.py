"""The seam between what is computed of many rows and where it is computed: here, or on every machine of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import pyarrow as pa

Make = Callable[[pa.Table], Iterable[pa.Table]]
"""Gives some tables of rows for one. It may be pickled, run on another machine and run twice, so that it depends on
nothing but its argument and the small values that it was made with."""


class MapBatches(Protocol):
    """Makes something of each of many tables.

    What `make` gives comes in the order of the tables it is made of, none of it missing or there twice, wherever and in
    whatever order they were computed; where one table ends and the next begins may be another. Tables are asked for as
    they are needed and need not fit memory at a time; their sizes are the caller's choice, a second of work or so.

    Raises:
        OSError, SweepError: what is computed elsewhere could not be; never of a kind that is a trial's own
            (`trainables.errors.OWN_KINDS`). What `make` raises here passes through.
    """

    def __call__(self, make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield what `make` gives for all tables."""
        ...


def map_here(make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Compute in this process, one table after the other; see `MapBatches`."""
    for table in tables:
        yield from make(table)
