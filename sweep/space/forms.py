"""The parts of a search space, and what a stage says of its trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from trainables.errors import ConfigError, nearest
from trainables.trial.making import coerce
from trainables.trial.spec import TrialSpec


class AxisPart(Enum):
    """Which values of the grid's axis a stage uses."""

    ALL = "all"
    LARGEST = "the largest"
    OTHERS = "all but the largest"


ALL, LARGEST, OTHERS = AxisPart.ALL, AxisPart.LARGEST, AxisPart.OTHERS


class EveryLayer(Enum):
    """Stands in a `layer` axis for every block of the model at hand."""

    EVERY_LAYER = "all"

    def __str__(self) -> str:
        """As it is written in `--set layer=all`."""
        return self.value


EVERY_LAYER = EveryLayer.EVERY_LAYER


@dataclass(frozen=True, kw_only=True)
class Best:
    """The value of `field` that did best in an earlier stage, chosen once for each group of trials.

    Attributes:
        field: what is taken; `layer` also where the earlier stage's axis is `depth`.
        stage: the earlier stage.
        per: axes that both stages share; each combination of their values is a group with its own choice. Seeds that
            are not named here repeat a trial: the mean over them decides.
        by: metric that decides.
        mode: whether less or more of it is better.
    """

    field: str
    stage: str
    per: tuple[str, ...]
    by: str = "memory/nll"
    mode: Literal["min", "max"] = "min"


@dataclass(frozen=True)
class Uniform:
    """Every number between two bounds equally likely; whole numbers for a field that takes those."""

    low: float
    high: float


@dataclass(frozen=True)
class LogUniform:
    """The same on a logarithmic scale."""

    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """One of these values."""

    values: tuple[Any, ...]


Distribution = Uniform | LogUniform | OneOf


def middle(name: str, spread: Distribution) -> Any:
    """Return a value of the field `name` from the middle of a distribution."""
    if isinstance(spread, OneOf):
        return coerce(name, spread.values[len(spread.values) // 2])
    is_log = isinstance(spread, LogUniform)
    value = math.sqrt(spread.low * spread.high) if is_log else (spread.low + spread.high) / 2
    return coerce(name, round(value) if isinstance(getattr(TrialSpec, name), int) else value)


def size(name: str, spread: Distribution) -> int | None:
    """Return how many different values of the field `name` a distribution holds; None without a limit."""
    if isinstance(spread, OneOf):
        return len({coerce(name, value) for value in spread.values})
    return round(spread.high) - round(spread.low) + 1 if isinstance(getattr(TrialSpec, name), int) else None


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a stage samples instead of walking a grid: what, how often, and when to stop a bad trial early.

    Attributes:
        fields: distribution of each sampled field.
        num_samples: trials for each combination of the stage's axes.
        metric: what the sampler and early stopping (successive halving) look at, reported after each epoch.
        mode: whether less or more of it is better.
        grace_epochs: epochs that every trial gets.
        reduction: of the trials that reach a rung, one in so many goes on.
    """

    fields: Mapping[str, Distribution]
    num_samples: int
    metric: str = "train/nll"
    mode: Literal["min", "max"] = "min"
    grace_epochs: int = 5
    reduction: int = 3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One round of trials: the product of its axes.

    Attributes:
        name: as in `--stage NAME` and in records.
        axes: values of its own, or the part of the grid's axis that it uses.
        fixed: what makes the stage what it is; `--set` does not touch it.
        take: a value that an earlier stage decides.
        sampling: further fields, sampled.
        start_from: an earlier stage, whose trained weights its trials take over. There is a trial for each trial of
            that stage that has the same values of the axes that both stages have; of that stage's other axes it has
            that trial's values, unless `fixed` says another.
        probes: what its trials are asked besides what their fields say: `"fever:num_shots=5"`. It is no part of what
            they are: it may be added later, and is then asked of the stored weights.
    """

    name: str
    axes: Mapping[str, Sequence[Any] | AxisPart]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    take: Best | None = None
    sampling: Sampling | None = None
    start_from: str | None = None
    probes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Space:
    """An experiment.

    Attributes:
        name: default name of the sweep.
        title: one line for people.
        axes: the full grid as the notes count it, in their order.
        stages: what is really run.
        fixed: values that differ from the trial's defaults, for the grid and all stages.
        small: overrides (`--small`) with which the space runs on the sample world in seconds; the name
            `num_samples` stands for that of the sampled stages.
        probes: what the trials of all stages are asked besides; see `Stage`.
        baseline: False for a space in which the pretrained models are not to be asked what its trials are; else
            `run` and `plan` add them, to compare with, unless they are told not to.
    """

    name: str
    title: str
    axes: Mapping[str, Sequence[Any]]
    stages: tuple[Stage, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[str, ...] = ()
    baseline: bool | None = None


def aliases(name: str) -> frozenset[str]:
    """Fields that state the same thing as `name`: layer and depth do."""
    return frozenset({"layer", "depth"}) if name in ("layer", "depth") else frozenset({name})


def stage_named(space: Space, name: str) -> Stage:
    """Find a stage.

    Raises:
        ConfigError: there is none of this name.
    """
    for stage in space.stages:
        if stage.name == name:
            return stage
    names = [stage.name for stage in space.stages]
    raise ConfigError(f"stage {name!r}: {space.name} has {', '.join(names)}{nearest(name, names)}")


def stated(stage: Stage) -> frozenset[str]:
    """Return the fields that a stage itself says something about, under all of their names."""
    names = [*stage.axes, *stage.fixed, *(stage.sampling.fields if stage.sampling else ())]
    names += [stage.take.field] if stage.take else []
    return frozenset(alias for name in names for alias in aliases(name))


def stage_axes(space: Space, stage: Stage) -> dict[str, tuple[Any, ...]]:
    """Return a stage's axes with the parts of the grid's axes filled in."""
    return {
        name: _part(space, name, values) if isinstance(values, AxisPart) else tuple(values)
        for name, values in stage.axes.items()
    }


def _part(space: Space, name: str, part: AxisPart) -> tuple[Any, ...]:
    values = tuple(space.axes[name]) if name in space.axes else (space.fixed[name],)
    if part is ALL:
        return values
    largest = max(values)
    return (largest,) if part is LARGEST else tuple(v for v in values if v != largest)


def without(values: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what `names` states, under either of a field's names."""
    out = {alias for name in names for alias in aliases(name)}
    return {name: value for name, value in values.items() if name not in out}


def stage_base(space: Space, stage: Stage) -> dict[str, Any]:
    """Return the values that all trials of a stage share, taken and varied fields left out."""
    varied = dict.fromkeys([*stage.axes, *(stage.sampling.fields if stage.sampling else ())])
    if stage.take:
        varied[stage.take.field] = None
    shared = without(space.fixed, {**stage.fixed, **varied}) | dict(stage.fixed)
    return without(shared, varied) | {"stage": stage.name}
