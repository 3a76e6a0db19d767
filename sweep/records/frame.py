"""Results as pandas DataFrames; `sweep.records.columns` says what their columns mean."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sweep.records.askings import answers_paths
from sweep.records.columns import TABLES
from sweep.records.manifest import sweep_stages
from sweep.records.record import Record
from sweep.records.results_table import results_table
from sweep.records.sweep_storage import RecordIndex, SweepStorage, split_location
from trainables.errors import ConfigError, nearest

if TYPE_CHECKING:
    import pandas as pd

TableName = Literal["trials", "askings", "curves", "answers"]
_IDENTITY = ("model", "method", "content", "layer", "allocation", "alpha", "num_documents", "seed")
"""Fields of a trial that stand beside its askings, so that the commonest questions need no merging."""


def load_results(path: str | Path, table: TableName = "trials", *, asking: str | None = None) -> pd.DataFrame:
    """Return a table of results, made from the records as they are now; the sweep may be running.

    Args:
        path: `STORAGE/NAME`, one sweep, or `STORAGE`, all sweeps of a storage one after the other, where `sweep` says
            which of them ran a trial.
        table: `trials`, one row for each trial that has a record, with the columns of `results.parquet`; `askings`,
            one for each trial and asking; `curves`, one for each trial, curve and epoch; `answers`, one for each
            answer. docs/results.md lists the columns with their units.
        asking: of `askings` and `answers`, only this one, such as `fever` or `fever:num_shots=3`.

    Raises:
        ConfigError: there is no sweep, or no such table.
        DataError: a record cannot be read.
    """
    import pandas as pd

    if table not in TABLES:
        raise ConfigError(f"table={table!r}: must be one of {', '.join(TABLES)}{nearest(table, TABLES)}")
    storage, name = split_location(str(path))
    names = [name] if name else storage.sweeps()
    index = storage.index(set_aside=False)
    if table == "trials":
        tables = [results_table(storage, each, index).to_pandas() for each in names]
        whole: pd.DataFrame = pd.concat(tables, ignore_index=True)
        return whole
    records = {
        trial: folder_and_record for each in names for trial, folder_and_record in _records(storage, each, index)
    }
    if table == "curves":
        points: pd.DataFrame = pd.DataFrame(_curves(records), columns=["id", "sweep", "curve", "epoch", "value"])
        return points
    if table == "askings":
        first = ["id", "sweep", "asking", "probe", "version", "answers", *_IDENTITY]
        rows = [row for row in _askings(records) if asking in (None, row["asking"])]
        metrics = dict.fromkeys(name for row in rows for name in row if name not in first)
        asked: pd.DataFrame = pd.DataFrame(rows, columns=[*first, *metrics])
        return asked
    frames = list(_answers(storage, records, asking))
    empty: pd.DataFrame = pd.DataFrame(columns=["id", "sweep", "asking"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def _records(storage: SweepStorage, name: str, index: RecordIndex) -> Iterator[tuple[str, tuple[str, Record]]]:
    for trial in sweep_stages(storage, name, index):
        if trial in index:
            yield trial, (index[trial].folder, index[trial].record())


def _curves(records: dict[str, tuple[str, Record]]) -> Iterator[tuple[Any, ...]]:
    for trial, (_, record) in records.items():
        for name, points in record["curves"].items():
            for epoch, value in points:
                yield trial, record["sweep"], name, epoch, value


def _askings(records: dict[str, tuple[str, Record]]) -> Iterator[dict[str, Any]]:
    for trial, (folder, record) in records.items():
        versions = record.get("probe_versions") or {}
        for label, path in answers_paths(record, folder).items():
            own = {
                name[len(label) + 1 :]: value
                for name, value in record["metrics"].items()
                if name.startswith(f"{label}/")
            }
            stated = {**record["identity"], "model": record["model"]["name"]}
            yield {
                "id": trial, "sweep": record["sweep"], "asking": label, "probe": label.partition(":")[0],
                "version": versions.get(label, 1), "answers": path, **{n: stated.get(n) for n in _IDENTITY}, **own,
            }  # fmt: skip


def _answers(
    storage: SweepStorage, records: dict[str, tuple[str, Record]], asking: str | None
) -> Iterator[pd.DataFrame]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for trial, (folder, record) in records.items():
        for label, path in answers_paths(record, folder).items():
            if asking not in (None, label) or not path.endswith(".parquet") or record["status"] != "done":
                continue
            try:
                frame = pq.read_table(io.BytesIO(storage.read(path))).to_pandas()
            except (OSError, pa.ArrowException) as error:
                warnings.warn(f"{path}: left out, it is missing or broken ({error})", stacklevel=3)
                continue
            for place, (name, value) in enumerate((("id", trial), ("sweep", record["sweep"]), ("asking", label))):
                frame.insert(place, name, value)
            yield frame
