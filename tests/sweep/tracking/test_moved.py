"""A storage that has been moved keeps its artifacts, and leaves the old place alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from mlflow.tracking._tracking_service import utils

from sweep.records.sweep_storage import SweepStorage
from sweep.report.findings import publish_compared
from sweep.tracking.address import Tracking, resolve_tracking
from sweep.tracking.client import Runs
from sweep.tracking.moved import follow_move
from sweep.tracking.report_artifacts import log_report


def artifacts(storage: SweepStorage, tracking: Tracking) -> dict[str, set[str]]:
    """The files of every sweep's run, by the folder that MLflow names."""
    runs = Runs(tracking, storage.storage_id())
    found: dict[str, set[str]] = {}
    for head in runs.find():
        if head.kind == "sweep":
            place = runs._client.get_run(head.run).info.artifact_uri
            found[place] = {file.path for file in runs._client.list_artifacts(head.run)}
    return found


def test_a_moved_storage_keeps_its_artifacts_and_makes_nothing_at_the_old_place(
    storage: SweepStorage, tracking: Tracking, finished, save, tmp_path: Path
) -> None:
    save(finished())
    publish_compared(storage, ["demo"], tracking)
    (before,) = artifacts(storage, tracking).values()
    assert "results.parquet" in before
    old, new = Path(storage.uri), tmp_path / "elsewhere" / "new home"
    new.parent.mkdir()
    shutil.move(old, new)
    moved = SweepStorage(str(new))
    now = resolve_tracking(moved)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("x")
    utils._artifact_repos_cache.clear()  # MLflow's client keeps places by run; a later command is another process
    assert log_report(moved, ["demo"], tmp_path / "report", None, None) == []
    ((place, files),) = artifacts(moved, now).items()
    assert files == before | {"report"} and place.startswith((new / "mlartifacts").as_uri())
    assert publish_compared(moved, ["demo"], now)["created"] == 0
    assert not old.exists() and follow_move(now) == []


def test_a_copy_has_artifacts_of_its_own(
    storage: SweepStorage, tracking: Tracking, finished, save, tmp_path: Path
) -> None:
    save(finished())
    publish_compared(storage, ["demo"], tracking)
    copy = SweepStorage(shutil.copytree(storage.uri, tmp_path / "copy"))
    assert follow_move(resolve_tracking(copy)) == [(Path(storage.uri) / "mlartifacts").as_uri()]
    (place,) = artifacts(copy, resolve_tracking(copy))
    assert place.startswith((tmp_path / "copy" / "mlartifacts").as_uri())
    assert all(place.startswith(tracking.artifacts or "") for place in artifacts(storage, tracking))


def test_artifacts_that_lie_elsewhere_on_purpose_stay_there(
    storage: SweepStorage, tracking: Tracking, tmp_path: Path
) -> None:
    other = Tracking(tracking.uri, "other", (tmp_path / "large disk").as_uri())
    Runs(other, "x")
    Runs(tracking, "x")
    assert follow_move(tracking) == []
    link = tmp_path / "link"
    link.symlink_to(storage.uri)
    (Path(storage.uri) / "mlartifacts").mkdir(exist_ok=True)
    assert follow_move(resolve_tracking(SweepStorage(str(link)))) == [], "the same folder by another name"
    found = Runs(other, "x")
    assert found._client.get_experiment(found.experiment_id).artifact_location == other.artifacts
