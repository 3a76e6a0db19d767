"""Fixtures for tests of records, tables and MLflow: a storage, and records as a sweep leaves them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.records.record import Origin, Record, begin_record, complete_record
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import Tracking, resolve_tracking
from sweep.tracking.client import Runs
from trainables.lm.card import model_card
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.making import make_spec

FIELDS = {
    "model": "llama2-7b",
    "layer": 23,
    "alpha": 0.2,
    "allocation": "simset2",
    "num_documents": 1000,
    "memory_dim": 4096,
    "epochs": 3,
}
METRICS = {"memory/nll": 1.25, "memory/leakage": 0.5, "fever/accuracy": 0.5, "fever/f1_macro": 0.25}
CURVES = {"train/loss": [[1, 3.0], [2, 2.0], [3, 1.5]], "train/leakage": [[1, 0.9], [2, 0.7], [3, 0.5]]}


@pytest.fixture
def storage(tmp_path: Path) -> SweepStorage:
    return SweepStorage(str(tmp_path / "out"))


@pytest.fixture
def report_process() -> None:
    """Have runs of this process make their reports as users have them: by a process beside the run."""


@pytest.fixture(autouse=True)
def _reports_are_made_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs of this process make their reports themselves: a process for each would import for two seconds."""
    if "report_process" not in request.fixturenames:
        monkeypatch.setattr("sweep.running.end_report.EndReport.get_ready", lambda self: None)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for something that another thread or process does."""

    def wait(holds: Callable[[], bool], limit_s: float = 30.0) -> None:
        end = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.05)

    return wait


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in them: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    Runs(Tracking(f"sqlite:///{path}", "unused"), "none")
    return path


@pytest.fixture
def tracking(storage: SweepStorage, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """The default place for runs, its tables made."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    Path(storage.uri).mkdir(exist_ok=True)
    shutil.copy(empty_database, Path(storage.uri) / "mlflow.db")
    return resolve_tracking(storage)


@pytest.fixture
def begun() -> Callable[..., Record]:
    """Make the record of a trial that starts; keywords are spec fields."""

    def make(sweep: str = "demo", stage: str = "inductive", **values: Any) -> Record:
        spec = make_spec({**FIELDS, **values})
        card = model_card(spec.model)
        spec = canonical(spec, card)
        return begin_record(spec, identity(spec, card, "sample@v1"), card, Origin(sweep, stage, "pack-1"))

    return make


@pytest.fixture
def finished(begun: Callable[..., Record]) -> Callable[..., Record]:
    """Make the record of a trial that ended; `result` overrides parts of its result."""

    def make(
        sweep: str = "demo", stage: str = "inductive", result: dict[str, Any] | None = None, **values: Any
    ) -> Record:
        parts = {
            "status": "done",
            "metrics": METRICS,
            "curves": CURVES,
            "timings": {"train_s": 30.0, "pack_size": 4},
            "counts": {"n_full": 100, "n_top": 10, "n_trunc": 9},
            "flops": 1e12,
            "started_at": "2026-01-02T03:04:05.000+00:00",
            "finished_at": "2026-01-02T03:05:05.000+00:00",
        }
        return complete_record(begun(sweep, stage, **values), {**parts, **(result or {})})

    return make


@pytest.fixture
def save(storage: SweepStorage) -> Callable[[Record], str]:
    """Store a record in its sweep's folder and return the folder."""

    def put(record: Record) -> str:
        folder = f"{record['sweep']}/trains/lm_x/layer_0/1/none_0/alpha_0.0/{record['id']}"
        storage.write_record(record, folder)
        return folder

    return put
