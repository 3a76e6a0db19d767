"""A space with everything filled in: what each stage shares, varies, takes and samples.

`resolve` reads a checked `Space` once. Everything after it (points, questions, packs, draws, costs) works from what it
returns and never goes back to the space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from sweep.planning.points import Point
from sweep.space import Best, Sampling, Space, middle, size, stage_axes, stage_base, stage_named, stated, without


@dataclass(frozen=True)
class ResolvedStage:
    """One stage, or the full grid, as plain values.

    Attributes:
        name: of the stage; empty for the full grid.
        base: values that all its trials share, taken, varied and sampled fields left out.
        axes: values of each axis, the parts of the grid's axes filled in.
        take: what an earlier stage decides, if anything.
        source: that earlier stage.
        sampling: further fields, sampled.
        probes: what its trials are asked besides what their fields say.
        given: its trials, where they are no product of axes; None where they are.
        start: the earlier stage whose weights its trials take over, if any.
        stated: the fields that the stage itself says something about; what else differs in `start` it has from there.
        parts: further products that belong to it, which were added while the sweep ran.
        labels: of such a part: what the records of its trials say of where they come from.
    """

    name: str
    base: Mapping[str, Any]
    axes: Mapping[str, tuple[Any, ...]]
    take: Best | None = None
    source: ResolvedStage | None = None
    sampling: Sampling | None = None
    probes: tuple[str, ...] = ()
    given: tuple[Point, ...] | None = None
    start: ResolvedStage | None = None
    stated: frozenset[str] = frozenset()
    parts: tuple[ResolvedStage, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def copies(self) -> int:
        """Trials for each combination of the axes: no more than there are to draw."""
        if not self.sampling:
            return 1
        return min(self.sampling.num_samples, self.most_draws or self.sampling.num_samples)

    @property
    def most_draws(self) -> int | None:
        """Different values that can be drawn for a combination of the axes; None without a limit."""
        sizes = [size(name, spread) for name, spread in (self.sampling.fields if self.sampling else {}).items()]
        return None if None in sizes else prod(filter(None, sizes))

    @property
    def shortage(self) -> str:
        """Why it has fewer trials than are asked for; empty where it has not."""
        asked = self.sampling.num_samples if self.sampling else 1
        if self.copies == asked:
            return ""
        fields = ", ".join(self.sampling.fields) if self.sampling else ""
        return f"stage {self.name}: num_samples={asked}, but {fields} can be drawn in {self.copies} ways only"

    @property
    def combinations(self) -> list[dict[str, Any]]:
        """Every combination of the axes' values."""
        return [dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())]

    @property
    def typical_axes(self) -> dict[str, tuple[Any, ...]]:
        """The axes, and a value from the middle of its distribution for every sampled field."""
        spreads = self.sampling.fields if self.sampling else {}
        return {**self.axes, **{name: (middle(name, spread),) for name, spread in spreads.items()}}


@dataclass(frozen=True)
class ResolvedSpace:
    """A space as plain values.

    Attributes:
        name: of the space.
        title: one line for people.
        grid: the full grid, as the study's notes count it.
        stages: what is really run, in order.
        baseline: whether the pretrained models are asked too.
    """

    name: str
    title: str
    grid: ResolvedStage
    stages: tuple[ResolvedStage, ...]
    baseline: bool = False


def resolve(space: Space, until_stage: str | None = None) -> ResolvedSpace:
    """Fill in a space.

    Args:
        space: checked, overrides applied.
        until_stage: leave out the stages after this one.

    Raises:
        ConfigError: no stage of that name.
    """
    stages = space.stages
    if until_stage is not None:
        stages = stages[: stages.index(stage_named(space, until_stage)) + 1]
    found: dict[str, ResolvedStage] = {}
    for stage in stages:
        found[stage.name] = ResolvedStage(
            name=stage.name,
            base=stage_base(space, stage),
            axes=stage_axes(space, stage),
            take=stage.take,
            source=found[stage.take.stage] if stage.take else None,
            sampling=stage.sampling,
            probes=tuple(dict.fromkeys((*space.probes, *stage.probes))),
            start=found[stage.start_from] if stage.start_from is not None else None,
            stated=stated(stage),
        )
    axes = {name: tuple(values) for name, values in space.axes.items()}
    grid = ResolvedStage("", without(space.fixed, space.axes), axes)
    return ResolvedSpace(space.name, space.title, grid, tuple(found.values()), bool(space.baseline))
