"""How Tune is used, with packs that do nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.utils.object_cache import _ObjectCache

import trainables
from sweep.records.sweep_storage import SweepStorage
from sweep.running import ray_environment
from sweep.running.exchange import HandedPack
from sweep.running.executor import WorkerSettings
from sweep.running.ray_environment import inherited_environment, runtime_env
from sweep.running.ray_nodes import Nodes
from sweep.running.ray_packs import KEPT_S, KeptProcesses
from sweep.running.ray_tune import PackResources, RayTune, ReportsCallback, variables_kept_from_tune
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
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "hidden")

    def told() -> str:
        return str(class_cache._ActorClassCache().get(SlowToStart)._default_options)

    assert "hidden" in told(), "Tune does it no longer: variables_kept_from_tune may go"
    with variables_kept_from_tune(all_of_them=False):
        assert "hidden" not in told() and "PL_DISABLE_FORK" in told()
    with variables_kept_from_tune(all_of_them=True):
        assert not class_cache._ActorClassCache().get(SlowToStart)._default_options.get("runtime_env")
    assert "hidden" in told()


class SaysWhoItIs(tune.Trainable):  # type: ignore[misc]
    """Is done at once, and tells its process, where that process would import from, and what it inherited."""

    def setup(self, config: dict[str, Any], secrets: Mapping[str, str] | None = None) -> None: ...

    def step(self) -> dict[str, Any]:
        import trainables

        told = {name: os.environ.get(name) for name in ("TOKENIZERS_PARALLELISM", PLACE)}
        told |= {"package": trainables.__file__}
        return {"progress": {}, "results": [], "done": True, "node": "n", "process": os.getpid(), "told": told}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None: ...


class Hears(Packs):
    """Hands out a pack or two, and keeps what it reports."""

    def report(self, pack: str, report: Mapping[str, Any]) -> None:
        self.processes.add(report["process"])
        self.told = report["told"]


@pytest.mark.thorough(beside="test_workers_of_a_ray_of_our_own_inherit_what_others_are_told")
def test_packs_get_the_processes_that_ray_starts_with_and_these_have_all_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, "seen")
    monkeypatch.chdir(tmp_path)  # not the checkout, whose folder Ray would tell its processes of
    before = dict(os.environ)
    executor = RayTune(WorkerSettings("cpu"), PackResources(gpus=0, max_concurrent=1), trainable=SaysWhoItIs)
    packs = Hears(2)
    with executor.session(SweepStorage(str(tmp_path / "out"))):
        waiting = _workers(2)
        executor.run(packs)  # type: ignore[arg-type]
    assert packs.processes and packs.processes <= waiting
    assert packs.told == {"TOKENIZERS_PARALLELISM": "false", PLACE: "seen", "package": trainables.__file__}
    assert {name for name in before if os.environ.get(name) != before[name]} <= {"RAY_CHDIR_TO_TRIAL_DIR"}


def test_workers_of_a_ray_of_our_own_inherit_what_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("RAY_CHDIR_TO_TRIAL_DIR", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before, told = dict(os.environ), runtime_env()["env_vars"]
    with inherited_environment():
        assert told.items() <= os.environ.items()
        where = "import trainables; print(trainables.__file__)"
        seen = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert seen.stdout.strip() == trainables.__file__
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert dict(os.environ) == before


@pytest.mark.parametrize("before", [None, "mine"])
def test_where_packages_are_installed_is_not_put_before_pythons_own_modules(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    installed = Path(sysconfig.get_path("purelib")) / "trainables"
    monkeypatch.setattr(ray_environment, "_worker_package", lambda: installed)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before:
        monkeypatch.setenv("PYTHONPATH", before)
    with inherited_environment():
        assert os.environ.get("PYTHONPATH") == before


def _workers(at_least: int) -> set[int]:
    """Wait until Ray has started so many processes that work, and return all of them."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = {p.pid for p in psutil.Process().children(recursive=True) if "ray::IDLE" in " ".join(_command(p))}
        if len(found) >= at_least:
            return found
        time.sleep(0.1)
    raise AssertionError("Ray has started no processes")


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


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
