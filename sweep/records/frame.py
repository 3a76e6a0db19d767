"""Results as a pandas DataFrame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sweep.records.store import split_location
from sweep.records.table import results_table

if TYPE_CHECKING:
    import pandas as pd


def load_results(path: str | Path) -> pd.DataFrame:
    """Return one row for each trial that has a record, made from the records as they are now.

    The columns are those of `results.parquet`: `id`, `stage`, `status`, every field of the trial, every metric under
    its own name, `count/...`, `time/...`. The sweep may be running.

    Args:
        path: `STORAGE/NAME`, one sweep, or `STORAGE`, all sweeps of a storage one after the other, where `sweep` says
            which of them ran a trial.

    Raises:
        ConfigError: there is no sweep.
        DataError: a record cannot be read.
    """
    import pandas as pd

    store, name = split_location(str(path))
    names = [name] if name else store.sweeps()
    index = store.index(set_aside=False)
    tables = [results_table(store, each, index).to_pandas() for each in names]
    whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return whole
