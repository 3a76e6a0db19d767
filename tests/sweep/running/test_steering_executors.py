"""A sweep steered while an executor runs it: the same by Ray Tune and in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.load import asked_space
from sweep.planning.plan_of import plan_of
from sweep.records.record import Record
from sweep.records.steering import (
    ADD,
    FINISH_EARLY,
    PAUSE,
    RESUME,
    STOP,
    Steering,
    new_wish,
    read_steering,
    waiting_wishes,
    write_wish,
)
from sweep.running import wishes
from sweep.running.display import Display
from sweep.running.exchange import PackExchange
from sweep.running.progress import SweepProgress
from sweep.running.run_options import RunOptions, executor_for
from sweep.running.wishes import Wishes
from sweep.space import Space
from tests.sweep.running.test_executors import Run, longer, opened, outcome, same, space

__all__ = ["space"]


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An executor within its session, one pack at a time on one thread."""
    alone = {} if request.param == "local" else {"max_concurrent": 1}
    yield from opened(executor_for(RunOptions(executor=request.param, device="cpu", cpus=1, **alone)), tmp_path_factory)


class SteeredRun(Run):
    """A run that hears wishes; `at` does something once, when a trial reports an epoch."""

    def __init__(self, executor: Any, capacity: Any, space: Space, folder: Path, size: int = 2) -> None:
        super().__init__(executor, capacity, space, folder, size)
        self.progress = SweepProgress("both")
        self.space = space

        def more(steering: Steering) -> Any:
            index, choices = self.ledger.backlog.known.index, self.ledger.backlog.choosing.choices
            return plan_of(asked_space(space), index, choices, self.storage, "both", steering=steering)

        self.wishes = Wishes(self.ledger, self.said.append, more)
        self.wishes._every_s = 0.0

    def ask(self, command: str, **parts: Any) -> None:
        write_wish(self.storage, "both", new_wish(command, **parts))

    def at(self, epoch: int, act: Callable[[str], None]) -> None:
        done: list[bool] = []

        def heard(trial: str, at: int) -> None:
            if at == epoch and not done:
                done.append(True)
                act(trial)

        self.heard.on_epoch = heard

    def go(self) -> dict[str, Record]:
        display = Display(self.progress, every_s=1e9)
        exchange = PackExchange(self.ledger, self.heard, display, {}, self.wishes)  # type: ignore[arg-type]
        self.executor.run(exchange)
        return {head.id: head.record() for head in self.storage.index().values()}


def test_a_paused_sweep_keeps_checkpoints_and_resumed_gives_what_it_gives_alone(
    ready: Any, space: Space, tmp_path: Path, monkeypatch: Any
) -> None:
    whole = Run(*ready, longer(space, 6), tmp_path / "whole").go()
    run = SteeredRun(*ready, longer(space, 6), tmp_path / "out")
    run.at(1, lambda trial: run.ask(PAUSE))
    kept: list[list[str]] = []

    def hear(at_once: bool = False, old: Any = run.wishes.hear) -> bool:
        heard = bool(old(at_once))
        if run.ledger.steering.paused and not run.ledger.under_way and not kept:
            kept.append(run.checkpoints)
            assert run.ledger.next_pack() is None and not run.ledger.exhausted
            run.ask(RESUME)
        return heard

    monkeypatch.setattr(run.wishes, "hear", hear)
    found = run.go()
    assert kept == [run.trainings(run.heard.began[:2])] and len(kept[0]) == 2, "two layers, one pack"
    assert same(outcome(found), outcome(whole)) and not run.checkpoints
    assert all(max(epochs) == 6 and len(set(epochs)) == len(epochs) for epochs in run.heard.epochs.values())
    assert not waiting_wishes(run.storage, "both") and not run.storage.exists("both/stop")
    assert [wish.command for wish in read_steering(run.storage, "both").wishes] == [PAUSE, RESUME]


def test_a_stopped_candidate_ends_after_its_epoch_and_is_named_in_the_choice(
    ready: Any, space: Space, tmp_path: Path
) -> None:
    whole = Run(*ready, longer(space, 6), tmp_path / "whole").go()
    run = SteeredRun(*ready, longer(space, 6), tmp_path / "out")
    picked: list[str] = []
    run.at(1, lambda trial: (picked.append(trial), run.ask(STOP, trial=trial)))
    found = run.go()
    (trial,) = picked
    assert found[trial]["status"] == "stopped" and found[trial]["curves"]["train/nll"][0][0] == 1
    assert 1 <= found[trial]["curves"]["train/nll"][-1][0] < 6 and not found[trial]["askings"]
    others = {other: record for other, record in found.items() if record["status"] == "done"}
    assert others and same(outcome(others), {k: v for k, v in outcome(whole).items() if k.split()[0] in others})
    assert run.checkpoints == run.trainings([trial])
    choice = next(iter(run.ledger.backlog.choosing.choices.values()))
    assert [out["id"] for out in choice["left_out"]] == [trial], "said of the choice that it was made without it"
    assert any("left out" in line and "stopped" in line for line in run.said)
    again = SteeredRun(*ready, longer(space, 6), tmp_path / "out")
    assert again.go() and again.heard.began == [], "the same command again leaves it alone"
    resumed = SteeredRun(*ready, longer(space, 6), tmp_path / "out")
    resumed.ask(RESUME, trial=trial)
    found = resumed.go()
    assert found[trial]["status"] == "done" and resumed.heard.epochs[trial][0] > 1, "from its checkpoint"
    assert found[trial]["metrics"]["memory/nll"] == whole[trial]["metrics"]["memory/nll"]


def test_of_a_pack_one_member_is_stopped_and_the_others_go_on(ready: Any, space: Space, tmp_path: Path) -> None:
    alphas = longer(replace(space, axes={**space.axes, "alpha": [0, 1.0, 2.0]}), 6)
    whole = Run(*ready, alphas, tmp_path / "whole").go()
    run = SteeredRun(*ready, alphas, tmp_path / "out")
    picked: list[str] = []

    def stop_one(trial: str, epoch: int) -> None:
        if epoch == 2 and not picked and len(run.ledger.under_way) == 2:
            picked.append(trial)
            run.ask(STOP, trial=trial)

    run.heard.on_epoch = stop_one
    found = run.go()
    stopped = [trial for trial, record in found.items() if record["status"] == "stopped"]
    assert stopped == picked and len(found) == 4
    (last,) = found[stopped[0]]["curves"]["train/nll"][-1:]
    assert 2 <= last[0] < 6 and found[stopped[0]]["metrics"]["train/nll"] == last[1]
    rest = {trial for trial in found if trial not in stopped}
    assert same(*({k: v for k, v in outcome(r).items() if k.split()[0] in rest} for r in (found, whole)))
    assert all(len(set(run.heard.epochs[trial])) == len(run.heard.epochs[trial]) for trial in rest), "no epoch twice"
    assert run.checkpoints == run.trainings(stopped)


def test_points_that_are_added_run_with_the_others_and_compete(ready: Any, space: Space, tmp_path: Path) -> None:
    run = SteeredRun(*ready, space, tmp_path / "out")
    run.at(1, lambda trial: (run.ask(ADD, settings=("layer=1",)), run.ask(ADD, settings=("alpha=2",))))
    found = run.go()
    assert {record["status"] for record in found.values()} == {"done"} and run.ledger.outcome()["missing"] == 0
    layers = {record["identity"]["layer"] for record in found.values() if record["identity"]["alpha"] == 0}
    alphas = {record["identity"]["alpha"] for record in found.values()}
    assert layers == {0, 1, 2} and alphas == {0.0, 1.0, 2.0}
    (choice,) = run.ledger.backlog.choosing.choices.values()
    assert len(choice["candidates"]) == 3
    added = [r for r in found.values() if r["identity"]["layer"] == 1 or r["identity"]["alpha"] == 2.0]
    assert any(record["labels"] for record in added)
    told = next(record["labels"] for record in added if record["identity"]["alpha"] == 2.0)
    assert told["added_as"] == "add --set alpha=2" and "@" in told["added_by"] and told["added_at"]
    assert all(not r["labels"] for r in found.values() if r["identity"]["layer"] != 1 and r["identity"]["alpha"] < 2)


def test_finishing_early_ends_what_runs_and_starts_nothing_more(
    ready: Any, space: Space, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(wishes, "HEAR_EVERY_S", 0.0)
    run = SteeredRun(*ready, space, tmp_path / "out", size=1)
    run.at(1, lambda trial: run.ask(FINISH_EARLY))
    found = run.go()
    assert len(found) == 1 and {record["status"] for record in found.values()} == {"done"}
    assert run.ledger.exhausted and run.ledger.backlog.choosing.choices == {}, (
        "no layer is chosen on half of its candidates"
    )
    assert run.ledger.backlog.choosing.open_lines() == [
        f"not chosen: layer for model={space.axes['model'][0]}: 1 of 2 candidates have a result"
    ]
    cut = SteeredRun(*ready, space, tmp_path / "out", size=1)
    assert len(cut.go()) == 1, "a run that was cut off before its end does what was left of it: nothing"
    cut.wishes.end()
    rest = SteeredRun(*ready, space, tmp_path / "out", size=1)
    assert len(rest.go()) == 3 and rest.ledger.outcome()["missing"] == 0
