"""Members that leave a pack and others that take their places: each as alone, and nothing run for who is gone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.adapters.memory.io import load_memory
from trainables.errors import OutOfMemory
from trainables.pack import worker
from trainables.pack.checkpoint import read_checkpoint
from trainables.pack.orders import OrdersReader, orders_bytes
from trainables.pack.process_cache import ProcessCache
from trainables.pack.run import PackRun
from trainables.pack.worker import PackWork
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity, trial_id
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

EPOCHS = 4
SAME = {"abs": 2e-5}


@pytest.fixture(scope="module")
def cache() -> ProcessCache:
    return ProcessCache(torch.device("cpu"), 10**9)


class Pack:
    """A pack that a test steers as the driver does: by its orders file, between two steps."""

    def __init__(self, tasks: list[TrialTask], cache: ProcessCache, folder: Path) -> None:
        self.file, self.left, self.joined = folder / "orders.json", [], []
        config = {"trials": [task.to_dict() for task in tasks], "trunk_layers": [], "orders_file": str(self.file)}
        self.work = PackWork(config, cache)
        self.results: dict[str, dict[str, Any]] = {}
        self.epochs: dict[str, list[int]] = {}
        self.sizes: list[int] = []
        self.done = False

    def tell(self, left: list[TrialTask] = [], joined: list[TrialTask] = []) -> None:  # noqa: B006
        self.left += [task.id for task in left]
        self.joined += joined
        self.file.write_bytes(orders_bytes(self.left, self.joined))

    def step(self, times: int = 1) -> dict[str, Any]:
        for _ in range(times):
            report = self.work.step()
            assert report["failure"] is None, report["failure"]
            self.done = report["done"]
            self.results |= {result["id"]: result for result in report["results"]}
            if report["progress"]:
                self.sizes.append(len(report["progress"]))
            for trial in report["progress"]:
                self.epochs.setdefault(trial, []).append(report["epochs"][trial])
        return report

    def end(self) -> dict[str, dict[str, Any]]:
        for _ in range(50):
            if self.done:
                return self.results
            self.step()
        raise AssertionError("the pack does not end")


@pytest.fixture
def task(tiny_models, sample_data, tmp_path: Path) -> Any:
    base = {
        "model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 1, "memory_dim": 32, "num_documents": 3,
        "epochs": EPOCHS, "segment_tokens": 40, "max_segments": 2, "claims_per_page": 1, "checkpoint_every_s": 1000,
        "batch_size": 2, "lr": 3e-3,
    }  # fmt: skip

    def make(where: str = "packed", **values: Any) -> TrialTask:
        spec = make_spec({**base, **values})
        name = trial_id(identity(spec))
        folder = tmp_path / where
        return TrialTask(name, canonical(spec), str(folder / name), str(folder / "checkpoints" / name))

    return make


def elsewhere(task: TrialTask) -> TrialTask:
    return replace(task, folder=task.folder + "-alone", checkpoint=task.checkpoint + "-alone")


def assert_as_alone(found: dict[str, Any], one: TrialTask, cache: ProcessCache, folder: Path) -> None:
    alone = Pack([elsewhere(one)], cache, folder).end()[one.id]
    mine = found[one.id]
    assert mine["status"] == alone["status"] and mine["metrics"] == pytest.approx(alone["metrics"], **SAME)
    assert mine["curves"].keys() == alone["curves"].keys()
    for name, curve in alone["curves"].items():
        assert [epoch for epoch, _ in mine["curves"][name]] == [epoch for epoch, _ in curve]
        assert [v for _, v in mine["curves"][name]] == pytest.approx([v for _, v in curve], **SAME), name
    assert mine["flops"] == alone["flops"] and mine["files"].keys() == alone["files"].keys()
    weights = [load_memory(Path(place) / "memory.safetensors").memory for place in (one.folder, one.folder + "-alone")]
    for here, there in zip(weights[0].parameters(), weights[1].parameters(), strict=True):
        torch.testing.assert_close(here, there, atol=5e-5, rtol=1e-3)


def test_who_joins_begins_at_its_own_first_epoch_and_all_end_as_they_do_alone(task, cache, tmp_path):
    first = [task(), task(alpha=1.0, allocation="simset2", seed=1)]
    small = task(memory_dim=5, norm_and_gate=False)
    large = task(memory_dim=48, mode="hard", allocation="partitioned", seed=1)
    pack = Pack(first, cache, tmp_path)
    pack.step()
    pack.tell(left=[first[0]], joined=[small])
    pack.step(2)
    pack.tell(joined=[large])
    found = pack.end()
    assert found.keys() == {first[1].id, small.id, large.id}, "of who has left there is no result"
    assert pack.epochs[first[0].id] == [1] and all(pack.epochs[t] == [1, 2, 3, 4] for t in found)
    assert pack.sizes == [2, 2, 2, 3, 2, 1, 1], "who is over takes part in no pass"
    assert found[large.id]["timings"]["pack_size"] == 3
    for one in (first[1], small, large):
        assert_as_alone(found, one, cache, tmp_path / "no orders")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[int]]]:
    """The epochs of all members of each training pass over the texts, as the adapter is asked for them."""
    found: list[list[int]] = []
    step = PackRun.step

    def counting(run: PackRun) -> Any:
        found.append(list(run.epochs))
        return step(run)

    monkeypatch.setattr(PackRun, "step", counting)
    yield found


def test_a_member_that_diverges_leaves_after_its_epoch_and_its_result_is_the_one_it_has_alone(
    task, cache, tmp_path, passes
):
    wild = task(lr=1e30, warmup_steps=0, norm_and_gate=False)
    calm = task(warmup_steps=0)
    pack = Pack([wild, calm], cache, tmp_path)
    while wild.id not in pack.results:
        pack.step()
    at = pack.epochs[wild.id][-1]
    found = pack.end()
    assert found[wild.id]["status"] == "diverged" and f"epoch {at}" in found[wild.id]["error"]["message"]
    assert pack.sizes == [2] * at + [1] * (EPOCHS - at) and [len(each) for each in passes] == pack.sizes
    assert_as_alone(found, calm, cache, tmp_path / "no orders")
    alone = Pack([elsewhere(wild)], cache, tmp_path / "none").end()[wild.id]
    assert alone["curves"].keys() == found[wild.id]["curves"].keys()
    assert [e for e, _ in alone["curves"]["train/nll"]] == [e for e, _ in found[wild.id]["curves"]["train/nll"]]


def test_a_pack_cut_off_with_members_at_different_epochs_goes_on_as_one_pack_to_the_undisturbed_result(
    task, cache, tmp_path, passes
):
    first, later = task(seed=3), task(alpha=1.0, allocation="partitioned")
    pack = Pack([first], cache, tmp_path)
    pack.step(2)
    pack.tell(joined=[later])
    pack.step()
    pack.work.checkpoint()
    assert [read_checkpoint(one.checkpoint, one.id).epoch for one in (first, later)] == [3, 1]
    passes.clear()
    again = Pack([later, first], cache, tmp_path / "again")
    found = again.end()
    assert again.epochs == {first.id: [4], later.id: [2, 3, 4]}
    assert passes == [[1, 3], [2], [3]]
    for one in (first, later):
        assert_as_alone(found, one, cache, tmp_path / "no orders")


def test_regrouping_does_not_put_off_the_next_checkpoint(task, cache, tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("trainables.pack.run.time.monotonic", lambda: now[0])
    first, later = task(checkpoint_every_s=10), task(lr=1e-3, checkpoint_every_s=10)
    pack = Pack([first], cache, tmp_path)
    pack.step()
    now[0] += 9
    pack.tell(joined=[later])
    pack.step()
    assert not Path(first.checkpoint).exists()
    now[0] += 2
    pack.step()
    assert read_checkpoint(first.checkpoint).epoch == 3 and read_checkpoint(later.checkpoint).epoch == 2


def test_there_is_no_checkpoint_of_who_is_over_or_has_left(task, cache, tmp_path):
    tasks = [task(lr=lr) for lr in (1e-3, 2e-3, 3e-3)]
    ahead = Pack(tasks[:1], cache, tmp_path)
    ahead.step(EPOCHS - 1)
    ahead.tell(joined=tasks[1:])
    ahead.step()
    assert tasks[0].id in ahead.results
    ahead.work.checkpoint()
    ahead.work.keep()
    assert [Path(one.checkpoint).exists() for one in tasks] == [False, True, True]
    for one in tasks:
        Path(one.checkpoint).unlink(missing_ok=True)
    ahead.tell(left=tasks[1:2])
    ahead.step()
    ahead.work.keep()
    assert [Path(one.checkpoint).exists() for one in tasks] == [False, False, True]


def test_a_pack_that_all_have_left_ends_without_another_epoch(task, cache, tmp_path, passes):
    pack = Pack([task(), task(seed=1)], cache, tmp_path)
    pack.step()
    pack.tell(left=[task(), task(seed=1)])
    assert pack.step()["done"] and len(passes) == 1 and not pack.results


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception | None, when: Callable[[Any], Any]) -> None:
    """Have runs of some members fail as they begin."""
    real = PackRun.__init__

    def begin(self: PackRun, members: Any, *args: Any) -> None:
        if error is not None and when(members):
            raise error
        real(self, members, *args)

    monkeypatch.setattr(PackRun, "__init__", begin)


@pytest.mark.parametrize(("error", "kind"), [(OutOfMemory("no room"), "memory"), (None, "data")])
def test_who_cannot_join_fails_alone_and_the_others_lose_nothing(task, cache, tmp_path, monkeypatch, error, kind):
    first = [task(), task(seed=1)]
    bad = task(seed=2) if error else replace(task(seed=2, start_from="0" * 16), start=(str(tmp_path / "gone"),))
    refuse(monkeypatch, error, lambda members: any(one.id == bad.id for one in members))
    pack = Pack(first, cache, tmp_path)
    pack.step(2)
    pack.tell(joined=[bad])
    found = pack.end()
    assert found[bad.id]["status"] == "failed" and found[bad.id]["error"]["class"] == kind
    assert all(pack.epochs[one.id] == [1, 2, 3, 4] for one in first), "no epoch twice"
    for one in first:
        assert_as_alone(found, one, cache, tmp_path / "no orders")


def test_who_joins_a_pack_that_did_not_fit_waits_for_its_turn(task, cache, tmp_path, monkeypatch):
    tasks = [task(seed=seed) for seed in range(4)]
    later = task(seed=9)
    refuse(monkeypatch, OutOfMemory("no room"), lambda members: len(members) > 2)
    pack = Pack(tasks, cache, tmp_path)
    pack.step(3)
    pack.tell(joined=[later])
    found = pack.end()
    assert {result["status"] for result in found.values()} == {"done"} and len(found) == 5
    assert all(pack.epochs[one.id] == [1, 2, 3, 4] for one in (*tasks, later)), "no epoch twice"
    assert pack.sizes == [2] * 8 + [1] * 4


def test_checkpoints_that_cannot_be_written_when_a_pack_shrinks_end_the_work(task, cache, tmp_path, monkeypatch):
    pack = Pack([task()], cache, tmp_path)
    pack.step()
    pack.tell(joined=[task(seed=1)])

    def no_room(*_: Any) -> None:
        raise OutOfMemory("no room")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "start_runs", no_room)
    monkeypatch.setattr(worker, "write_checkpoint", full)
    report = pack.work.step()
    assert report["failure"]["kind"] == "io" and report["done"] and not report["results"]


def test_orders_that_are_read_twice_or_late_come_to_the_same(task, tmp_path):
    place = tmp_path / "orders.json"
    reader = OrdersReader(str(place))
    assert reader.new() == (frozenset(), [])
    one, two = task(), task(seed=1)
    place.write_bytes(orders_bytes(["x"], [one]))
    assert reader.new() == (frozenset({"x"}), [one]) and reader.new() == (frozenset(), [])
    place.write_bytes(orders_bytes(["x", one.id], [one, two]))
    assert reader.new() == (frozenset({one.id}), [two])
    late = OrdersReader(str(place))
    assert late.new() == (frozenset({"x", one.id}), [two]), "who has left again meanwhile is not begun"
    assert OrdersReader("").new() == (frozenset(), [])
    assert json.loads(place.read_text())["left"] == ["x", one.id]


@pytest.mark.parametrize("content", [b"", b'{"left": [', b"[1]", b'{"left": []}', b'{"left": [], "joined": [3]}'])
def test_a_broken_file_of_orders_is_a_failure_of_the_storage_and_nobodys_own(task, cache, tmp_path, content):
    pack = Pack([task()], cache, tmp_path)
    pack.step()
    pack.file.write_bytes(content)
    report = pack.work.step()
    assert report["failure"]["kind"] == "io" and report["done"] and not report["results"]
    assert "orders.json: not what the driver wrote" in report["failure"]["message"]


def test_earlier_curves_are_told_once_of_who_goes_on_from_a_checkpoint(task, cache, tmp_path):
    first, other, later = task(), task(seed=1), task(seed=2)
    for one in (first, later):
        before = Pack([one], cache, tmp_path / "before")
        before.step(2)
        before.work.checkpoint()
    pack = Pack([first, other], cache, tmp_path)
    told = pack.step()["curves"]
    assert [*told] == [first.id] and [epoch for epoch, _ in told[first.id]["train/nll"]] == [1, 2]
    assert pack.step()["curves"] == {}
    pack.tell(joined=[later])
    assert [*pack.step()["curves"]] == [later.id], "the others have gone on in memory"
