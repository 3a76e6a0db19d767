"""What a process of Ray's checks before it takes a pack; Ray itself does not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.node.map_batches import map_here
from trainables.pack.ray_data_map import RayDataMap
from trainables.pack.trainable import PackTrainable


def test_a_process_that_does_not_share_the_storage_takes_no_pack(tmp_path: Path) -> None:
    process = object.__new__(PackTrainable)
    process._device, process._work = "", None
    process._guarded(lambda: process._start({"plan_file": str(tmp_path / "plan.json")}))
    failure = process._failure
    assert failure is not None and failure.kind == "io" and "must share the storage" in failure.message
    assert str(tmp_path) in failure.message and process._work is None


@pytest.mark.parametrize("spread", [False, True])
def test_a_process_prepares_corpora_where_it_is_told(spread: bool, tmp_path: Path, monkeypatch) -> None:
    from sweep.running.executor import WorkerSettings
    from sweep.running.ray_tune import PackResources, RayTune
    from sweep.running.run_options import RunOptions, executor_for

    executor = executor_for(RunOptions(device="cpu", spread_corpus=spread))
    assert isinstance(executor, RayTune)
    settings = executor._worker_settings()
    assert settings == RayTune(WorkerSettings("cpu", None, spread), PackResources())._worker_settings()
    monkeypatch.setattr(PackTrainable, "_take_on", lambda self, work: None)
    (tmp_path / "plan.json").touch()
    process = object.__new__(PackTrainable)
    process._start({"plan_file": str(tmp_path / "plan.json"), "settings": settings})
    assert process._cache is not None
    found = process._cache.map_batches
    assert isinstance(found, RayDataMap) if spread else found is map_here
