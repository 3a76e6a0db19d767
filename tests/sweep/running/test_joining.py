"""Who the ledger lets join a pack under way: by kind, size, history and wishes; nothing is trained here."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.packs import Pack
from sweep.planning.plan_of import plan_of
from sweep.planning.points import Point
from sweep.records.steering import FINISH_EARLY, PAUSE, STOP, new_wish
from sweep.records.sweep_storage import SweepStorage
from sweep.running.display import Display
from sweep.running.exchange import PackExchange
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.running.progress import SweepProgress
from sweep.space import ALL, OneOf, Sampling, Space, Stage, Uniform, checked
from trainables.errors import Failure

TOLD = {"host": "here", "versions": {}, "pid": 1, "node": "", "device": "cpu"}
FIXED = {"model": "sample-llama", "layer": 3, "num_documents": 2, "allocation": "partitioned"}
DRAWN = {"alpha": Uniform(0.1, 0.9), "memory_dim": OneOf((16, 32, 64))}


def opened(folder: Path, stage: Stage, size: Any = 4, slots: int = 1, **fields: Any) -> Ledger:
    axes = {name: list(values) for name, values in fields.items() if isinstance(values, (list, tuple))}
    fixed = {**{k: v for k, v in FIXED.items() if k not in axes}, **{k: v for k, v in fields.items() if k not in axes}}
    space = checked(Space(baseline=False, name="s", title="", axes=axes, fixed=fixed, stages=(stage,)))
    storage = SweepStorage(str(folder))
    plan = plan_of(space, storage.index(), {}, storage, "s")
    packing = Packing(size if callable(size) else lambda point: size, slots)
    return Ledger(plan, storage, "s", storage.index(), {}, packing, False, print)


def tuned(number: int = 16, fields: Any = DRAWN, **axes: Any) -> Stage:
    return Stage(name="tune", axes=axes, sampling=Sampling(fields=fields, num_samples=number, grace_epochs=1))


def handed(ledger: Ledger) -> Pack:
    found = ledger.next_pack()
    assert found is not None
    ledger.orders_file(found[0])
    return found[0]


def ended(ledger: Ledger, pack: Pack, *members: Point, status: str = "done") -> list[str]:
    """End some members, and return the trials that join."""
    for point in members:
        result = {"id": point.training, "status": status, "metrics": {"train/nll": 1.0, "memory/nll": 1.0}}
        ledger.finish(pack.id, {**TOLD, **result})
    return [*ledger.regroup(pack.id, {}, TOLD)[1]]


def orders(ledger: Ledger) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in Path(ledger.storage.uri, "s", "orders").glob("*.json")]


def test_a_quarter_of_a_sampled_stage_is_under_way_and_who_is_over_makes_place_for_a_draw(tmp_path: Path) -> None:
    ledger = opened(tmp_path, tuned(), size=32)
    pack = handed(ledger)
    assert len(pack.points) == 4 and len(ledger.under_way) == 4
    assert len(ended(ledger, pack)) == 0, "there is no place"
    joined = ended(ledger, pack, *pack.points[:2])
    assert len(joined) == 2 and len(ledger.under_way) == 4
    (told,) = orders(ledger)
    assert [task["id"] for task in told["joined"]] == [ledger.point(trial).training for trial in joined]
    assert all(ledger.point(trial).pack_key == pack.points[0].pack_key for trial in joined)
    assert {record["pack"] for record in ledger.backlog.records._begun.values()} == {pack.id}
    ledger.end_pack(pack.id)
    assert not orders(ledger)


@pytest.mark.parametrize(("slots", "each"), [(2, 2), (4, 1), (9, 1)])
def test_several_packs_share_that_quarter(tmp_path: Path, slots: int, each: int) -> None:
    ledger = opened(tmp_path, tuned(), size=32, slots=slots)
    assert [len(handed(ledger).points) for _ in range(2)] == [each, each]


def test_who_falls_behind_leaves_is_recorded_and_makes_place(tmp_path: Path) -> None:
    ledger = opened(tmp_path, tuned(), size=32)
    pack = handed(ledger)
    for number, point in enumerate(
        sorted(pack.points, key=lambda point: list(ledger.backlog.sampled._curves).index(point.id))
    ):
        ledger.epoch(point.training, 1, {"train/nll": 1.0 + number})
    left, joined = ledger.regroup(pack.id, {point.training: 1 for point in pack.points}, TOLD)
    assert len(left) == 3 == len(joined), "drawn one after the other, each is worse than the first"
    assert {record["status"] for record in left} == {"stopped"} and left[0]["curves"]["train/nll"][0][0] == 1
    (told,) = orders(ledger)
    assert len(told["left"]) == 3 and not set(told["left"]) & set(ledger.under_way)
    assert ledger.regroup(pack.id, {}, TOLD) == ([], {})


def test_a_pack_takes_trials_of_its_own_kind_only(tmp_path: Path) -> None:
    ledger = opened(tmp_path, tuned(model=ALL), size=32, model=["sample-llama", "sample-neox"])
    first = handed(ledger)
    last = ended(ledger, first, *first.points[:3])
    while joined := ended(ledger, first, *map(ledger.point, last)):
        last = joined
    assert len(ledger.backlog.stages.members["tune"]) == 16, "its model's trials, and none of the other's"
    assert {ledger.point(trial).spec.model for trial in ledger.backlog.stages.members["tune"]} == {"sample-llama"}
    second = handed(ledger)
    assert {point.spec.model for point in second.points} == {"sample-neox"}


def test_what_is_sampled_may_decide_with_whom_a_trial_runs(tmp_path: Path) -> None:
    fields = {"lr": Uniform(1e-4, 1e-2), "batch_size": OneOf((2, 4))}
    ledger = opened(tmp_path, tuned(fields=fields), size=32)
    pack = handed(ledger)
    while (pack.points[0].spec.batch_size == 3) or len(pack.points) < 2:
        pack = handed(ledger)
    assert len({point.spec.batch_size for point in pack.points}) == 1
    drawn = len(ledger.backlog.stages.members["tune"])
    for _ in range(5):
        ended(ledger, pack)
    assert len(ledger.backlog.stages.members["tune"]) <= drawn + 1, (
        "one that does not fit waits, and nothing is drawn meanwhile"
    )


def test_a_larger_trial_joins_only_where_so_many_of_its_size_fit(tmp_path: Path) -> None:
    grid = Stage(name="sizes", axes={"memory_dim": ALL, "lr": ALL})
    sizes = {16: 4, 64: 4}
    rates = [1e-3, 2e-3, 3e-3, 4e-3]
    ledger = opened(tmp_path, grid, lambda point: sizes[point.spec.memory_dim], memory_dim=[16, 64], lr=rates)
    small = handed(ledger)
    sizes[64] = 2
    assert len(small.points) == 4 and {point.spec.memory_dim for point in small.points} == {16}
    assert not ended(ledger, small, small.points[0]) and not ended(ledger, small, small.points[1])
    (joined,) = ended(ledger, small, small.points[2])
    assert ledger.point(joined).spec.memory_dim == 64, "two of them fit"


def test_trials_at_another_block_join_once_half_of_the_places_are_free(tmp_path: Path) -> None:
    grid = Stage(name="blocks", axes={"layer": ALL, "lr": ALL})
    ledger = opened(tmp_path, grid, layer=[1, 2], lr=[1e-3, 2e-3, 3e-3, 4e-3])
    pack = handed(ledger)
    assert [point.spec.layer for point in pack.points] == [1] * 4
    assert not ended(ledger, pack, pack.points[0])
    assert [ledger.point(trial).spec.layer for trial in ended(ledger, pack, pack.points[1])] == [2, 2]
    assert len(ended(ledger, pack, pack.points[2])) == 1, "now it is one of theirs"
    assert [ledger.point(trial).spec.layer for trial in ended(ledger, pack, pack.points[3])] == [2]


def test_a_stage_of_all_blocks_is_one_pack_with_more_to_join(tmp_path: Path) -> None:
    grid = Stage(name="blocks", axes={"layer": ALL})
    ledger = opened(tmp_path, grid, size=16, layer=[0, 1, 2, 3])
    assert [point.spec.layer for point in handed(ledger).points] == [0, 1, 2, 3] and ledger.next_pack() is None


def test_a_queued_trial_comes_before_one_that_is_drawn_and_is_handed_out_once(tmp_path: Path) -> None:
    grid = Stage(name="rates", axes={"lr": ALL})
    ledger = opened(tmp_path, grid, size=2, lr=[1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    first, seen = handed(ledger), []
    last = list(first.points)
    seen += [point.id for point in last]
    while joined := ended(ledger, first, last.pop(0)):
        seen += joined
        last += map(ledger.point, joined)
    ended(ledger, first, *last)
    ledger.end_pack(first.id)
    while (pack := ledger.next_pack()) is not None:
        seen += [point.id for point in pack[0].points]
        for point in pack[0].points:
            ledger.finish(pack[0].id, {**TOLD, "id": point.training, "status": "done", "metrics": {}})
        ledger.end_pack(pack[0].id)
    assert len(seen) == len(set(seen)) == 5 and ledger.exhausted


def test_nobody_joins_a_pack_with_a_trial_that_failed_before_nor_does_such_a_trial_join(tmp_path: Path) -> None:
    grid = Stage(name="rates", axes={"lr": ALL})
    ledger = opened(tmp_path, grid, size=2, lr=[1e-3, 2e-3, 3e-3, 4e-3])
    first = handed(ledger)
    ledger.fail_pack(first.id, Failure("bug", "division by zero"))
    sound = handed(ledger)
    assert not {point.id for point in sound.points} & {point.id for point in first.points}
    assert not ended(ledger, sound, sound.points[0]), "those that wait have failed"
    again = handed(ledger)
    assert {point.id for point in again.points} == {point.id for point in first.points}
    ledger.backlog.queue.put([sound.points[1]], 1)  # a sound one waits
    assert not ended(ledger, again, again.points[0])


def test_nobody_joins_a_pack_that_ends_nor_one_that_all_have_left(tmp_path: Path) -> None:
    ledger = opened(tmp_path, tuned(), size=32)
    pack = handed(ledger)
    assert not ended(ledger, pack, *pack.points), "all have left"
    ledger.end_pack(pack.id)
    pack = handed(ledger)
    ledger.steer(ledger.steering.having(new_wish(PAUSE)))
    assert not ended(ledger, pack, pack.points[0])
    stopped = opened(tmp_path / "one", tuned(), size=32)
    pack = handed(stopped)
    stopped.steer(stopped.steering.having(new_wish(STOP, trial=pack.points[1].id)))
    assert not ended(stopped, pack, pack.points[0])
    finishing = opened(tmp_path / "early", tuned(), size=32)
    pack = handed(finishing)
    finishing.steer(finishing.steering.having(new_wish(FINISH_EARLY, under_way=finishing.under_way)))
    assert not ended(finishing, pack, pack.points[0])
    interrupted = opened(tmp_path / "other", tuned(), size=32)
    pack = handed(interrupted)
    interrupted.stop_file.note("interrupted")
    assert not ended(interrupted, pack, pack.points[0])


def test_kinds_whose_members_are_at_one_epoch_are_joined_by_nobody(tmp_path: Path) -> None:
    fields = {"lr": Uniform(1e-4, 1e-2)}
    ledger = opened(tmp_path, tuned(fields=fields), size=32, method="lora", allocation="none")
    pack = handed(ledger)
    assert len(pack.points) == 4 and not ended(ledger, pack, pack.points[0])


class NoFeed:
    """Stands in for MLflow's feed."""

    trouble = ""

    def start_trial(self, begun: Any) -> None:
        """Do nothing."""

    def epoch(self, trial: str, epoch: int, metrics: Any) -> None:
        """Do nothing."""

    def finish(self, record: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize("last", [{}, {"done": True}, {"failure": {"kind": "io"}}])
def test_nobody_joins_a_pack_that_has_taken_its_last_step(tmp_path: Path, last: dict[str, Any]) -> None:
    ledger = opened(tmp_path, tuned(), size=32)
    packs = PackExchange(ledger, NoFeed(), Display(SweepProgress("s"), io.StringIO(), every_s=1e9), {})  # type: ignore[arg-type]
    pack = packs.next_pack()
    assert pack is not None
    trainings = [task["id"] for task in pack.job["trials"]]
    metrics = {"train/nll": 1.0, "memory/nll": 1.0}
    result = {"id": trainings[0], "status": "done", "metrics": metrics}
    progress = dict.fromkeys(trainings, metrics)
    packs.report(pack.id, {**TOLD, "epoch": 1, "progress": progress, "results": [result], **last})
    assert len(ledger.under_way) == len(trainings) - bool(last) and bool(orders(ledger)) == (not last)


def test_a_trial_is_judged_beside_the_epochs_that_others_had_before_they_were_cut_off(tmp_path: Path) -> None:
    ledger = opened(tmp_path, tuned(), size=32)
    pack = handed(ledger)
    *before, last = [point.training for point in pack.points]
    for training in before:
        ledger.go_on(training, {"train/nll": [[1, 1.0]]})
    ledger.epoch(last, 1, {"train/nll": 9.0})
    made, _ = ledger.regroup(pack.id, {last: 1}, TOLD)
    assert [record["status"] for record in made] == ["stopped"]
