"""Sampled stages: each judged by itself, by Optuna as we set it, and told what is known; and a whole run on Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.expand import build_plan
from sweep.planning.plan import Plan
from sweep.records.sweep_storage import SweepStorage
from sweep.running.optuna_draws import StageDraws
from sweep.space import ALL, Best, LogUniform, OneOf, Sampling, Space, Stage, Uniform, checked

ROOT = Path(__file__).resolve().parents[3]
TUNED = """
from sweep.space import ALL, Best, LogUniform, Sampling, Space, Stage

space = Space(
    baseline=False,
    name="draws",
    title="a tiny sampled study",
    axes={"model": [%(model)r], "layer": [0, 2]},
    fixed={"data": %(data)r, "memory_dim": 16, "epochs": 6, "segment_tokens": 32, "claims_per_page": 1,
           "allocation": "partitioned", "num_documents": 3},
    stages=(
        Stage(name="select", axes={"model": ALL, "layer": ALL}, fixed={"alpha": 0}),
        Stage(
            name="tune",
            axes={"model": ALL},
            take=Best(field="layer", stage="select", per=("model",)),
            sampling=Sampling(fields={"alpha": LogUniform(0.05, 5.0), "lr": LogUniform(1e-5, 1e-1)}, num_samples=6,
                              grace_epochs=2, reduction=2),
        ),
    ),
)
"""

LESS = Sampling(fields={"alpha": LogUniform(0.1, 10)}, num_samples=6, grace_epochs=2, reduction=2)
MORE = Sampling(fields={"lr": Uniform(0.1, 0.9)}, num_samples=6, metric="train/loss", mode="max", grace_epochs=1)


def space(*samplings: Sampling, **axes: Any) -> Space:
    stages = [
        Stage(name=f"stage{number}", axes=dict.fromkeys(axes, ALL), sampling=sampling)
        for number, sampling in enumerate(samplings)
    ]
    fixed = {"model": "sample-llama", "layer": 3, "allocation": "partitioned"}
    return checked(Space(name="s", title="", axes=axes, fixed=fixed, stages=tuple(stages)))


class Known(dict[str, dict[str, Any]]):
    """Records of finished trials."""

    def give(self, trial: str, status: str, metric: str, *values: float) -> None:
        curve = [[epoch, value] for epoch, value in enumerate(values, start=1)]
        self[trial] = {"status": status, "metrics": {metric: values[-1]}, "curves": {metric: curve}}


def draws(plan: Plan, folder: Path, known: Known, number: int = 0) -> StageDraws:
    return StageDraws(plan, plan.stages[number], SweepStorage(str(folder)), "s", known.get)


def test_each_stage_has_its_own_metric_mode_grace_and_reduction(tmp_path: Path) -> None:
    plan, known = build_plan(space(LESS, MORE)), Known()
    less, more = draws(plan, tmp_path, known), draws(plan, tmp_path, known, 1)
    low, high, middle = (less.next({}).id for _ in range(3))
    both = {"train/nll": 1.0, "train/loss": 9.0}
    assert not less.falls_behind(low, 1, both) and not less.falls_behind(low, 2, both)
    assert not less.falls_behind(high, 1, {"train/nll": 5.0})  # within its grace
    assert less.falls_behind(high, 2, {"train/nll": 5.0, "train/loss": 100.0})
    assert less.falls_behind(middle, 2, {"train/nll": 2.0})
    low, high, middle = (more.next({}).id for _ in range(3))
    assert not more.falls_behind(low, 1, {"train/loss": 1.0})
    assert not more.falls_behind(high, 1, {"train/loss": 5.0, "train/nll": 100.0})
    assert more.falls_behind(middle, 1, {"train/loss": 2.0, "train/nll": 0.0})


def test_an_epoch_that_is_repeated_lacks_the_metric_or_is_not_finite_stops_nothing(tmp_path: Path) -> None:
    plan = build_plan(space(LESS))
    one = draws(plan, tmp_path, Known())
    best, other = one.next({}).id, one.next({}).id
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not one.falls_behind(best, 2, {"train/nll": 1.0})
        assert not one.falls_behind(best, 2, {"train/nll": 7.0})
        assert not one.falls_behind(other, 2, {"train/loss": 7.0})
        assert not one.falls_behind(other, 2, {"train/nll": float("nan")})
        assert one.falls_behind(other, 2, {"train/nll": 7.0})


def test_the_sampler_is_set_by_us_and_not_by_optunas_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    asked: list[dict[str, Any]] = []
    real = optuna.samplers.TPESampler
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda **options: asked.append(options) or real(**options))
    draws(build_plan(space(LESS)), tmp_path, Known()).next({})
    assert asked == [{"seed": 0, "multivariate": True, "constant_liar": True}]


def test_a_second_run_knows_what_the_first_drew_and_judges_by_it(tmp_path: Path) -> None:
    plan, known = build_plan(space(LESS)), Known()
    first = draws(plan, tmp_path, known)
    ids = [first.next({}).id for _ in range(3)]
    known.give(ids[0], "done", "train/nll", 3.0, 1.0, 1.0)
    known.give(ids[1], "stopped", "train/nll", 3.0, 2.0)
    second = draws(plan, tmp_path, known)
    assert second.ids == ids and second.has_more
    assert second.next({}).id == ids[2]  # drawn and not finished: run again first
    assert second.falls_behind(ids[2], 2, {"train/nll": 1.5})  # 1.0 got so far in the first run
    known.give(ids[2], "stopped", "train/nll", 3.0, 1.5)
    second.tell(ids[2])
    new = [second.next({}).id for _ in range(3)]
    assert len({*ids, *new}) == 6 and second.next({}) is None and not second.has_more


def test_draws_of_another_form_of_the_stage_are_kept_and_teach_nothing(tmp_path: Path) -> None:
    known = Known()
    wide = draws(build_plan(space(LESS)), tmp_path, known)
    ids = [wide.next({}).id for _ in range(2)]
    known.give(ids[0], "done", "train/nll", 1.0)
    one_of = Sampling(fields={"alpha": OneOf((0.5, 1.0, 2.0, 4.0))}, num_samples=4)
    other = draws(build_plan(space(one_of)), tmp_path, known)
    assert other.next({}).id == ids[1] and other.next({}).spec.alpha in (0.5, 1.0, 2.0, 4.0)
    assert not other.falls_behind(ids[1], 5, {"train/nll": 1e9})


def test_every_combination_of_the_axes_is_a_study_of_its_own(tmp_path: Path) -> None:
    known = Known()
    both = draws(build_plan(space(LESS, num_documents=[2, 4])), tmp_path, known)
    points = [both.next({}) for _ in range(12)]
    assert [sum(point.spec.num_documents == number for point in points) for number in (2, 4)] == [6, 6]
    small = next(point.id for point in points if point.spec.num_documents == 2)
    large = next(point.id for point in points if point.spec.num_documents == 4)
    assert not both.falls_behind(small, 2, {"train/nll": 1.0}) and not both.falls_behind(large, 2, {"train/nll": 5.0})


def test_a_stage_whose_choice_is_open_draws_nothing_and_loses_nothing(tmp_path: Path) -> None:
    best = Best(field="layer", stage="select", per=("num_documents",))
    stages = (
        Stage(name="select", axes={"num_documents": ALL, "layer": ALL}),
        Stage(name="tune", axes={"num_documents": ALL}, take=best, sampling=LESS),
    )
    fixed = {"model": "sample-llama", "allocation": "partitioned"}
    plan = build_plan(
        checked(Space(name="s", title="", axes={"num_documents": [2], "layer": [1, 3]}, fixed=fixed, stages=stages))
    )
    chosen = {plan.questions[0].key: {"value": 3}}
    one = draws(plan, tmp_path, Known(), 1)
    assert [one.next({}) for _ in range(3)] == [None] * 3 and not (tmp_path / "s").exists()
    drawn = one.next(chosen)
    assert drawn is not None and drawn.spec.layer == 3
    again = draws(plan, tmp_path, Known(), 1)
    assert again.next({}) is None and again.next(chosen).id == drawn.id


def run(space: Path, storage: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "sweep.run",
            str(space),
            "--storage",
            str(storage),
            "--no-report",
            *args,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
    )


@pytest.mark.parametrize("executor", [pytest.param("ray", marks=pytest.mark.slow), "local"])
@pytest.mark.thorough(beside="test_a_second_run_knows_what_the_first_drew_and_judges_by_it")
def test_draws_run_some_are_stopped_early_and_a_second_run_goes_on_where_the_first_ended(
    tmp_path, tiny_models, sample_data, executor
):
    space = tmp_path / "draws.py"
    space.write_text(TUNED % {"model": str(tiny_models["llama"]), "data": str(sample_data)})
    how = ("--executor", executor, *(("--max-concurrent", "2") if executor == "ray" else ()))
    first = run(space, tmp_path / "out", *how, "--set", "num_samples=4")
    assert first.returncode == 0 and "note: MLflow" not in first.stdout, first.stdout + first.stderr
    second = run(space, tmp_path / "out", *how)
    assert second.returncode == 0, second.stdout + second.stderr
    found = [head.record() for head in SweepStorage(str(tmp_path / "out")).index().values()]
    drawn = [r for r in found if r["stage"] == "tune"]
    assert len(drawn) == 6 and len({r["identity"]["alpha"] for r in drawn}) == 6
    stopped = [r for r in drawn if r["status"] == "stopped"]
    assert stopped and all(len(r["curves"]["train/nll"]) < 6 for r in stopped)
    finished = [r for r in drawn if r["status"] == "done"]
    assert finished and all(len(r["curves"]["train/nll"]) == 6 for r in finished)
    third = run(space, tmp_path / "out", *how)
    assert third.returncode == 0 and "0 trials to run" in third.stdout, third.stdout
