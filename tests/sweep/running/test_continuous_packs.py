"""Packs that are kept full: a trial that waits takes the place of one that leaves, whatever executes the packs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.full import check_alone
from sweep.records.steering import FINISH_EARLY, PAUSE, RESUME, STOP
from sweep.records.sweep_storage import SweepStorage
from sweep.running import sampled
from sweep.running.exchange import HandedPack, PackExchange
from sweep.space import ALL, LogUniform, OneOf, Sampling, Space, Stage
from tests.sweep.running.faults import applied, plan
from tests.sweep.running.test_executors import Run, faults, faulty, space
from tests.sweep.running.test_steering_executors import SteeredRun

__all__ = ["faults", "space"]


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def ready(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An executor within its session, one pack at a time on one thread."""
    yield from faulty(request.param, tmp_path_factory)


@pytest.fixture
def drawn(space: Space) -> Space:
    """Twelve trials drawn at one layer, stopped early; sizes and rates differ."""
    fields = {"alpha": LogUniform(0.05, 5.0), "lr": LogUniform(1e-4, 1e-1), "memory_dim": OneOf((8, 16, 24))}
    sampling = Sampling(fields=fields, num_samples=12, grace_epochs=2, reduction=2)
    fixed = {**{k: v for k, v in space.fixed.items() if k != "memory_dim"}, "epochs": 6, "layer": 1}
    return replace(space, fixed=fixed, stages=(Stage(name="tune", axes={"model": ALL}, sampling=sampling),))


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[HandedPack]:
    """The packs that were handed out."""
    found: list[HandedPack] = []
    real = PackExchange.next_pack

    def noting(exchange: PackExchange) -> HandedPack | None:
        pack = real(exchange)
        if pack is not None:
            found.append(pack)
        return pack

    monkeypatch.setattr(PackExchange, "next_pack", noting)
    return found


@pytest.fixture(autouse=True)
def several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four of the twelve may be under way."""
    monkeypatch.setattr(sampled, "INFORMED", 3)


def orders(run: Run) -> list[str]:
    return sorted(path.name for path in Path(run.storage.uri, "both", "orders").glob("*"))


def test_a_sampled_stage_runs_in_packs_that_are_kept_full(
    ready: Any, drawn: Space, handed: Any, tmp_path: Path
) -> None:
    run = Run(*ready, drawn, tmp_path / "out", 8)
    found = run.go()
    assert len(found) == 12 and {record["status"] for record in found.values()} == {"done", "stopped"}
    assert len(handed) <= 3 and len(handed[0].job["trials"]) == 4
    assert sum(len(pack.job["trials"]) for pack in handed) < 12, "the others have joined"
    assert sorted(run.heard.began) == sorted(found) == sorted(record["id"] for record in run.heard.finished)
    for trial, record in found.items():
        epochs = run.heard.epochs[trial]
        assert epochs == list(range(1, len(epochs) + 1)), "each from its own first epoch, none twice"
        assert len(record["curves"]["train/nll"]) == len(epochs) == (6 if record["status"] == "done" else len(epochs))
        assert record["status"] == "done" or len(epochs) in (2, 4)
        assert record["versions"]["torch"] and record["host"]
    assert not run.checkpoints and not orders(run)
    assert check_alone(tmp_path / "again", found, None) == 12
    again = Run(*ready, drawn, tmp_path / "out", 8)
    again.go()
    assert again.heard.began == []


def test_a_trial_joins_a_grid_pack_when_another_diverges(ready: Any, space: Space, handed: Any, tmp_path: Path) -> None:
    rates = [1e30, 1e-3, 2e-3, 3e-3]
    fixed = {**space.fixed, "epochs": 5, "layer": 1, "norm_and_gate": False, "warmup_steps": 0}
    wild = replace(space, axes={"model": space.axes["model"], "lr": rates}, fixed=fixed)
    wild = replace(wild, stages=(Stage(name="rates", axes={"model": ALL, "lr": ALL}),))
    run = Run(*ready, wild, tmp_path / "out", 2)
    assert [[point.spec.lr for point in pack.points] for pack in run.ledger.backlog.queue.packs] == [
        rates[:2],
        rates[2:],
    ]
    found = run.go()
    assert {record["status"] for record in found.values()} == {"done", "diverged"} and len(found) == 4
    # one takes the place of the one that diverged; when its companion is over, the last one joins it
    assert [len(pack.job["trials"]) for pack in handed] == [2]
    assert all(epochs[-1] == len(epochs) for epochs in run.heard.epochs.values())


def test_a_process_that_fails_loses_no_trial_that_had_joined(
    ready: Any, drawn: Space, faults: Path, tmp_path: Path
) -> None:
    plan(faults, {"kind": "device", "after": 4})
    often = replace(drawn, fixed={**drawn.fixed, "checkpoint_every_s": 0})
    run = Run(*ready, often, tmp_path / "out", 8)
    found = run.go()
    assert applied(faults) == [0] and len(found) == 12
    assert {record["status"] for record in found.values()} == {"done", "stopped"}
    assert all(epochs == list(range(1, len(epochs) + 1)) for epochs in run.heard.epochs.values()), "no epoch twice"
    assert check_alone(tmp_path / "again", found, None) == 12
    assert not run.checkpoints and not orders(run) and len(run.heard.finished) == 12


def test_an_interrupted_run_goes_on_with_all_that_had_begun(ready: Any, drawn: Space, tmp_path: Path) -> None:
    run = Run(*ready, drawn, tmp_path / "out", 8)

    def cut(trial: str, epoch: int) -> None:
        if epoch == 5 and len(run.heard.began) > 4 and not run.ledger.stopping:
            run.ledger.stop("interrupted")

    run.heard.on_epoch = cut
    before = run.go()
    begun = set(run.heard.began) - set(before)
    assert begun and run.checkpoints == sorted(run.ledger.point(trial).training for trial in begun)
    done = {trial: epochs[-1] for trial, epochs in run.heard.epochs.items() if trial in begun}
    rest = Run(*ready, drawn, tmp_path / "out", 8)
    found = rest.go()
    assert len(found) == 12 and not rest.checkpoints and not set(before) & set(rest.heard.began)
    assert all(rest.heard.epochs[trial][0] == done[trial] + 1 for trial in done if trial in rest.heard.epochs)
    for record in found.values():
        assert [epoch for epoch, _ in record["curves"]["train/nll"]][:1] == [1], "what came before is there too"
        assert record["status"] == "done" or len(record["curves"]["train/nll"]) in (2, 4)
    assert check_alone(tmp_path / "again", found, None) == 12


def test_a_driver_that_is_killed_leaves_orders_that_the_next_one_removes(
    ready: Any, drawn: Space, tmp_path: Path
) -> None:
    run = Run(*ready, drawn, tmp_path / "out", 8)
    stale = run.storage
    stale.write("both/orders/whatever-1.json", json.dumps({"left": [], "joined": [{"nonsense": 1}]}).encode())
    again = Run(*ready, drawn, tmp_path / "out", 8)
    assert not orders(again) and len(again.go()) == 12


@pytest.mark.parametrize("command", [STOP, PAUSE, FINISH_EARLY])
@pytest.mark.thorough(only=("pause", "stop"))
def test_a_sweep_is_steered_while_its_packs_are_kept_full(
    ready: Any, drawn: Space, tmp_path: Path, command: str, monkeypatch: Any
) -> None:
    run = SteeredRun(*ready, drawn, tmp_path / "out", 8)
    asked: list[str] = []

    def act(trial: str, epoch: int) -> None:
        if epoch == 3 and not asked:
            asked.append(trial)
            run.ask(command, **({"trial": trial} if command == STOP else {}))

    run.heard.on_epoch = act

    def hear(at_once: bool = False, old: Any = run.wishes.hear) -> bool:
        heard = bool(old(at_once))
        if run.ledger.steering.paused and not run.ledger.under_way:
            run.ask(RESUME)
        return heard

    monkeypatch.setattr(run.wishes, "hear", hear)
    found = run.go()
    for epochs in run.heard.epochs.values():
        assert epochs == list(range(1, len(epochs) + 1)), "no epoch twice"
    if command == FINISH_EARLY:
        assert len(found) < 12 and set(found) == set(run.heard.began), "what had begun ends, nobody joins"
        assert asked[0] in found
    else:
        assert len(found) == 12
    if command == STOP:
        assert found[asked[0]]["status"] == "stopped" and len(found[asked[0]]["curves"]["train/nll"]) >= 3
    assert check_alone(tmp_path / "again", {t: r for t, r in found.items() if r["curves"]}, None)
    assert not orders(run)


def test_trials_under_way_are_claimed_also_those_that_joined(ready: Any, drawn: Space, tmp_path: Path) -> None:
    storage = SweepStorage(str(tmp_path / "out"))
    with storage.lock("both"):
        run = Run(*ready, drawn, tmp_path / "out", 8)
        run.ledger.backlog.others._claims = storage.claims("both")
        other, held = SweepStorage(str(tmp_path / "out")), []
        with other.lock("other"):
            claims = other.claims("other")

            def look(trial: str, epoch: int) -> None:
                if len(run.heard.began) > 4 and not held:
                    held.extend(claims.take(training) for training in run.ledger.under_way)

            run.heard.on_epoch = look
            found = run.go()
        assert len(found) == 12 and held and set(held) == {"both"}
