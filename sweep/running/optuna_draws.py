"""Sampled stages: Optuna draws the trials, and what it has learnt follows from the records.

There is no study to restore: the values drawn are listed in the sweep's `sampled.json` before they run, and a study is
built anew from that list and the records. A trial that was drawn and not finished is run again first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from sweep.planning.expand import Choices, Plan, sampled_point
from sweep.planning.points import Point
from sweep.records.store import Store
from sweep.space import Distribution, LogUniform, OneOf, Stage, stage_axes
from trainables.errors import ConfigError
from trainables.trial.spec import TrialSpec

MOST_REPEATS = 20
"""Draws of trials that are known already before a study counts as exhausted."""


class Sampler:
    """Draws the trials of one sampled stage, one study for each combination of its axes.

    Args:
        plan: of the space.
        stage: a stage with `sampling`.
        store: where the list of draws is kept.
        name: of the sweep.
        metric_of: gives a finished trial's status and metrics, or None.
    """

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        store: Store,
        name: str,
        metric_of: Callable[[str], Mapping[str, Any] | None],
    ) -> None:
        """Build the studies from what earlier runs drew."""
        assert stage.sampling is not None
        self.stage, self.sampling = stage, stage.sampling
        self._plan, self._store, self._metric_of = plan, store, metric_of
        self._path = f"{name}/sampled.json"
        axes = stage_axes(plan.space, stage)
        self._groups = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
        self._draws: list[dict[str, Any]] = [
            draw for draw in store.read_json(self._path) or [] if draw["stage"] == stage.name
        ]
        self._waiting = [draw for draw in self._draws if metric_of(draw["id"]) is None]
        self._studies: dict[int, Any] = {}
        self._asked: dict[str, tuple[int, Any]] = {}

    @property
    def ids(self) -> list[str]:
        """Ids of all trials drawn so far."""
        return list(dict.fromkeys(draw["id"] for draw in self._draws if draw["group"] in self._groups))

    @property
    def has_more(self) -> bool:
        """Whether trials are left to draw or to run again."""
        return bool(self._waiting) or any(self._left(number) for number in range(len(self._groups)))

    def next(self, choices: Choices) -> Point | None:
        """Return a trial to run; None when a choice is still open or nothing is left."""
        while self._waiting:
            draw = self._waiting.pop(0)
            point = self._point(draw["group"], draw["values"], choices)
            if point is not None and point.id == draw["id"] and draw["group"] in self._groups:
                self._asked.setdefault(point.id, (self._groups.index(draw["group"]), None))
                return point
        for number, group in enumerate(self._groups):
            for _ in range(MOST_REPEATS if self._left(number) else 0):
                study = self._study(number)
                trial = study.ask({n: _optuna(n, d) for n, d in self.sampling.fields.items()})
                point = self._point(group, trial.params, choices)
                if point is None:
                    break
                known = self._metric_of(point.id)
                if known is None and point.id not in self._asked:
                    self._keep(group, trial.params, point.id)
                    self._asked[point.id] = (number, trial)
                    return point
                self._tell(study, trial, known)
        return None

    def tell(self, trial: str) -> None:
        """Let the study learn from a finished trial's record."""
        number, asked = self._asked.get(trial, (0, None))
        if asked is not None:
            self._tell(self._study(number), asked, self._metric_of(trial))

    def _left(self, number: int) -> int:
        drawn = {draw["id"] for draw in self._draws if draw["group"] == self._groups[number]}
        return max(0, self.sampling.num_samples - len(drawn))

    def _point(self, group: Mapping[str, Any], values: Mapping[str, Any], choices: Choices) -> Point | None:
        try:
            return sampled_point(self._plan, self.stage.name, {**group, **values}, choices)
        except ConfigError as error:
            if "not chosen yet" in str(error):
                return None
            raise

    def _keep(self, group: Mapping[str, Any], values: Mapping[str, Any], trial: str) -> None:
        """Write the draw down before it runs."""
        others = [d for d in self._store.read_json(self._path) or [] if d["stage"] != self.stage.name]
        self._draws.append({"stage": self.stage.name, "group": dict(group), "values": dict(values), "id": trial})
        self._store.write_json(self._path, others + self._draws)

    def _study(self, number: int) -> Any:
        """Return the study of one group, made from its draws and their records."""
        if number in self._studies:
            return self._studies[number]
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        seed = int(self._plan.space.fixed.get("seed", TrialSpec.seed))
        drawn = [draw for draw in self._draws if draw["group"] == self._groups[number]]
        study = optuna.create_study(
            direction="minimize" if self.sampling.mode == "min" else "maximize",
            sampler=optuna.samplers.TPESampler(seed=seed + len(drawn)),
        )
        spreads = {name: _optuna(name, spread) for name, spread in self.sampling.fields.items()}
        for draw in drawn:
            known = self._metric_of(draw["id"])
            value = None if known is None else known["metrics"].get(self.sampling.metric)
            if value is None:
                continue
            pruned = known is not None and known["status"] == "stopped"
            study.add_trial(
                optuna.trial.create_trial(
                    params=draw["values"],
                    distributions=spreads,
                    value=None if pruned else value,
                    intermediate_values={_last_epoch(known): value},
                    state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
                )
            )
        self._studies[number] = study
        return study

    def _tell(self, study: Any, trial: Any, known: Mapping[str, Any] | None) -> None:
        from optuna.trial import TrialState

        value = None if known is None else known["metrics"].get(self.sampling.metric)
        if known is None or value is None or known["status"] in ("failed", "diverged"):
            study.tell(trial, state=TrialState.FAIL)
            return
        trial.report(value, _last_epoch(known))
        if known["status"] == "stopped":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)


def _last_epoch(known: Mapping[str, Any] | None) -> int:
    curves = (known or {}).get("curves", {})
    return max((int(curve[-1][0]) for curve in curves.values() if curve), default=0)


def _optuna(name: str, spread: Distribution) -> Any:
    """Return Optuna's form of a distribution; whole numbers for a field that takes those."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spread, OneOf):
        return CategoricalDistribution(spread.values)
    is_log = isinstance(spread, LogUniform)
    if isinstance(getattr(TrialSpec, name), int):
        return IntDistribution(round(spread.low), round(spread.high), log=is_log)
    return FloatDistribution(spread.low, spread.high, log=is_log)
