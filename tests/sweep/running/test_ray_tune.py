"""How Tune is used, with packs that do nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.execution import class_cache

from sweep.records.sweep_storage import SweepStorage
from sweep.running.exchange import HandedPack
from sweep.running.executor import WorkerSettings
from sweep.running.ray_nodes import Nodes
from sweep.running.ray_tune import PackResources, RayTune, keep_keys_from_tune
from tests.rows import OpenRow

PLACE = "MEMORY_SWEEP_TEST_STARTED"
START_S, STEP_S = 4.0, 0.2


class SlowToStart(tune.Trainable):  # type: ignore[misc]
    """The first process is there at once; every other takes longer than many packs."""

    def setup(self, config: dict[str, Any], secrets: Mapping[str, str] | None = None) -> None:
        try:
            Path(os.environ[PLACE]).touch(exist_ok=False)
        except FileExistsError:
            time.sleep(START_S)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(STEP_S)
        return {"progress": {}, "results": [], "done": True, "node": "n", "process": os.getpid()}

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...

    def load_checkpoint(self, checkpoint: Any) -> None: ...


class Packs:
    """Stands in for the exchange: hands out packs until two processes have run some, or there are no more."""

    stopping, left_out = "", frozenset[str]()

    def __init__(self, number: int) -> None:
        self.left, self.processes = number, set[int]()

    def next_pack(self) -> HandedPack | None:
        self.left -= not self.over
        return None if self.over else HandedPack(str(self.left), {}, "")

    @property
    def over(self) -> bool:
        return not self.left or len(self.processes) == 2

    def report(self, pack: str, report: Mapping[str, Any]) -> None:
        self.processes.add(report["process"])

    def close(self, pack: str) -> None: ...

    def show_progress(self) -> None: ...


def test_keys_of_storages_are_in_no_runtime_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", class_cache.ENV_VARS_TO_PROPAGATE)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "hidden")
    made = class_cache._ActorClassCache().get(SlowToStart)
    assert "hidden" in str(made._default_options), "Tune does it no longer: keep_keys_from_tune may go"
    keep_keys_from_tune()
    made = class_cache._ActorClassCache().get(SlowToStart)
    assert "hidden" not in str(made._default_options) and "PL_DISABLE_FORK" in str(made._default_options)


@pytest.mark.slow
def test_a_process_that_starts_gets_its_pack_though_others_are_free_sooner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: OpenRow
) -> None:
    row("a process is started (a late node, a replacement) while packs are shorter than its start", 1, "it gets packs")
    monkeypatch.setenv(PLACE, str(tmp_path / "started"))
    executor = RayTune(WorkerSettings("cpu"), PackResources(cpus=0.5, gpus=0, max_concurrent=2), trainable=SlowToStart)
    packs = Packs(200)
    with executor.session(SweepStorage(str(tmp_path / "out"))):
        executor.run(packs)  # type: ignore[arg-type]
    assert len(packs.processes) == 2 and packs.left


@pytest.mark.parametrize(
    ("device", "asked", "there", "told"),
    [
        ("auto", 0.0, 1.0, ("cpu", 1.0)),
        ("auto", None, 0.0, ("cpu", 1.0)),
        ("auto", None, 2.0, ("auto", 1.0)),
        ("auto", 0.25, 1.0, ("auto", 0.25)),
        ("cpu", None, 1.0, ("cpu", 1.0)),
        ("cuda", 0.5, 1.0, ("cuda", 0.5)),
    ],
)
def test_workers_are_told_a_device_and_a_share_that_are_theirs(
    device: str, asked: float | None, there: float, told: tuple[str, float]
) -> None:
    executor = RayTune(WorkerSettings(device), PackResources(gpus=asked))
    executor._gpus = executor._gpus_of_a_pack(Nodes((4.0,), (there,), attached=False))
    settings = executor._worker_settings()
    assert (settings["device"], settings["gpu_share"]) == told
