"""What a sweep will run: the points of every stage, and what of it is equivalent to others or done.

`build_plan` expands a whole space without running anything. While a sweep runs, `stage_points` gives the
points of a stage for the groups whose choice is known, and `sampled_point` those that a sampler draws.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Protocol

from sweep.planning.additions import Addition, with_additions
from sweep.planning.choices import Question, make_question, settled
from sweep.planning.due import Due
from sweep.planning.leakage_sets import compared_sets, told_sets
from sweep.planning.metrics import check_metric
from sweep.planning.points import Point, PointMaker
from sweep.planning.stages import ResolvedSpace, ResolvedStage, resolve
from sweep.planning.starts import Member, Start, members
from sweep.space import EVERY_LAYER, Space, without
from trainables.errors import ConfigError
from trainables.trial.spec import TrialSpec, coerce, make_spec, twin

Choices = Mapping[str, Mapping[str, Any]]
BASELINE = "pretrained"
"""Stage of the pretrained models that every plan adds; nothing is trained in it."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class StagePlan:
    """One stage, as far as it is known.

    Attributes:
        stage: what it shares, varies, takes and samples.
        combinations: product of its axes, equivalents counted.
        points: its different points; with a stand-in value where a choice is still open, and one with
            middling values for every `copies` trials of a sampled stage.
        equivalent: how many are points of an earlier stage.
        done: how many of the others have a record that says they ended, diverged or were stopped.
        failed: how many have failed; they are run again on request only.
        to_run: those that are left to be trained, of `points`.
        to_ask: those whose weights are stored, or trained for another of the plan's trials, and that lack an answer.
        dues: what each of these lacks, by trial id.
        waits_for: the stage whose choice is still open, if any.
        questions: what it takes, one question for every group.
        blocked: trials that cannot start, since the weights that they start from will not come, by id, with the reason.
        wants: trainings of earlier stages that have to be run again for their weights, with the reason.
        products: what it is made of: its own axes and those that were added, each with the questions that it asks.
    """

    stage: ResolvedStage
    combinations: int
    points: tuple[Point, ...]
    equivalent: int
    done: int
    failed: int
    to_run: tuple[Point, ...]
    waits_for: str | None
    questions: tuple[Question, ...]
    to_ask: tuple[Point, ...] = ()
    dues: Mapping[str, Due] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    wants: Mapping[str, str] = field(default_factory=dict)
    products: tuple[tuple[ResolvedStage, tuple[Question, ...]], ...] = ()

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.stage.name

    @property
    def copies(self) -> int:
        """Trials that each of `points` stands for."""
        return self.stage.copies

    @property
    def num_points(self) -> int:
        """Number of different trials."""
        return len(self.points) * self.copies

    @property
    def num_to_run(self) -> int:
        """Number of trials left to be trained (or, where nothing is trained, to be run)."""
        return self.num_points - self.equivalent - self.done - self.failed - self.num_to_ask - len(self.blocked)

    @property
    def num_to_ask(self) -> int:
        """Number of trials left of which nothing has to be trained."""
        return len(self.to_ask)

    @property
    def left(self) -> tuple[Point, ...]:
        """All that are left, of `points`."""
        return (*self.to_run, *self.to_ask)


@dataclass(frozen=True)
class Plan:
    """A space expanded.

    Attributes:
        space: as overridden, everything filled in.
        grid_points: product of the full grid's axes, as the notes count.
        grid: its different points.
        arithmetic: the product written out.
        stages: in order.
        maker: makes further points with the models and data looked up already.
        leakage_sets: names of the space's entry sets by number of documents, for plain memories (`leakage_sets`).
        wanted: trainings that are run again since others start from their weights, each with the reason.
    """

    space: ResolvedSpace
    grid_points: int
    grid: tuple[Point, ...]
    arithmetic: str
    stages: tuple[StagePlan, ...]
    maker: PointMaker
    leakage_sets: Mapping[int, tuple[str, ...]]
    wanted: Mapping[str, str] = field(default_factory=dict)

    def spec_to_run(self, point: Point) -> TrialSpec:
        """Return a point's trial as it is run: a plain memory knows the entry sets that it will be compared under."""
        return told_sets(point.spec, self.leakage_sets)

    @property
    def num_to_run(self) -> int:
        """Trials left to be trained in all stages."""
        return sum(stage.num_to_run for stage in self.stages)

    @property
    def num_to_ask(self) -> int:
        """Trials left in all stages that are only asked."""
        return sum(stage.num_to_ask for stage in self.stages)

    @property
    def num_left(self) -> int:
        """Trials left in all stages."""
        return self.num_to_run + self.num_to_ask

    @property
    def trained_again(self) -> dict[str, int]:
        """Why trials that have been trained would be trained again, and how many."""
        why = (stage.dues[p.id].again for stage in self.stages for p in stage.to_run if p.id in stage.dues)
        return dict(Counter(filter(None, why)))

    @property
    def blocked(self) -> dict[str, int]:
        """Why trials cannot start from the weights that they are to start from, and how many."""
        lines = (f"stage {stage.name}: {why}" for stage in self.stages for why in stage.blocked.values())
        return dict(Counter(lines))

    @property
    def shortages(self) -> list[str]:
        """Which sampled stages have fewer trials than are asked for, and why."""
        return [stage.stage.shortage for stage in self.stages if stage.stage.shortage]

    @property
    def questions(self) -> tuple[Question, ...]:
        """All that is chosen between stages, each question once."""
        asked = (question for stage in self.stages for question in stage.questions)
        return tuple({question.key: question for question in asked}.values())

    @property
    def trials(self) -> set[str]:
        """The ids of all trials, the pretrained models that they are compared with left out."""
        return {point.id for stage in self.stages for point in stage.points if point.trains}

    def stage(self, name: str) -> StagePlan:
        """Return the plan of a stage; KeyError where there is none of this name."""
        return {stage.name: stage for stage in self.stages}[name]


def build_plan(
    space: Space,
    done: Collection[str] = (),
    choices: Choices = _NOTHING,
    until_stage: str | None = None,
    sampled: Mapping[str, Collection[str]] = _NOTHING,
    commits: Mapping[str, str] = _NOTHING,
    failed: Collection[str] = (),
    records: State | None = None,
    additions: Sequence[Addition] = (),
) -> Plan:
    """Expand a space.

    Args:
        space: from `load_space` and `apply_overrides`.
        done: ids of the trials that have a record and are not to be run again.
        choices: recorded choices by their keys.
        until_stage: leave out the stages after this one.
        sampled: ids that earlier runs drew, for each sampled stage.
        commits: at which models of the Hub are taken, by `hub id@revision`; others where they stand now.
        failed: ids of the trials that failed, of those that are `done`.
        records: says what each trial lacks; by default it lacks everything, or nothing if it is `done`.
        additions: points that were added while the sweep ran.

    Raises:
        ConfigError: values at odds with each other, the models or the data; no stage of that name.
        DataError: data that cannot be found.
    """
    resolved = resolve(space, until_stage)
    maker = PointMaker(commits, {stage.name: stage.probes for stage in resolved.stages})
    if additions:
        resolved = with_additions(resolved, space, until_stage, additions, maker)
    products = _products(maker, resolved.stages)
    state = records or _Listed(frozenset(done), frozenset(failed))
    wanted: dict[str, str] = {}
    state.want(wanted)
    while True:  # what is wanted of earlier stages is known after later ones, and may want something itself
        plans = _plan_stages(
            maker, resolved, products, state, records, choices, sampled, frozenset(done), frozenset(failed)
        )
        more = {training: why for plan in plans.values() for training, why in plan.wants.items()}
        if more.keys() <= wanted.keys():
            break
        wanted |= more
        state.want(wanted)
    grid_points, arithmetic = _arithmetic(maker, resolved.grid)
    grid, sets = _grid(maker, resolved, plans), compared_sets(resolve(space))
    return Plan(resolved, grid_points, grid, arithmetic, tuple(plans.values()), maker, sets, wanted)


def _plan_stages(
    maker: PointMaker,
    resolved: ResolvedSpace,
    products: Mapping[str, Products],
    state: State,
    records: State | None,
    choices: Choices,
    sampled: Mapping[str, Collection[str]],
    done: frozenset[str],
    failed: frozenset[str],
) -> dict[str, StagePlan]:
    """Plan every stage, that of the pretrained models among them."""
    seen: set[str] = set()
    plans: dict[str, StagePlan] = {}
    trained: set[str] = set()
    blocked: dict[str, str] = {}
    for stage in resolved.stages:
        drawn = _drawn(maker, stage, sampled.get(stage.name, ()), done, failed, records)
        plan = _plan_stage(maker, products[stage.name], seen, state, choices, drawn, trained, blocked)
        plans[stage.name] = plan
        seen |= {point.id for point in plan.points}
    if resolved.baseline:
        baseline = baseline_stage([p for plan in plans.values() for p in plan.points], maker, seen, frozenset(plans))
        if baseline.given:
            given = ((baseline, ()),)
            plans[baseline.name] = _plan_stage(maker, given, seen, state, choices, _Drawn(), trained, blocked)
    return plans


def baseline_stage(
    points: Iterable[Point], maker: PointMaker, seen: Collection[str], names: Collection[str]
) -> ResolvedStage:
    """Return a stage in which the pretrained models are asked what trained ones are, to compare with.

    Args:
        points: trials.
        maker: of points.
        seen: ids of the trials that are there anyhow.
        names: of the stages that there are.
    """
    name = BASELINE if BASELINE not in names else f"{BASELINE} models"
    found: dict[str, Point] = {}
    for point in points:
        if not point.trains:
            continue
        plain = maker.point(twin(point.spec, {"method": "pretrained", "stage": name}))
        if plain.id not in seen:
            added = (*found[plain.id].added, *point.added) if plain.id in found else point.added
            found[plain.id] = replace(plain, added=tuple(dict.fromkeys(added)))
    return ResolvedStage(name, {}, {}, given=tuple(found.values()))


def stage_points(plan: Plan, stage: str, choices: Choices = _NOTHING) -> list[Point]:
    """Return the points of a stage for the groups whose choice is known, done ones included.

    Args:
        plan: of the space.
        stage: a grid stage; a sampled one has none before they are drawn, see `sampled_point`.
        choices: by question key; a stage that takes nothing needs none.
    """
    found = plan.stage(stage)
    if found.stage.sampling:
        return []
    groups = _groups(plan.maker, found.products or ((found.stage, found.questions),), choices)
    points: dict[str, Point] = {}
    for point in (point for group, known in groups if known for point in group):
        points.setdefault(point.id, point)
    return list(points.values())


def sampled_point(plan: Plan, stage: str, values: Mapping[str, Any], choices: Choices = _NOTHING) -> Point | None:
    """Return the point for values that a sampler drew; None while what its group takes is not chosen yet.

    Args:
        plan: of the space.
        stage: a sampled stage.
        values: of its axes (those of one value may be left out) and of its sampled fields.
        choices: by question key.

    Raises:
        ConfigError: a bad value.
    """
    found = plan.stage(stage)
    single = {name: options[0] for name, options in found.stage.axes.items() if len(options) == 1}
    stated = single | {name: coerce(name, value) for name, value in values.items()}
    take = found.stage.take
    if take:
        for question in found.questions:
            if all(stated[name] == value for name, value in question.group.items()):
                stated[take.field] = settled(question, choices)
        if stated.get(take.field) is None:
            return None
    return plan.maker.point(make_spec({**found.stage.base, **stated}))


class State(Protocol):
    """Says of trials what there is of them."""

    def due(self, point: Point) -> Due | None:
        """Return what a trial lacks; None where it has a result or has failed."""

    def has_failed(self, point: Point) -> bool:
        """Say whether it has failed."""

    def recorded(self, maker: PointMaker, trial: str) -> Point | None:
        """Return a trial that has been trained; None where nothing says what it is."""

    def start(self, point: Point) -> Start:
        """Say what there is of the weights that a trial starts from."""

    def want(self, trainings: Mapping[str, str]) -> None:
        """Take note of trainings that are due again since others start from their weights, with the reasons."""


@dataclass(frozen=True)
class _Drawn:
    """What there is of the trials that a sampled stage has drawn: how many are done, have failed, lack answers."""

    done: int = 0
    failed: int = 0
    to_ask: tuple[tuple[Point, Due], ...] = ()


def _drawn(
    maker: PointMaker,
    stage: ResolvedStage,
    drawn: Collection[str],
    done: Collection[str],
    failed: Collection[str],
    state: State | None,
) -> _Drawn:
    to_ask = {}
    for trial in drawn if state and (stage.probes or not set(drawn) <= set(done)) else ():
        point = state.recorded(maker, trial) if state else None
        due = state.due(point) if state and point else None
        if point and due and not due.trains:
            to_ask[trial] = point, due
    counted = [trial for trial in drawn if trial not in to_ask]
    return _Drawn(sum(i in done for i in counted), sum(i in failed for i in counted), tuple(to_ask.values()))


@dataclass(frozen=True)
class _Listed:
    """What a list of ids says."""

    done: frozenset[str]
    failed: frozenset[str]

    def due(self, point: Point) -> Due | None:
        return None if point.id in self.done else Due(point.askings)

    def has_failed(self, point: Point) -> bool:
        return point.id in self.failed

    def recorded(self, maker: PointMaker, trial: str) -> Point | None:
        return None

    def start(self, point: Point) -> Start:
        return Start()

    def want(self, trainings: Mapping[str, str]) -> None:
        pass


Products = tuple[tuple[ResolvedStage, tuple[Question, ...]], ...]


def _products(maker: PointMaker, stages: Sequence[ResolvedStage]) -> dict[str, Products]:
    """Return what each stage is made of, with the questions asked.

    The same question is asked of the candidates of all products together: an added one competes too.
    """
    found = {stage.name: [(part, _questions(maker, part)) for part in (stage, *stage.parts)] for stage in stages}
    joint: dict[str, Question] = {}
    for question in (q for parts in found.values() for _, questions in parts for q in questions):
        known = joint.get(question.key)
        candidates = {point.id: point for point in (*(known.candidates if known else ()), *question.candidates)}
        joint[question.key] = replace(known or question, candidates=tuple(candidates.values()))
    return {
        name: tuple((part, tuple(joint[question.key] for question in questions)) for part, questions in parts)
        for name, parts in found.items()
    }


def _plan_stage(
    maker: PointMaker,
    products: Products,
    seen: Collection[str],
    state: State,
    choices: Choices,
    drawn: _Drawn,
    trained: set[str],
    blocked: dict[str, str],
) -> StagePlan:
    """Plan one stage.

    Args:
        maker: of points.
        products: what it is made of, its own axes first.
        seen: ids of the trials of earlier stages.
        state: what there is.
        choices: recorded choices.
        drawn: of a sampled stage, what there is of its trials.
        trained: the trainings that earlier stages are to run; those of this one are added.
        blocked: the trainings that cannot start, with the reasons; those of this stage are added.
    """
    stage = products[0][0]
    questions = tuple({question.key: question for _, asked in products for question in asked}.values())
    groups = list(_groups(maker, products, choices))
    wants: dict[str, str] = {}
    stuck: dict[str, str] = {}
    points: dict[str, Point] = {}
    for point in (point for group, _ in groups for point in group):
        points.setdefault(point.id, point)
    copies, combinations = stage.copies, len(points)
    if stage.start is None:
        combinations = sum(
            maker.count(part.base, part.axes) if part.given is None else len(part.given)
            for part, _ in products
            if part is stage or part.given is not None or (part.base, part.axes) != (stage.base, stage.axes)
        )
    if stage.sampling:
        check_metric(stage.sampling.metric, points.values(), f"stage {stage.name}: sampled by")
    equivalent, num_done = 0, min(drawn.done, len(points) * copies)
    num_failed = min(drawn.failed, num_done)
    dues: dict[str, Due] = {point.id: due for point, due in drawn.to_ask}
    to_ask = [point for point, _ in drawn.to_ask]
    left = points if num_done + len(to_ask) < len(points) * copies else {}
    if not stage.sampling:
        known = {point.id for members, is_known in groups for point in members if is_known}
        new = {key: point for key, point in points.items() if key not in seen}
        for key, point in new.items():
            due = state.due(point) if key in known else Due(point.askings)
            if due is not None:
                dues[key] = due
        left = {key: point for key, point in new.items() if key in dues}
        equivalent, num_done = len(points) - len(new), len(new) - len(left)
        num_failed = sum(key in known and key not in dues and state.has_failed(point) for key, point in new.items())
        for key in [key for key, point in left.items() if dues[key].trains and point.spec.start_from]:
            start = _start(stage.name, state, left[key])
            why = start.problem or blocked.get(str(left[key].spec.start_from), "")
            if why:
                blocked[left[key].training] = stuck[key] = why
                del left[key], dues[key]
            elif start.again:
                wants[str(left[key].spec.start_from)] = start.again
        for point in left.values():
            if not dues[point.id].trains or (point.training in trained and point.trains):
                to_ask.append(point)
            elif point.id in known:
                trained.add(point.training)
    asked = {point.id for point in to_ask}
    is_open = any(members and not is_known for members, is_known in groups)
    return StagePlan(
        stage=stage,
        combinations=combinations * copies,
        points=tuple(points.values()),
        equivalent=equivalent,
        done=num_done - num_failed,
        failed=num_failed,
        to_run=tuple(point for key, point in left.items() if key not in asked),
        waits_for=_awaited(stage) if is_open else None,
        questions=questions,
        to_ask=tuple(to_ask),
        dues=dues,
        blocked=stuck,
        wants=wants,
        products=products,
    )


def _start(name: str, state: State, point: Point) -> Start:
    """Say what there is of the weights that a trial is to start from.

    Raises:
        ConfigError: they have to be trained, and would not be kept.
    """
    start = state.start(point)
    if not start.files and not start.problem and point.start and not point.start.spec.keep_memory:
        raise ConfigError(
            f"stage {name}: starts from the weights of stage {point.start.spec.stage}, which are not kept "
            "(keep_memory=false); set keep_memory=true there"
        )
    return start


def _awaited(stage: ResolvedStage | None) -> str | None:
    """Return the stage on whose choice the trials of a stage wait."""
    if stage is None:
        return None
    return stage.take.stage if stage.take else _awaited(stage.start)


def _groups(maker: PointMaker, products: Products, choices: Choices) -> Iterator[tuple[list[Point], bool]]:
    """Yield each group's points, and whether its choice is known; the middle value stands in for it."""
    for stage, questions in products:
        for points, known in _groups_of_one(maker, stage, questions, choices):
            yield [replace(point, labels=stage.labels) for point in points] if stage.labels else points, known


def _groups_of_one(
    maker: PointMaker, stage: ResolvedStage, questions: Sequence[Question], choices: Choices
) -> Iterator[tuple[list[Point], bool]]:
    if stage.given is not None:
        yield list(stage.given), True
        return
    if stage.start is not None:
        found = list(_members(maker, stage, choices))
        for known in (True, False):
            yield list({m.point.id: m.point for m in found if m.known == known}.values()), known
        return
    for base, axes, known in _parts(stage, questions, choices):
        yield maker.expand(base, axes), known


def _parts(
    stage: ResolvedStage, questions: Sequence[Question], choices: Choices
) -> Iterator[tuple[dict[str, Any], dict[str, tuple[Any, ...]], bool]]:
    """Yield base and axes of each group of a stage, and whether what it takes has been chosen."""
    if stage.take is None:
        yield dict(stage.base), stage.typical_axes, True
        return
    for question in questions:
        value = settled(question, choices)
        known = value is not None
        taken = value if known else sorted(question.values)[len(question.values) // 2]
        group = {name: (value,) for name, value in question.group.items()}
        yield {**stage.base, stage.take.field: taken}, stage.typical_axes | group, known


def _members(maker: PointMaker, stage: ResolvedStage, choices: Choices) -> Iterator[Member]:
    """Yield the trials of a stage with what tells them apart, each of those that it starts from with one of its own."""
    earlier = list(_members(maker, stage.start, choices)) if stage.start else []
    for base, axes, known in _parts(stage, _questions(maker, stage), choices):
        yield from members(maker, stage, base, axes, known, earlier)


def _questions(maker: PointMaker, stage: ResolvedStage) -> tuple[Question, ...]:
    """Return what a stage takes: one question for each group."""
    take, source = stage.take, stage.source
    if take is None or source is None:
        return ()
    questions = []
    for values in product(*(stage.axes[name] for name in take.per)):
        group = dict(zip(take.per, values, strict=True))
        strange = [name for name, value in group.items() if value not in source.axes[name]]
        if strange:
            name = strange[0]
            raise ConfigError(f"stage {stage.name}: {name}={group[name]} is not among those of {take.stage}")
        candidates = maker.expand(source.base, {**source.axes, **{name: (value,) for name, value in group.items()}})
        check_metric(take.by, candidates, f"stage {stage.name}: {take.field} is chosen among {take.stage} by")
        questions.append(make_question(take, group, tuple(candidates)))
    return tuple(questions)


def _grid(maker: PointMaker, space: ResolvedSpace, plans: Mapping[str, StagePlan]) -> tuple[Point, ...]:
    """Return the different points of the full grid, those of a stage that is the whole grid."""
    grid = space.grid
    for stage in space.stages:
        same = without(stage.base, {"stage": None}) == grid.base and stage.axes == grid.axes
        if same and not stage.take and not stage.sampling and not stage.start:
            return plans[stage.name].points
    return tuple(maker.expand(grid.base, grid.axes))


def _arithmetic(maker: PointMaker, grid: ResolvedStage) -> tuple[int, str]:
    """Return the product of the grid's axes, and it as the notes write it: `2 x 6 x 8 x 5 x 5 = 2,400`."""
    count = maker.count(grid.base, grid.axes)
    factors = {name: str(len(values)) for name, values in grid.axes.items()}
    if EVERY_LAYER in grid.axes.get("layer", ()):
        models = grid.axes.get("model", (grid.base.get("model", TrialSpec.model),))
        one_each = {"layer": grid.axes["layer"]}
        layers = [maker.count({**grid.base, "model": model}, one_each) for model in models]
        factors.pop("model", None)
        factors["layer"] = f"({' + '.join(map(str, layers))})" if len(layers) > 1 else str(layers[0])
    return count, f"{' x '.join(factors.values()) or '1'} = {count:,}"
