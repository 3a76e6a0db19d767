"""What a sweep will run: the points of every stage, what is equivalent or done, and how trials are packed.

`build_plan` expands a whole space without running anything. While a sweep runs, `stage_points` gives the
points of a stage for the groups whose choice is known, and `make_packs` puts together what can share a
forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

from sweep.planning.choices import Question, make_question, settled
from sweep.planning.points import Point, PointMaker
from sweep.space import EVERY_LAYER, Space, Stage, middle, stage_axes, stage_base, stage_named, without
from trainables.adapters.registry import ADAPTERS
from trainables.errors import ConfigError
from trainables.trial.spec import TrialSpec, coerce, digest, make_spec

Choices = Mapping[str, Mapping[str, Any]]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class StagePlan:
    """One stage, as far as it is known.

    Attributes:
        name: of the stage.
        combinations: product of its axes, equivalents counted.
        points: its different points; with a stand-in value where a choice is still open, and one with
            middling values for every `copies` trials of a sampled stage.
        copies: trials that each of `points` stands for.
        equivalent: how many are points of an earlier stage.
        done: how many of the others have a record.
        to_run: those that are left, of `points`.
        waits_for: the stage whose choice is still open, if any.
        questions: what it takes, one question for every group.
    """

    name: str
    combinations: int
    points: tuple[Point, ...]
    copies: int
    equivalent: int
    done: int
    to_run: tuple[Point, ...]
    waits_for: str | None
    questions: tuple[Question, ...]

    @property
    def num_points(self) -> int:
        """Number of different trials."""
        return len(self.points) * self.copies

    @property
    def num_to_run(self) -> int:
        """Number of trials left."""
        return self.num_points - self.equivalent - self.done


@dataclass(frozen=True)
class Plan:
    """A space expanded.

    Attributes:
        space: as overridden.
        grid_points: product of the full grid's axes, as the notes count.
        grid: its different points.
        arithmetic: the product written out.
        stages: in order.
        maker: makes further points with the models and data looked up already.
    """

    space: Space
    grid_points: int
    grid: tuple[Point, ...]
    arithmetic: str
    stages: tuple[StagePlan, ...]
    maker: PointMaker

    @property
    def num_to_run(self) -> int:
        """Trials left in all stages."""
        return sum(stage.num_to_run for stage in self.stages)

    @property
    def questions(self) -> tuple[Question, ...]:
        """All that is chosen between stages, each question once."""
        asked = (question for stage in self.stages for question in stage.questions)
        return tuple({question.key: question for question in asked}.values())

    def stage(self, name: str) -> StagePlan:
        """Return the plan of a stage; KeyError where there is none of this name."""
        return {stage.name: stage for stage in self.stages}[name]


@dataclass(frozen=True)
class Pack:
    """Trials that run in one forward pass.

    Attributes:
        id: hash of its members' ids.
        points: the members.
    """

    id: str
    points: tuple[Point, ...]


def build_plan(
    space: Space,
    done: Collection[str] = (),
    choices: Choices = _NOTHING,
    until_stage: str | None = None,
    sampled: Mapping[str, Collection[str]] = _NOTHING,
) -> Plan:
    """Expand a space.

    Args:
        space: from `load_space` and `apply_overrides`.
        done: ids of the trials that have a record and are not to be run again.
        choices: recorded choices by their keys.
        until_stage: leave out the stages after this one.
        sampled: ids that earlier runs drew, for each sampled stage.

    Raises:
        ConfigError: values at odds with each other, the models or the data; no stage of that name.
        DataError: data that cannot be found.
    """
    maker = PointMaker()
    stages = space.stages
    if until_stage is not None:
        stages = stages[: stages.index(stage_named(space, until_stage)) + 1]
    is_done = frozenset(done).__contains__
    seen: set[str] = set()
    plans: dict[str, StagePlan] = {}
    for stage in stages:
        plan = _plan_stage(maker, space, stage, seen, is_done, choices, sampled.get(stage.name, ()))
        plans[stage.name] = plan
        seen |= {point.id for point in plan.points}
    grid_points, arithmetic = _arithmetic(maker, space)
    return Plan(space, grid_points, _grid(maker, space, plans), arithmetic, tuple(plans.values()), maker)


def stage_points(plan: Plan, stage: str, choices: Choices = _NOTHING) -> list[Point]:
    """Return the points of a stage for the groups whose choice is known, done ones included.

    Args:
        plan: of the space.
        stage: a grid stage; a sampled one has none before they are drawn, see `sampled_point`.
        choices: by question key; a stage that takes nothing needs none.
    """
    found = stage_named(plan.space, stage)
    if found.sampling:
        return []
    groups = _groups(plan.maker, plan.space, found, plan.stage(stage).questions, choices)
    return [point for members, known in groups if known for point in members]


def sampled_point(plan: Plan, stage: str, values: Mapping[str, Any], choices: Choices = _NOTHING) -> Point:
    """Return the point for values that a sampler drew.

    Args:
        plan: of the space.
        stage: a sampled stage.
        values: of its axes (those of one value may be left out) and of its sampled fields.
        choices: by question key.

    Raises:
        ConfigError: a bad value, or the choice for this group is not known.
    """
    found = stage_named(plan.space, stage)
    axes = stage_axes(plan.space, found)
    single = {name: options[0] for name, options in axes.items() if len(options) == 1}
    stated = single | {name: coerce(name, value) for name, value in values.items()}
    if found.take:
        for question in plan.stage(stage).questions:
            if all(stated[name] == value for name, value in question.group.items()):
                stated[found.take.field] = settled(question, choices)
        if stated.get(found.take.field) is None:
            raise ConfigError(f"stage {stage}: {found.take.field} is not chosen yet for these values")
    return plan.maker.point(make_spec(stage_base(plan.space, found) | stated))


def make_packs(points: Sequence[Point], pack_size: int, slots: int = 1) -> list[Pack]:
    """Put trials that may share a forward pass into packs of about equal size.

    Args:
        points: trials to run.
        pack_size: members of a pack at most. Adapters that do not pack are each a pack of their own.
        slots: packs that can run at once; packs stay smaller where that keeps all of them busy.

    Returns:
        Packs ordered by model and layer, so that a worker keeps its model.
    """
    size = max(1, min(pack_size, -(-len(points) // max(1, slots))))
    alike: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        alike.setdefault(point.pack_key, []).append(point)
    packs = []
    for members in sorted(alike.values(), key=_place):
        most = size if ADAPTERS[members[0].spec.method].packs else 1
        number = -(-len(members) // most)
        cuts = [round(i * len(members) / number) for i in range(number + 1)]
        packs += [_pack(members[start:end]) for start, end in zip(cuts, cuts[1:], strict=False)]
    return packs


def _place(members: Sequence[Point]) -> tuple[str, int]:
    first = members[0]
    return first.card.key, -1 if first.spec.layer is None else first.spec.layer


def _pack(members: Sequence[Point]) -> Pack:
    return Pack(digest(sorted(point.id for point in members)), tuple(members))


def _plan_stage(
    maker: PointMaker,
    space: Space,
    stage: Stage,
    seen: Collection[str],
    is_done: Callable[[str], bool],
    choices: Choices,
    drawn: Collection[str],
) -> StagePlan:
    questions = _questions(maker, space, stage)
    groups = list(_groups(maker, space, stage, questions, choices))
    points = {point.id: point for members, _ in groups for point in members}
    copies = stage.sampling.num_samples if stage.sampling else 1
    equivalent, num_done = 0, min(sum(map(is_done, drawn)), len(points) * copies)
    left = points if num_done < len(points) * copies else {}
    if not stage.sampling:
        known = {point.id for members, is_known in groups for point in members if is_known}
        new = {key: point for key, point in points.items() if key not in seen}
        left = {key: point for key, point in new.items() if not (key in known and is_done(key))}
        equivalent, num_done = len(points) - len(new), len(new) - len(left)
    is_open = any(members and not is_known for members, is_known in groups)
    return StagePlan(
        name=stage.name,
        combinations=maker.count(stage_base(space, stage), stage_axes(space, stage)) * copies,
        points=tuple(points.values()),
        copies=copies,
        equivalent=equivalent,
        done=num_done,
        to_run=tuple(left.values()),
        waits_for=stage.take.stage if stage.take and is_open else None,
        questions=questions,
    )


def _groups(
    maker: PointMaker, space: Space, stage: Stage, questions: Sequence[Question], choices: Choices
) -> Iterator[tuple[list[Point], bool]]:
    """Yield each group's points, and whether its choice is known; the middle value stands in for it."""
    base, axes = stage_base(space, stage), stage_axes(space, stage)
    if stage.sampling:
        axes |= {name: (middle(name, spread),) for name, spread in stage.sampling.fields.items()}
    if stage.take is None:
        yield maker.expand(base, axes), True
        return
    for question in questions:
        value = settled(question, choices)
        known = value is not None
        taken = value if known else sorted(question.values)[len(question.values) // 2]
        group = {name: (value,) for name, value in question.group.items()}
        yield maker.expand(base | {stage.take.field: taken}, axes | group), known


def _questions(maker: PointMaker, space: Space, stage: Stage) -> tuple[Question, ...]:
    """Return what a stage takes: one question for each group."""
    take = stage.take
    if take is None:
        return ()
    source = stage_named(space, take.stage)
    base, axes = stage_base(space, source), stage_axes(space, source)
    own = stage_axes(space, stage)
    questions = []
    for values in product(*(own[name] for name in take.per)):
        group = dict(zip(take.per, values, strict=True))
        strange = [name for name, value in group.items() if value not in axes[name]]
        if strange:
            name = strange[0]
            raise ConfigError(f"stage {stage.name}: {name}={group[name]} is not among those of {take.stage}")
        candidates = maker.expand(base, axes | {name: (value,) for name, value in group.items()})
        questions.append(make_question(take, group, tuple(candidates)))
    return tuple(questions)


def _grid(maker: PointMaker, space: Space, plans: Mapping[str, StagePlan]) -> tuple[Point, ...]:
    """Return the different points of the full grid, those of a stage that is the whole grid."""
    base, axes = without(space.fixed, space.axes), {name: tuple(v) for name, v in space.axes.items()}
    for stage in space.stages:
        same = without(stage_base(space, stage), {"stage": None}) == base and stage_axes(space, stage) == axes
        if same and not stage.take and not stage.sampling and stage.name in plans:
            return plans[stage.name].points
    return tuple(maker.expand(base, axes))


def _arithmetic(maker: PointMaker, space: Space) -> tuple[int, str]:
    """Return the product of the grid's axes, and it as the notes write it: `2 x 6 x 8 x 5 x 5 = 2,400`."""
    axes = {name: tuple(values) for name, values in space.axes.items()}
    count = maker.count(space.fixed, axes)
    factors = {name: str(len(values)) for name, values in axes.items()}
    if EVERY_LAYER in axes.get("layer", ()):
        models = axes.get("model", (space.fixed.get("model", TrialSpec.model),))
        one_each = {"layer": axes["layer"]}
        layers = [maker.count({**space.fixed, "model": model}, one_each) for model in models]
        factors.pop("model", None)
        factors["layer"] = f"({' + '.join(map(str, layers))})" if len(layers) > 1 else str(layers[0])
    return count, f"{' x '.join(factors.values()) or '1'} = {count:,}"
