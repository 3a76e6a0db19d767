"""What a run leaves behind is not made again while nothing that it was made from has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.made_up import write_sweep
from sweep.records.sweep_storage import SweepStorage
from sweep.running.made import Made
from sweep.tracking.address import Tracking


@pytest.fixture
def storage(tmp_path: Path) -> SweepStorage:
    storage = SweepStorage(str(tmp_path))
    write_sweep(storage, "s", 2)
    for file in ("results.parquet", "mlflow.db"):
        (tmp_path / "s" / file).write_bytes(b"x")
    return storage


def made(storage: SweepStorage, *files: str, experiment: str = "memory-sweep", name: str = "s") -> Made:
    tracking = Tracking(f"sqlite:///{storage.uri}/s/mlflow.db", experiment)
    return Made(storage, name, storage.index(), tracking, ("results.parquet", *files))


def test_nothing_is_there_before_a_run_has_said_so(storage):
    assert not made(storage).is_there()
    made(storage).note()
    assert made(storage).is_there() and made(storage).is_there()


def test_a_server_is_asked_every_time(storage):
    of_server = Made(storage, "s", storage.index(), Tracking("http://127.0.0.1:5000", "memory-sweep"), ())
    of_server.note()
    assert not of_server.is_there() and not storage.exists("s/made.json")


@pytest.mark.parametrize(
    "change", ["record", "table", "database", "no database", "experiment", "report", "plan", "broken"]
)
def test_any_change_is_noticed(storage, change: str):
    made(storage).note()
    files: tuple[str, ...] = ()
    experiment, folder = "memory-sweep", Path(storage.uri) / "s"
    if change == "record":
        write_sweep(storage, "other", 4)  # trials here may be compared with them
    elif change == "table":
        (folder / "results.parquet").unlink()
    elif change == "database":
        stood = (folder / "mlflow.db").stat()
        os.utime(folder / "mlflow.db", ns=(stood.st_atime_ns, stood.st_mtime_ns + 1))
    elif change == "no database":
        (folder / "mlflow.db").unlink()
    elif change == "experiment":
        experiment = "another"
    elif change == "report":
        files = ("report/report.html",)
    elif change == "plan":
        (folder / "plan.json").write_bytes((folder / "plan.json").read_bytes() + b" ")
    else:
        (folder / "made.json").write_text("{")
    assert not made(storage, *files, experiment=experiment).is_there()
