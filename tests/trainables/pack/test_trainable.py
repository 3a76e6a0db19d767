"""What a process of Ray's checks before it takes a pack; Ray itself does not run."""

from __future__ import annotations

from pathlib import Path

from trainables.pack.trainable import PackTrainable


def test_a_process_that_does_not_share_the_storage_takes_no_pack(tmp_path: Path) -> None:
    process = object.__new__(PackTrainable)
    process._device, process._work = "", None
    process._guarded(lambda: process._start({"plan_file": str(tmp_path / "plan.json")}))
    failure = process._failure
    assert failure is not None and failure.kind == "io" and "must share the storage" in failure.message
    assert str(tmp_path) in failure.message and process._work is None
