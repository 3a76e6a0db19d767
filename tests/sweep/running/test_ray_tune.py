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
from ray.tune.utils.object_cache import _ObjectCache

from sweep.records.sweep_storage import SweepStorage
from sweep.running.exchange import HandedPack
from sweep.running.executor import WorkerSettings
from sweep.running.ray_nodes import Nodes
from sweep.running.ray_packs import KEPT_S, KeptProcesses
from sweep.running.ray_tune import PackResources, RayTune, ReportsCallback, keep_keys_from_tune
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


class Keeping(tune.Trainable):  # type: ignore[misc]
    """Has three epochs, and notes each time that it is to keep a checkpoint, with the epoch."""

    def setup(self, config: dict[str, Any], secrets: Mapping[str, str] | None = None) -> None:
        self.epoch = 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        self.epoch += 1
        return {"epoch": self.epoch, "progress": {}, "results": [], "done": self.epoch == 3, "node": "n", "process": 1}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        with open(os.environ[PLACE], "a") as file:
            file.write(f"{self.epoch} ")

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


class ThenStops(Packs):
    """Hands out three packs one after the other, and is stopping once the last has reported its first epoch."""

    def __init__(self) -> None:
        super().__init__(3)
        self.reports = 0

    def next_pack(self) -> HandedPack | None:
        if self.over:
            return None
        self.left -= 1
        return HandedPack(str(self.left), {})

    @property
    def over(self) -> bool:
        return not self.left

    def report(self, pack: str, report: Mapping[str, Any]) -> None:
        self.reports += 1
        self.stopping = "asked to" if self.reports >= 7 else ""


@pytest.mark.slow
def test_a_pack_is_asked_to_keep_a_checkpoint_where_it_is_stopped_and_not_where_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path / "kept"))
    executor = RayTune(WorkerSettings("cpu"), PackResources(gpus=0, max_concurrent=1), trainable=Keeping)
    packs = ThenStops()
    with executor.session(SweepStorage(str(tmp_path / "out"))):
        executor.run(packs)  # type: ignore[arg-type]
    assert packs.reports == 8  # of the last pack's first epoch Tune has decided before it is passed on
    assert (tmp_path / "kept").read_text().split() == ["2"]


@pytest.mark.parametrize(
    ("stopping", "failure", "kept"), [("", None, False), ("asked", None, True), ("asked", {"kind": "bug"}, False)]
)
def test_a_report_of_a_sweep_that_stops_asks_for_a_checkpoint(stopping: str, failure: Any, kept: bool) -> None:
    packs = Packs(1)
    packs.stopping = stopping
    result = {"failure": failure, "epoch": 1}
    ReportsCallback(packs, {}, False).on_trial_result(1, [], None, result)  # type: ignore[arg-type]
    assert result.get("should_checkpoint", False) is kept


class SlowToStep(SlowToStart):
    """A step takes as long as a process needs to start; each process leaves a file."""

    def setup(self, config: dict[str, Any], secrets: Mapping[str, str] | None = None) -> None:
        (Path(os.environ[PLACE]) / str(os.getpid())).touch()

    def step(self) -> dict[str, Any]:
        time.sleep(START_S)
        return super().step()


class TwoStages(Packs):
    """Hands out two packs, and two more once the first two are over."""

    def __init__(self) -> None:
        super().__init__(5)
        self.ended = 0

    def next_pack(self) -> HandedPack | None:
        return None if self.left == 3 and self.ended < 2 else super().next_pack()

    @property
    def over(self) -> bool:
        return not self.left

    def close(self, pack: str) -> None:
        self.ended += 1


@pytest.mark.thorough(beside="test_a_process_for_each_slot_is_kept_for_a_while")
def test_the_next_stage_takes_over_the_processes_of_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    started.mkdir()
    monkeypatch.setenv(PLACE, str(started))
    executor = RayTune(WorkerSettings("cpu"), PackResources(cpus=0.5, gpus=0, max_concurrent=2), trainable=SlowToStep)
    packs = TwoStages()
    with executor.session(SweepStorage(str(tmp_path / "out"))):
        executor.run(packs)  # type: ignore[arg-type]
    assert packs.ended == 4 and len(list(started.iterdir())) == 2


class Controller:
    """What the scheduler has of Tune: its own cache of processes, under the name that Tune gives it."""

    def __init__(self) -> None:
        self._tune_controller = self
        self._actor_cache = _ObjectCache(may_keep_one=True)

    def kept(self, *free: str, resources: str = "1 CPU") -> list[str]:
        """Return which of the processes that become free now are still there after Tune has tidied up."""
        for process in free:
            self._actor_cache.cache_object(resources, process)
        ended = list(self._actor_cache.flush_cached_objects())
        return [process for process in free if process not in ended and self._actor_cache.pop_cached_object(resources)]


def test_a_process_for_each_slot_is_kept_for_a_while() -> None:
    clock = [0.0]
    tune_alone, controller, kept = Controller(), Controller(), KeptProcesses(now=lambda: clock[0])
    assert tune_alone.kept("a", "b") == ["a"]
    for slots in (1, 3, 2):
        kept.for_next(controller, "1 CPU", slots)
    assert controller.kept("a", "b") == ["a", "b"]
    clock[0] = KEPT_S / 2
    kept.look()
    assert controller.kept("a", "b") == ["a", "b"]
    clock[0] = KEPT_S + 1
    kept.look()
    assert controller._actor_cache.total_max_objects == 0
    kept.for_next(controller, "1 CPU", 2)
    assert controller.kept("a", "b") == ["a", "b"]


def test_no_process_is_kept_in_the_way_of_a_pack_with_other_resources() -> None:
    controller, kept = Controller(), KeptProcesses()
    kept.for_next(controller, "1 CPU", 2)
    kept.for_next(controller, "1 CPU elsewhere", 2)
    assert controller._actor_cache._max_num_objects == {"1 CPU": 0, "1 CPU elsewhere": 2}


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
