"""What a sweep will run: the points of every stage, and what of it is equivalent to others or done.

`build_plan` expands a whole space without running anything. While a sweep runs, `stage_points` gives the
points of a stage for the groups whose choice is known, and `sampled_point` those that a sampler draws.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sweep.planning.additions import Addition, with_additions
from sweep.planning.choices import Choices, settled
from sweep.planning.due import Due
from sweep.planning.groups import Products, awaited, groups_of, joint_products
from sweep.planning.known import DrawnSoFar, KnownIds, State, drawn_of
from sweep.planning.leakage_sets import compared_sets
from sweep.planning.plan import Plan, StagePlan
from sweep.planning.points import Point, PointMaker
from sweep.planning.reported_metrics import check_metric
from sweep.planning.stages import ResolvedSpace, ResolvedStage, resolve
from sweep.planning.starts import Start
from sweep.space import EVERY_LAYER, Space, without
from trainables.errors import ConfigError
from trainables.trial.making import coerce, make_spec, twin
from trainables.trial.spec import TrialSpec

BASELINE = "pretrained"
"""Stage of the pretrained models that every plan adds; nothing is trained in it."""
_NOTHING: Mapping[str, Any] = MappingProxyType({})


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
    products = joint_products(maker, resolved.stages)
    state = records or KnownIds(frozenset(done), frozenset(failed))
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
        drawn = drawn_of(maker, stage, sampled.get(stage.name, ()), done, failed, records)
        plan = _plan_stage(maker, products[stage.name], seen, state, choices, drawn, trained, blocked)
        plans[stage.name] = plan
        seen |= {point.id for point in plan.points}
    if resolved.baseline:
        baseline = baseline_stage([p for plan in plans.values() for p in plan.points], maker, seen, frozenset(plans))
        if baseline.given:
            given = ((baseline, ()),)
            plans[baseline.name] = _plan_stage(maker, given, seen, state, choices, DrawnSoFar(), trained, blocked)
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
    groups = groups_of(plan.maker, found.products or ((found.stage, found.questions),), choices)
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


def _plan_stage(
    maker: PointMaker,
    products: Products,
    seen: Collection[str],
    state: State,
    choices: Choices,
    drawn: DrawnSoFar,
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
    groups = list(groups_of(maker, products, choices))
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
        waits_for=awaited(stage) if is_open else None,
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
