"""How far a sweep is, counted from what happens in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sweep.planning.expand import build_plan
from sweep.planning.packs import make_packs
from sweep.planning.plan import Plan
from sweep.planning.points import Point
from sweep.running.progress import SweepProgress
from sweep.running.state import SweepState
from sweep.running.state_text import one_line
from sweep.space import ALL, Best, Space, Stage, checked

EPOCHS = 10
SPACE = Space(
    name="two",
    title="two stages",
    axes={"layer": (1, 3, 5), "alpha": (0, 1)},
    fixed={"data": "sample", "model": "sample-neox", "allocation": "simset1", "num_documents": 4, "epochs": EPOCHS},
    stages=(
        Stage(name="layers", axes={"layer": ALL}, fixed={"alpha": 0}),
        Stage(name="alphas", axes={"alpha": ALL}, take=Best(field="layer", stage="layers", per=())),
    ),
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def plan() -> Plan:
    return build_plan(checked(SPACE))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(plan: Plan, clock: Clock) -> SweepProgress:
    return SweepProgress("two", plan, lambda record: f"trial {record['id'][:3]}", clock)


def record(point: Point, status: str = "done", **metrics: float) -> dict[str, Any]:
    identity = {"method": "memory"}
    return {"id": point.id, "stage": point.spec.stage, "status": status, "metrics": metrics, "identity": identity}


def report(progress: SweepProgress, pack: str, points: tuple[Point, ...], epoch: int, nll: float = 1.0) -> None:
    progress.report(pack, epoch, {point.id: {"train/nll": nll} for point in points}, "here cpu")


@pytest.fixture
def layers(plan: Plan) -> Iterator[tuple[str, tuple[Point, ...]]]:
    points = next(stage for stage in plan.stages if stage.name == "layers").to_run
    yield "p", tuple(points)


def test_epochs_of_trials_under_way_count(
    progress: SweepProgress, layers: tuple[str, tuple[Point, ...]], clock: Clock
) -> None:
    before = progress.snapshot()
    assert [(stage.name, stage.trials, stage.epochs, stage.waits_for) for stage in before.stages] == [
        ("layers", 3, 3 * EPOCHS, ""),
        ("alphas", 1, EPOCHS, "layers"),
    ]
    pack, points = layers
    progress.begin(pack, points)
    report(progress, pack, points, 4, nll=2.5)
    state = progress.snapshot()
    assert state.stages[0].epochs_done == 12 and state.running == 3
    (shown,) = state.packs
    assert (shown.epoch, shown.loss, shown.where) == (4, 2.5, "here cpu")


def test_a_trial_that_ends_early_is_whole_and_one_that_starts_over_goes_back(
    progress: SweepProgress, layers: tuple[str, tuple[Point, ...]]
) -> None:
    pack, points = layers
    progress.begin(pack, points)
    report(progress, pack, points, 4)
    progress.finish(pack, record(points[0], "diverged"))
    assert progress.snapshot().stages[0].epochs_done == EPOCHS + 8
    progress.end(pack)
    assert progress.snapshot().stages[0].epochs_done == EPOCHS + 8, "kept in checkpoints"
    progress.begin("again", points[1:])
    report(progress, "again", points[1:], 1)
    state = progress.snapshot()
    assert state.stages[0].epochs_done == EPOCHS + 2
    assert state.ended == {"diverged": 1} and state.running == 2


def test_trials_that_are_asked_count_where_the_plan_has_them(plan: Plan, clock: Clock) -> None:
    layers = plan.stage("layers")
    asked = replace(layers, stage=replace(layers.stage, name="evaluate"), to_run=(), to_ask=layers.to_run)
    progress = SweepProgress("two", replace(plan, stages=(asked,)), lambda record: "a trial", clock)
    first = asked.to_ask[0]
    assert first.spec.stage == "layers"
    progress.begin("p", (first,), asks=True)
    progress.finish("p", record(first))
    (stage,) = progress.snapshot().stages
    assert (stage.name, stage.ended, stage.epochs_done, stage.trials) == ("evaluate", {"done": 1}, 1, 3)


def test_the_best_stands_beside_the_pretrained_model(
    progress: SweepProgress, layers: tuple[str, tuple[Point, ...]]
) -> None:
    pack, points = layers
    progress.begin(pack, points)
    for point, nll in zip(points, (0.9, 0.4, 0.6), strict=True):
        progress.finish(pack, record(point, **{"memory/nll": nll, "memory/nll_before": 2.0}))
    progress.finish("other", record(points[0], "failed", **{"memory/nll": 0.1}))
    assert progress.snapshot().best == f"memory/nll 0.400 (pretrained 2.000): trial {points[1].id[:3]}"


def test_the_state_survives_json(progress: SweepProgress, layers: tuple[str, tuple[Point, ...]]) -> None:
    progress.begin(*layers)
    state = progress.snapshot(["2 x data: no page"])
    assert SweepState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


def test_the_rest_is_told_within_a_factor_after_the_first_tenth(clock: Clock) -> None:
    """Packs of very different sizes on two workers, a slow start, a fixed cost for each epoch."""
    space = Space(
        name="many",
        title="many sizes",
        axes={"layer": (0, 2, 4, 6), "num_documents": (2, 8, 32), "mem_seed": tuple(range(8))},
        fixed={
            "data": "sample", "model": "sample-neox", "allocation": "simset1", "alpha": 1, "epochs": EPOCHS,
        },
        stages=(Stage(name="all", axes={"layer": ALL, "num_documents": ALL, "mem_seed": ALL}),),
    )  # fmt: skip
    plan = build_plan(checked(space))
    packs = make_packs(plan.stages[0].to_run, 4)
    progress = SweepProgress("many", plan, lambda record: "", clock)
    cost = progress._cost

    def seconds(points: tuple[Point, ...], epoch: int) -> float:
        work = cost.work(points[0])
        once = work.evaluation if epoch == EPOCHS else 0.0
        return 0.2 + 2e-9 * len(points) * (work.training / EPOCHS + once) + (1.5 if epoch == 1 else 0.0)

    free, said, total = [clock.now + 20.0, clock.now + 20.0], [], sum(p.spec.epochs for k in packs for p in k.points)
    waiting, under_way, done = list(packs), {}, 0
    while waiting or under_way:
        for worker in (0, 1):
            if waiting and worker not in under_way:
                under_way[worker] = [waiting.pop(0), 0]
                progress.begin(under_way[worker][0].id, under_way[worker][0].points)
                free[worker] = max(free[worker], clock.now) + seconds(under_way[worker][0].points, 1)
        worker = min(under_way, key=lambda one: free[one])
        pack, epoch = under_way[worker]
        clock.now = free[worker]
        report(progress, pack.id, pack.points, epoch + 1)
        done += len(pack.points)
        under_way[worker][1] += 1
        if epoch + 1 == EPOCHS:
            for point in pack.points:
                progress.finish(pack.id, record(point))
            progress.end(pack.id)
            del under_way[worker]
        else:
            free[worker] += seconds(pack.points, epoch + 2)
        left_s = progress.snapshot().left_s
        if 0.1 <= done / total <= 0.9 and left_s is not None:
            said.append((clock.now, left_s))
    assert len(said) > 50
    for when, left_s in said:
        assert 1 / 1.5 < left_s / (clock.now - when) < 1.5
    ended = progress.snapshot()
    progress.phase("ended")
    assert ended.left_s is None
    assert one_line(ended).endswith(" s, ended") or ", ended, " in one_line(ended)
    assert "left" not in one_line(ended)


def test_the_last_epochs_work_has_the_evaluation_in_it(
    progress: SweepProgress, layers: tuple[str, tuple[Point, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pack, points = layers
    noted: list[float] = []
    monkeypatch.setattr(progress._pace, "note", lambda seconds, flops, *rest: noted.append(flops))
    progress.begin(pack, points)
    for epoch in range(1, EPOCHS + 1):
        report(progress, pack, points, epoch)
    works = [progress._cost.work(point) for point in points]
    assert noted[:-1] == pytest.approx([sum(work.training for work in works) / EPOCHS] * (EPOCHS - 1))
    assert noted[-1] - noted[0] == pytest.approx(sum(work.evaluation for work in works)) and noted[-1] > noted[0]
