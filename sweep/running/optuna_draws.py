"""Sampled stages: Optuna draws the trials and says which fall behind; what it has learnt follows from the records.

There is no study to restore: the values drawn are listed in the sweep's `sampled.json` before they run, and a study is
built anew from that list and the records. A trial that was drawn and not finished is run again first.

Early stopping is Optuna's asynchronous successive halving (ASHA), the same whatever executes the trials: after
`grace_epochs`, and after `reduction` times as many each time, a trial goes on if it is in the best part, one in
`reduction`, of those that got so far. Stages, and the combinations of a stage's axes, are judged each by itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from sweep.planning.choices import Choices
from sweep.planning.expand import sampled_point
from sweep.planning.plan import Plan, StagePlan
from sweep.planning.points import Point
from sweep.records.sweep_files import DRAWS, read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.space import Distribution, LogUniform, OneOf, middle
from trainables.trial.spec import TrialSpec

MOST_REPEATS = 20
"""Draws of trials that are known already before values are taken that are not tried yet, or a study is exhausted."""
MOST_LISTED = 1000
"""Combinations of values up to which those that are not tried are listed."""


class StageDraws:
    """Draws the trials of one sampled stage, one study for each combination of its axes.

    Args:
        plan: of the space.
        stage: one with `sampling`.
        storage: where the list of draws is kept.
        name: of the sweep.
        record_of: gives a finished trial's record (`status`, `metrics` and `curves` are read), or None.
        recorded: reads the records of the stage, oldest first: what was drawn where the list of draws is lost.
        choices: recorded choices by key.
    """

    def __init__(
        self,
        plan: Plan,
        stage: StagePlan,
        storage: SweepStorage,
        name: str,
        record_of: Callable[[str], Mapping[str, Any] | None],
        recorded: Callable[[], Sequence[Mapping[str, Any]]] = tuple,
        choices: Choices | None = None,
    ) -> None:
        """Read what earlier runs drew."""
        assert stage.stage.sampling is not None
        self.stage, self.sampling = stage.stage, stage.stage.sampling
        self._plan, self._storage, self._record_of = plan, storage, record_of
        self._name = name
        self._groups = self.stage.combinations
        self._middle = {name: middle(name, spread) for name, spread in self.sampling.fields.items()}
        kept = read_sweep_file(storage, name, DRAWS) or []
        self._draws: list[dict[str, Any]] = [draw for draw in kept if draw["stage"] == self.stage.name]
        if not self._draws and (found := recorded()):
            self._draws = self._drawn_again(found, choices or {})
            self._write()
        self._waiting = [draw for draw in self._draws if record_of(draw["id"]) is None]
        self._studies: dict[int, Any] = {}
        self._asked: dict[str, tuple[int, Any]] = {}
        self._epochs: dict[str, int] = {}
        self.exhausted: dict[int, str] = {}
        """Combinations for which nothing new can be drawn, by number, and why."""

    @property
    def ids(self) -> list[str]:
        """Ids of all trials drawn so far."""
        return list(dict.fromkeys(draw["id"] for draw in self._draws if draw["group"] in self._groups))

    @property
    def has_more(self) -> bool:
        """Whether trials are left to draw or to run again."""
        return bool(self._waiting) or any(self._left(number) for number in range(len(self._groups)))

    def next(self, choices: Choices, pack_key: tuple[Any, ...] | None = None) -> Point | None:
        """Return a trial to run; None when a choice is still open or nothing is left.

        Args:
            choices: made so far.
            pack_key: draw for a pack of trials of this kind only. One that is of another kind is returned all the same
                where the fields that are sampled decide about that.
        """
        for draw in list(self._waiting):
            point = self._point(draw["group"], draw["values"], choices)
            if point is None or pack_key not in (None, point.pack_key):
                continue  # its group's choice is still open, or it is of another kind
            self._waiting.remove(draw)
            if point.id == draw["id"] and draw["group"] in self._groups:
                number = self._groups.index(draw["group"])
                fits = self._fits(draw["values"])
                self._asked.setdefault(point.id, (number, self._ask(number, draw["values"]) if fits else None))
                return point
        for number, group in enumerate(self._groups):
            middle = self._point(group, self._middle, choices) if self._left(number) else None
            if middle is None or pack_key not in (None, middle.pack_key):
                continue  # nothing is left, its choice is still open, or it is of another kind
            untried = self._untried(group, choices)
            if untried == []:
                self._exhaust(number, "all the values there are have been tried, or make no difference")
                continue
            for attempt in range(2 * MOST_REPEATS):
                trial = self._ask(number, untried[0] if untried and attempt >= MOST_REPEATS else None)
                point = self._point(group, trial.params, choices)
                assert point is not None
                known = self._record_of(point.id)
                if known is None and point.id not in self._asked:
                    self._keep(group, trial.params, point.id)
                    self._asked[point.id] = (number, trial)
                    return point
                self._learn(number, trial, known)
            self._exhaust(number, f"{2 * MOST_REPEATS} draws in a row gave trials that are there already")
        return None

    def _untried(self, group: Mapping[str, Any], choices: Choices) -> list[dict[str, Any]] | None:
        """Return values that give trials not known yet, where they can be counted; None where they cannot."""
        fields = self.sampling.fields
        most = self.stage.most_draws
        if most is None or most > MOST_LISTED:
            return None
        options = [_listed(name, spread) for name, spread in fields.items()]
        found: dict[str, dict[str, Any]] = {}
        for values in (dict(zip(fields, chosen, strict=True)) for chosen in product(*options)):
            point = self._point(group, values, choices)
            if point is not None and point.id not in self._asked and self._record_of(point.id) is None:
                found.setdefault(point.id, values)
        return list(found.values())

    def _exhaust(self, number: int, why: str) -> None:
        drawn = len({draw["id"] for draw in self._draws if draw["group"] == self._groups[number]})
        group = ", ".join(f"{name}={value}" for name, value in self._groups[number].items())
        place = f"stage {self.stage.name}" + (f" for {group}" if group else "")
        self.exhausted[number] = f"{place}: {drawn} of {self.stage.copies} trials, nothing left to draw: {why}"

    def falls_behind(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Take note of a trial's epoch and say whether to stop it; epochs that are repeated change nothing."""
        _, asked = self._asked.get(trial, (0, None))
        value = metrics.get(self.sampling.metric)
        if asked is None or value is None or not math.isfinite(value) or epoch <= self._epochs.get(trial, 0):
            return False
        self._epochs[trial] = epoch
        asked.report(value, epoch)
        return bool(asked.should_prune())

    def adopt(self, plan: Plan) -> None:
        """Take values from an earlier stage as another plan of the same sweep asks for them."""
        self._plan = plan

    def tell(self, trial: str) -> None:
        """Let the study learn from a finished trial's record."""
        number, asked = self._asked.get(trial, (0, None))
        if asked is not None:
            self._asked[trial] = number, None  # one that was stopped may be resumed and end again
            self._end(number, asked, self._record_of(trial))

    def _left(self, number: int) -> int:
        if number in self.exhausted:
            return 0
        drawn = {draw["id"] for draw in self._draws if draw["group"] == self._groups[number]}
        return max(0, self.stage.copies - len(drawn))

    def _point(self, group: Mapping[str, Any], values: Mapping[str, Any], choices: Choices) -> Point | None:
        return sampled_point(self._plan, self.stage.name, {**group, **values}, choices)

    def _keep(self, group: Mapping[str, Any], values: Mapping[str, Any], trial: str) -> None:
        """Write the draw down before it runs."""
        self._draws.append({"stage": self.stage.name, "group": dict(group), "values": dict(values), "id": trial})
        self._write()

    def _write(self) -> None:
        kept = read_sweep_file(self._storage, self._name, DRAWS) or []
        others = [draw for draw in kept if draw["stage"] != self.stage.name]
        write_sweep_file(self._storage, self._name, DRAWS, others + self._draws)

    def _drawn_again(self, recorded: Sequence[Mapping[str, Any]], choices: Choices) -> list[dict[str, Any]]:
        """Make the list of draws from records: a draw is one whose group and values give the record's id."""
        found = []
        for record in recorded:
            values = {name: record["identity"].get(name) for name in self.sampling.fields}
            for group in self._groups:
                point = self._point(group, values, choices)
                if point is not None and point.id == record["id"]:
                    found.append({"stage": self.stage.name, "group": dict(group), "values": values, "id": point.id})
                    break
        return found

    def _fits(self, values: Mapping[str, Any]) -> bool:
        """Whether values that were drawn once could be drawn from the distributions of now."""
        fields = self.sampling.fields
        return values.keys() == fields.keys() and all(_holds(fields[name], value) for name, value in values.items())

    def _ask(self, number: int, values: Mapping[str, Any] | None = None) -> Any:
        """Return a trial of a group's study, with new values or the given ones."""
        study = self._study(number)
        if values is not None:
            study.enqueue_trial(dict(values))
        return study.ask({name: _optuna(name, spread) for name, spread in self.sampling.fields.items()})

    def _study(self, number: int) -> Any:
        """Return the study of one group, made from its draws and their records."""
        if number in self._studies:
            return self._studies[number]
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        drawn = [draw for draw in self._draws if draw["group"] == self._groups[number]]
        seed = int(self.stage.base.get("seed", TrialSpec.seed)) + len(drawn)
        study = optuna.create_study(
            direction="minimize" if self.sampling.mode == "min" else "maximize",
            sampler=optuna.samplers.RandomSampler(seed),  # cheap, while what is known is told
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=self.sampling.grace_epochs,
                reduction_factor=self.sampling.reduction,
                min_early_stopping_rate=0,
            ),
        )
        self._studies[number] = study
        for draw in drawn:
            known = self._record_of(draw["id"])
            if known is not None and self._fits(draw["values"]):
                self._learn(number, self._ask(number, draw["values"]), known)
        with warnings.catch_warnings():  # both were experimental in Optuna 4 and are the default in 5
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        return study

    def _learn(self, number: int, trial: Any, known: Mapping[str, Any] | None) -> None:
        """Tell a study of a trial that ran earlier, epoch by epoch."""
        record = known or {}
        curve = record.get("curves", {}).get(self.sampling.metric) or []
        if not curve and record.get("metrics", {}).get(self.sampling.metric) is not None:
            curve = [[_last_epoch(record), record["metrics"][self.sampling.metric]]]
        for epoch, value in curve:
            if value is not None:
                trial.report(value, int(epoch))
                trial.should_prune()  # the pruner notes what each trial had when it got so far
        self._end(number, trial, known)

    def _end(self, number: int, trial: Any, known: Mapping[str, Any] | None) -> None:
        study = self._study(number)
        value = None if known is None else known["metrics"].get(self.sampling.metric)
        if known is None or value is None or known["status"] in ("failed", "diverged"):
            study.tell(trial, state=_state("FAIL"))
        elif known["status"] == "stopped":
            study.tell(trial, state=_state("PRUNED"))
        else:
            study.tell(trial, value)


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _last_epoch(record: Mapping[str, Any]) -> int:
    return max((int(curve[-1][0]) for curve in record.get("curves", {}).values() if curve), default=0)


def _listed(name: str, spread: Distribution) -> list[Any]:
    """Return all values of a distribution that has so many."""
    if isinstance(spread, OneOf):
        return list(dict.fromkeys(spread.values))
    return list(range(round(spread.low), round(spread.high) + 1))


def _holds(spread: Distribution, value: Any) -> bool:
    """Whether a distribution can give a value."""
    return value in spread.values if isinstance(spread, OneOf) else bool(spread.low <= value <= spread.high)


def _optuna(name: str, spread: Distribution) -> Any:
    """Return Optuna's form of a distribution; whole numbers for a field that takes those."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spread, OneOf):
        return CategoricalDistribution(spread.values)
    is_log = isinstance(spread, LogUniform)
    if isinstance(getattr(TrialSpec, name), int):
        return IntDistribution(round(spread.low), round(spread.high), log=is_log)
    return FloatDistribution(spread.low, spread.high, log=is_log)
