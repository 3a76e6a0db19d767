"""What a stage is made of: its groups of points, and the questions whose answers tell which points these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from sweep.planning.choices import ChoiceQuestion, Choices, make_question, settled
from sweep.planning.points import Point, PointMaker
from sweep.planning.reported_metrics import check_metric
from sweep.planning.stages import ResolvedStage
from sweep.planning.starts import Member, members
from trainables.errors import ConfigError

Products = tuple[tuple[ResolvedStage, tuple[ChoiceQuestion, ...]], ...]


def joint_products(maker: PointMaker, stages: Sequence[ResolvedStage]) -> dict[str, Products]:
    """Return what each stage is made of, with the questions asked.

    The same question is asked of the candidates of all products together: an added one competes too.
    """
    found = {stage.name: [(part, questions_of(maker, part)) for part in (stage, *stage.parts)] for stage in stages}
    joint: dict[str, ChoiceQuestion] = {}
    for question in (q for parts in found.values() for _, questions in parts for q in questions):
        known = joint.get(question.key)
        candidates = {point.id: point for point in (*(known.candidates if known else ()), *question.candidates)}
        joint[question.key] = replace(known or question, candidates=tuple(candidates.values()))
    return {
        name: tuple((part, tuple(joint[question.key] for question in questions)) for part, questions in parts)
        for name, parts in found.items()
    }


def groups_of(maker: PointMaker, products: Products, choices: Choices) -> Iterator[tuple[list[Point], bool]]:
    """Yield each group's points, and whether its choice is known; the middle value stands in for it."""
    for stage, questions in products:
        for points, known in _groups_of_one(maker, stage, questions, choices):
            yield [replace(point, labels=stage.labels) for point in points] if stage.labels else points, known


def _groups_of_one(
    maker: PointMaker, stage: ResolvedStage, questions: Sequence[ChoiceQuestion], choices: Choices
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
    stage: ResolvedStage, questions: Sequence[ChoiceQuestion], choices: Choices
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
    for base, axes, known in _parts(stage, questions_of(maker, stage), choices):
        yield from members(maker, stage, base, axes, known, earlier)


def questions_of(maker: PointMaker, stage: ResolvedStage) -> tuple[ChoiceQuestion, ...]:
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


def awaited(stage: ResolvedStage | None) -> str | None:
    """Return the stage on whose choice the trials of a stage wait."""
    if stage is None:
        return None
    return stage.take.stage if stage.take else awaited(stage.start)
