"""What every executor must do: one suite, run by Ray Tune and in this process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.load import asked_space
from sweep.planning.plan_of import plan_of
from sweep.records.record import Record
from sweep.records.steering import read_steering
from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.running.display import Display
from sweep.running.exchange import PackExchange
from sweep.running.executor import Capacity, Executor
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.running.progress import SweepProgress
from sweep.running.run_options import RunOptions, executor_for
from sweep.space import ALL, Best, LogUniform, Sampling, Space, Stage
from tests.rows import OpenRow
from tests.sweep.running.faults import POISONED, VARIABLE, FaultyTrainable, FaultyWork, applied, plan

ROOT = Path(__file__).resolve().parents[3]
BEST = Best(field="layer", stage="select", per=("model",))


@pytest.fixture(scope="module")
def space(tiny_models: dict[str, Path], sample_data: Path) -> Space:
    return Space(
        baseline=False,
        name="both",
        title="a tiny staged study",
        axes={"model": [str(tiny_models["llama"])], "layer": [0, 2], "alpha": [0, 1.0]},
        fixed={
            "data": str(sample_data),
            "allocation": "partitioned",
            "memory_dim": 16,
            "epochs": 3,
            "num_documents": 3,
            "segment_tokens": 32,
            "claims_per_page": 1,
            "checkpoint_every_s": 1000,
        },
        stages=(
            Stage(name="select", axes={"model": ALL, "layer": ALL}, fixed={"alpha": 0}),
            Stage(name="inductive", axes={"model": ALL, "alpha": ALL}, take=BEST),
        ),
    )


class Recorder:
    """Stands in for the MLflow feed: notes what it is told, and may act on an epoch."""

    trouble = ""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.epochs: dict[str, list[int]] = {}
        self.finished: list[Record] = []
        self.on_epoch: Callable[[str, int], None] = lambda trial, epoch: None

    def start_trial(self, begun: Record) -> None:
        self.began.append(begun["id"])

    def epoch(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self.epochs.setdefault(trial, []).append(int(epoch))
        self.on_epoch(trial, int(epoch))

    def finish(self, record: Record) -> None:
        self.finished.append(record)


class Run:
    """One run of a space with an executor that is ready; `ledger` and `heard` tell what happened."""

    def __init__(self, executor: Executor, capacity: Capacity, space: Space, folder: Path, size: int = 2) -> None:
        self.storage, self.executor = SweepStorage(str(folder)), executor
        index = self.storage.index()
        choices = read_sweep_file(self.storage, "both", CHOICES) or {}
        plan = plan_of(asked_space(space), index, choices, self.storage, "both")
        self.said: list[str] = []
        self.ledger = Ledger(
            plan,
            self.storage,
            "both",
            index,
            choices,
            Packing(lambda point: size, capacity.slots),
            False,
            self.said.append,
            steering=read_steering(self.storage, "both"),
        )
        self.heard = Recorder()

    def go(self) -> dict[str, Record]:
        """Run, and return all records of the storage."""
        display = Display(SweepProgress("both"), every_s=1e9)
        self.executor.run(PackExchange(self.ledger, self.heard, display, {}))  # type: ignore[arg-type]
        return {head.id: head.record() for head in self.storage.index().values()}

    def trainings(self, trials: Iterable[str]) -> list[str]:
        """The ids of the trainings that some trials need, by which checkpoints are named."""
        points = [point for stage in self.ledger.plan.stages for point in stage.points]
        return sorted({point.training for point in points if point.id in set(trials)})

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.stem for path in Path(self.storage.uri, "both", "checkpoints").glob("*.safetensors"))


Open = Callable[..., Run]


@pytest.fixture(scope="module", params=["local", "ray"])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An executor within its session, one pack at a time on one thread."""
    yield from faulty(request.param, tmp_path_factory)


def faulty(name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An executor whose packs fail as a plan says."""
    alone = {} if name == "local" else {"max_concurrent": 1}
    executor = executor_for(RunOptions(executor=name, device="cpu", cpus=1, **alone))
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder))
        patch.setenv("MEMORY_SWEEP_IO_PATIENCE_S", "0.1")
        patch.setattr("trainables.pack.worker.PackWork", FaultyWork)
        if name == "ray":
            executor._trainable = FaultyTrainable
        yield from opened(executor, tmp_path_factory)


def opened(executor: Executor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    executor.check()
    with executor.session(SweepStorage(str(tmp_path_factory.mktemp("session")))) as capacity:
        assert capacity.slots == 1 and not capacity.on_gpu and capacity.pack_memory_bytes() > 0
        yield executor, capacity


@pytest.fixture
def faults(ready: Any) -> Iterator[Path]:
    """The folder of the plan of faults, none yet."""
    folder = Path(os.environ[VARIABLE])
    plan(folder)
    yield folder
    plan(folder)
    POISONED.clear()


@pytest.fixture
def start(ready: Any, space: Space, tmp_path: Path) -> Open:
    """Open a run of `space`, or of another one, in the test's storage."""

    def open_run(other: Space | None = None, size: int = 2) -> Run:
        return Run(*ready, other or space, tmp_path / "out", size)

    return open_run


@pytest.fixture(scope="module")
def ran(ready: Any, space: Space, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Record]]:
    """A run of `space` to its end, and its records."""
    run = Run(*ready, space, tmp_path_factory.mktemp("ran") / "out")
    return run, run.go()


RESULTS: dict[str, dict[str, Any]] = {}


def outcome(records: Mapping[str, Record]) -> dict[str, Any]:
    """Statuses, metrics and curves, flat."""
    flat: dict[str, Any] = {}
    for trial, record in records.items():
        flat[trial] = record["status"]
        flat |= {f"{trial} {name}": value for name, value in record["metrics"].items()}
        for name, curve in record["curves"].items():
            flat |= {f"{trial} {name} {epoch}": value for epoch, value in curve}
    return flat


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Equal, up to the rounding of another process's kernels."""
    assert {name: v for name, v in one.items() if isinstance(v, str)} == {
        name: v for name, v in other.items() if isinstance(v, str)
    }
    assert {name: v for name, v in one.items() if not isinstance(v, str)} == pytest.approx(
        {name: v for name, v in other.items() if not isinstance(v, str)}, rel=1e-5, abs=1e-6
    )
    return True


def longer(space: Space, epochs: int) -> Space:
    return replace(space, fixed={**space.fixed, "epochs": epochs})


def test_stages_open_and_results_are_the_same_whatever_executes_them(
    ran: tuple[Run, dict[str, Record]], request: Any
) -> None:
    run, found = ran
    assert len(found) == 3 and {record["status"] for record in found.values()} == {"done"}
    assert run.ledger.exhausted and run.ledger.outcome()["missing"] == 0 and not run.checkpoints
    assert any(line.startswith("chosen: layer") for line in run.said)
    assert sorted(run.heard.began) == sorted(found) == sorted(record["id"] for record in run.heard.finished)
    assert all(epochs == sorted(epochs) and epochs[-1] == 3 for epochs in run.heard.epochs.values())
    assert all(record["versions"]["torch"] for record in found.values())
    RESULTS[request.node.callspec.params["ready"]] = outcome(found)
    first, *others = [value for name, value in RESULTS.items() if not name.endswith("sampled")]
    assert all(same(first, other) for other in others)


def test_what_is_recorded_is_not_run_again(ran: tuple[Run, dict[str, Record]], ready: Any, space: Space) -> None:
    run, found = ran
    again = Run(*ready, space, Path(run.storage.uri))
    assert again.go() == found and again.heard.began == []


@pytest.mark.thorough(only=("ray",))
def test_an_interrupted_run_keeps_checkpoints_and_the_next_one_goes_on_from_them(
    start: Open, space: Space, ready: Any, tmp_path: Path
) -> None:
    whole = Run(*ready, longer(space, 5), tmp_path / "whole").go()
    run = start(longer(space, 5))
    run.heard.on_epoch = lambda trial, epoch: run.ledger.stop("interrupted") if not run.ledger.stopping else None
    assert run.go() == {}
    begun = set(run.heard.began)
    assert run.checkpoints == run.trainings(begun) and len(begun) == 2, "both layers, in one pack"
    rest = start(longer(space, 5))
    found = rest.go()
    assert same(outcome(found), outcome(whole)) and not rest.checkpoints
    assert all(rest.heard.epochs[trial][0] > 1 for trial in begun)


@pytest.mark.thorough(only=("ray",))
def test_the_stop_file_ends_packs_after_their_epoch_with_a_checkpoint(start: Open, space: Space) -> None:
    run = start(longer(space, 5), size=1)
    run.heard.on_epoch = lambda trial, epoch: Path(run.ledger.stop_file.path).touch()
    assert run.go() == {}
    assert run.checkpoints == run.trainings(run.heard.began) and len(run.checkpoints) == 2
    assert run.ledger.outcome()["missing"] == 3


@pytest.mark.thorough(only=("ray",))
def test_a_model_that_breaks_fails_its_trials_and_the_other_models_go_on(
    start: Open, space: Space, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_models["gpt_neox"], model)
    run = start(replace(space, axes={**space.axes, "model": [str(model), *space.axes["model"]]}))
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    found = run.go()
    broken = [record for record in found.values() if record["model"]["given"] == str(model)]
    assert len(broken) == 2 and {record["status"] for record in broken} == {"failed"}
    assert all(str(model) in record["error"]["message"] for record in broken)
    assert len(found) == 5 and sum(record["status"] == "done" for record in found.values()) == 3
    assert any(line.startswith("stage cannot go on: layer for") for line in run.said)


@pytest.mark.thorough(only=("ray",))
def test_a_bug_is_tried_once_more_and_then_recorded_with_its_traceback(start: Open, faults: Path) -> None:
    run = start(size=1)
    point = run.ledger.backlog.queue.packs[0].points[0]
    first = point.id
    plan(faults, {"kind": "bug", "trial": point.training, "times": 2})
    found = run.go()
    assert found[first]["status"] == "failed" and found[first]["error"]["class"] == "bug"
    assert "ZeroDivisionError" in found[first]["error"]["traceback"] and len(applied(faults)) == 2
    assert {record["status"] for trial, record in found.items() if trial != first} == {"done"}
    assert not run.ledger.stopping and run.ledger.exhausted
    assert any("not decided while candidates of select lack a result" in line for line in run.said)
    assert len(found) == 2, "the stage that waits for the choice is not run"


@pytest.mark.thorough(only=("ray",))
def test_a_failure_that_is_no_trials_own_is_tried_again_and_leaves_no_trace(
    start: Open, space: Space, faults: Path
) -> None:
    run = start(longer(space, 4), size=1)
    plan(faults, {"kind": "device", "after": 2}, {"kind": "connection"})
    found = run.go()
    assert sorted(applied(faults)) == [0, 1]
    assert len(found) == 3 and {record["status"] for record in found.values()} == {"done"}
    assert not run.ledger.stopping and not run.checkpoints and len(run.heard.finished) == 3
    assert sorted(run.heard.began) == sorted(found), "a trial that is tried again is announced once"


@pytest.mark.thorough(only=("ray",))
def test_a_failure_that_never_ends_stops_the_sweep_and_the_next_run_goes_on(
    start: Open, space: Space, faults: Path, row: OpenRow
) -> None:
    row("every pack fails for want of disk", 3, "the sweep stops; nothing failed; goes on")
    run = start(longer(space, 4), size=1)
    plan(faults, {"kind": "io", "after": 2, "times": 100})
    assert run.go() == {}
    assert "failed alike" in run.ledger.stopping and "No space left on device" in run.ledger.stopping
    assert run.ledger.outcome()["failed"] == 0 and run.ledger.outcome()["missing"] == 3
    plan(faults)
    again = start(longer(space, 4), size=1)
    assert {record["status"] for record in again.go().values()} == {"done"} and len(again.heard.finished) == 3


@pytest.mark.thorough(only=("ray",))
def test_packs_that_do_not_fit_are_halved_and_a_single_trial_fails_for_memory(
    start: Open, space: Space, faults: Path, row: OpenRow
) -> None:
    row("a pack does not fit the memory", 1, "halved; all trials done")
    pair = replace(space, stages=(Stage(name="select", axes={"alpha": ALL, "model": ALL}, fixed={"layer": 0}),))
    pair = replace(pair, axes={**pair.axes, "alpha": [0.5, 1.0]})
    plan(faults, {"kind": "memory", "members": 2, "times": 1})
    run = start(pair, size=2)
    assert {record["status"] for record in run.go().values()} == {"done"} and applied(faults) == [0]


@pytest.mark.thorough(only=("ray",))
def test_a_trial_that_does_not_fit_alone_says_so(start: Open, faults: Path) -> None:
    plan(faults, {"kind": "memory", "times": 1})
    run = start(size=1)
    found = run.go()
    (failed,) = [record for record in found.values() if record["status"] == "failed"]
    assert failed["error"]["class"] == "memory" and "out of memory" in failed["error"]["message"]
    assert any("left out: " in line and "failed (memory: out of memory" in line for line in run.said)
    assert len(found) == 3


def sampled(space: Space) -> Space:
    """Two sampled stages that look at different metrics, in different directions."""
    fields = {"alpha": LogUniform(0.05, 5.0), "lr": LogUniform(1e-5, 1e-1)}
    few = {"num_samples": 5, "grace_epochs": 2, "reduction": 2}
    return replace(
        longer(space, 5),
        stages=(
            space.stages[0],
            Stage(name="best", axes={"model": ALL}, take=BEST, sampling=Sampling(fields=fields, **few)),
            Stage(
                name="worst",
                axes={"model": ALL},
                fixed={"layer": 1},
                sampling=Sampling(fields=fields, metric="train/loss", mode="max", **few),
            ),
        ),
    )


@pytest.mark.thorough(only=("ray",))
def test_sampled_trials_are_stopped_early_by_their_own_stages_metric(start: Open, space: Space, request: Any) -> None:
    run = start(sampled(space), size=8)
    found = run.go()
    for stage, metric, better in (("best", "train/nll", min), ("worst", "train/loss", max)):
        drawn = [record for record in found.values() if record["stage"] == stage]
        assert len(drawn) == 5 and {record["status"] for record in drawn} == {"done", "stopped"}
        kept = [r["curves"][metric][1][1] for r in drawn if r["status"] == "done"]
        cut = [r["curves"][metric][1][1] for r in drawn if len(r["curves"][metric]) == 2]
        assert better(kept + cut) in kept
        assert all(len(r["curves"][metric]) in ((5,) if r["status"] == "done" else (2, 4)) for r in drawn)
    grid = [record for record in found.values() if record["stage"] == "select"]
    assert {record["status"] for record in grid} == {"done"}
    again = start(sampled(space), size=8)
    again.go()
    assert again.heard.began == []
    RESULTS[request.node.callspec.params["ready"] + " sampled"] = outcome(found)
    mine = [value for name, value in RESULTS.items() if name.endswith("sampled")]
    assert all(same(mine[0], other) for other in mine[1:])


@pytest.mark.thorough(only=("ray",))
def test_what_the_exchange_raises_ends_the_run(start: Open) -> None:
    run = start(size=1)

    def broken(trial: str, epoch: int) -> None:
        raise RuntimeError("the storage is gone")

    run.heard.on_epoch = broken
    with pytest.raises(RuntimeError, match="the storage is gone"):
        run.go()


@pytest.mark.thorough(beside="tests/sweep/test_imports.py::test_what_a_part_of_the_driver_imports")
def test_the_local_executor_imports_no_ray(space: Space, tmp_path: Path) -> None:
    """A whole run by the command, in a process of its own where Ray cannot be imported."""
    small = {**space.fixed, "model": space.axes["model"][0], "layer": 2, "alpha": 1.0}
    stage = "Stage(name='only', axes={})"
    file = tmp_path / "small.py"
    stated = f"name='small', title='', axes={{}}, fixed={small!r}, stages=({stage},)"
    file.write_text(f"from sweep import Space, Stage\nspace = Space(baseline=False, {stated})\n")
    code = (
        "import runpy, sys\n"
        "sys.modules['ray'] = None\n"
        f"sys.argv = ['run', {str(file)!r}, '--executor', 'local', '--storage', {str(tmp_path)!r}]\n"
        "try:\n    runpy.run_module('sweep.run', run_name='__main__')\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert not [name for name in sys.modules if name.startswith('ray.')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = [head.record() for head in SweepStorage(str(tmp_path)).index().values()]
    assert record["status"] == "done"
