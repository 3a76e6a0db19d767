"""Put a report's folder onto the MLflow run of each sweep it is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.address import resolve_tracking
from sweep.tracking.client import told_in_one_line
from sweep.tracking.link import no_database
from sweep.tracking.moved import follow_move

ARTIFACTS = "report"


def log_report(
    storage: SweepStorage, names: Sequence[str], folder: Path, uri: str | None, experiment: str | None
) -> list[str]:
    """Log a folder as artifacts `report/` of the sweeps' own runs.

    Args:
        storage: the storage whose sweeps these are.
        names: sweeps.
        folder: local folder of the report.
        uri: tracking address, resolved as `sweep.tracking.address.resolve_tracking` does.
        experiment: experiment's name, likewise.

    Returns:
        One line for each sweep that has no run yet.

    Raises:
        TrackingError: MLflow does not answer.
    """
    tracking = resolve_tracking(storage, uri, experiment)
    missing = no_database(storage, tracking)  # a SQLite file is not to be made here
    if missing:
        return [f"not in MLflow: {missing}"]
    lines = []
    with told_in_one_line(tracking.uri):
        from mlflow import MlflowClient

        follow_move(tracking)
        client = MlflowClient(tracking_uri=tracking.uri)
        found = client.get_experiment_by_name(tracking.experiment)
        for name in names:
            wanted = {"kind": "sweep", "sweep": name, "storage": storage.storage_id()}
            terms = " and ".join(f"tags.{key} = '{value}'" for key, value in wanted.items())
            runs = client.search_runs([found.experiment_id], terms) if found else []
            for run in runs:
                client.log_artifacts(run.info.run_id, str(folder), ARTIFACTS)
            if not runs:
                lines.append(f"not in MLflow: no run of {name}; python -m sweep.publish {storage.full(name)} makes it")
    return lines
