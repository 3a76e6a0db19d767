"""A search space is data: axes, fixed values, and stages that may take a value from an earlier stage.

Nothing here computes a trial; `planning` expands a space into points. A module in `search_spaces/` holds one
`Space` named `space`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

from trainables.errors import ConfigError, nearest
from trainables.trial.asking import check_probes
from trainables.trial.making import coerce, unknown_field
from trainables.trial.parts import REPEATED
from trainables.trial.spec import FIELDS, TrialSpec


class Part(Enum):
    """Which values of the grid's axis a stage uses."""

    ALL = "all"
    LARGEST = "the largest"
    OTHERS = "all but the largest"


ALL, LARGEST, OTHERS = Part.ALL, Part.LARGEST, Part.OTHERS


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
    axes: Mapping[str, Sequence[Any] | Part]
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
        name: _part(space, name, values) if isinstance(values, Part) else tuple(values)
        for name, values in stage.axes.items()
    }


def _part(space: Space, name: str, part: Part) -> tuple[Any, ...]:
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


def checked(space: Space) -> Space:
    """Return the space with every value in its field's type.

    Raises:
        ConfigError: unknown fields, bad values, no stages, or stages that do not fit together.
    """
    _check_forms(space)
    if not space.stages:
        raise ConfigError(f"{space.name}: the space has no stages; give it at least one Stage")
    names = [stage.name for stage in space.stages]
    if len(set(names)) < len(names):
        raise ConfigError(f"{space.name}: two stages have the same name; stages are {', '.join(names)}")
    space = replace(
        space,
        axes={name: _values(name, values, space.name) for name, values in space.axes.items()},
        fixed={name: coerce(name, value) for name, value in space.fixed.items()},
        stages=tuple(
            replace(
                stage,
                axes={n: v if isinstance(v, Part) else _values(n, v, stage.name) for n, v in stage.axes.items()},
                fixed={name: coerce(name, value) for name, value in stage.fixed.items()},
                probes=check_probes(stage.probes),
            )
            for stage in space.stages
        ),
        probes=check_probes(space.probes),
    )
    for stage in space.stages:
        _check_stage(space, stage)
    return space


def _check_forms(space: Space) -> None:
    """Refuse a stage, a name or a value where several in a tuple are due, and a list where a mapping is due."""
    _check_tuple(space.name, "stages", space.stages, Stage, "Stage(...)")
    _check_tuple(space.name, "probes", space.probes, str, '"fever:num_shots=5"')
    for stage in space.stages:
        place = f"stage {stage.name}"
        for part, given in (("axes", stage.axes), ("fixed", stage.fixed)):
            _check_mapping(place, part, given)
        _check_tuple(place, "probes", stage.probes, str, '"fever:num_shots=5"')
        if stage.take is not None:
            if not isinstance(stage.take, Best):
                raise ConfigError(f"{place}: take={stage.take!r}: must be a Best(...)")
            _check_tuple(place, "per", stage.take.per, str, '"model"')
            for part in ("field", "stage", "by"):
                _check_text(place, part, getattr(stage.take, part))
            if stage.take.mode not in ("min", "max"):
                raise ConfigError(f"{place}: mode={stage.take.mode!r}: must be 'min' or 'max'")
        if stage.sampling is not None:
            _check_sampling(place, stage.sampling)
        if stage.start_from is not None:
            _check_text(place, "start_from", stage.start_from)
    for part, given in (("axes", space.axes), ("fixed", space.fixed), ("small", space.small)):
        _check_mapping(space.name, part, given)


def _check_tuple(place: str, part: str, given: Any, kind: type, example: str) -> None:
    if isinstance(given, kind):
        raise ConfigError(f"{place}: {part} is one {kind.__name__}, not a tuple of them; write {part}=({example},)")
    if not isinstance(given, (tuple, list)) or not all(isinstance(entry, kind) for entry in given):
        raise ConfigError(f"{place}: {part}={given!r}: must be a tuple; write {part}=({example},)")


def _check_mapping(place: str, part: str, given: Any) -> None:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{place}: {part}={given!r}: must be a dict of fields")
    for name in given:
        _check_text(place, f"a name in {part}", name)


def _check_text(place: str, part: str, given: Any) -> None:
    if not isinstance(given, str):
        raise ConfigError(f"{place}: {part}={given!r}: must be text")


def _check_sampling(place: str, sampling: Any) -> None:
    if not isinstance(sampling, Sampling):
        raise ConfigError(f"{place}: sampling={sampling!r}: must be a Sampling(...)")
    _check_mapping(place, "fields", sampling.fields)
    _check_text(place, "metric", sampling.metric)
    for name, spread in sampling.fields.items():
        if not isinstance(spread, (Uniform, LogUniform, OneOf)):
            raise ConfigError(f"{place}: {name}={spread!r}: must be a Uniform, LogUniform or OneOf")
        if isinstance(spread, OneOf) and not isinstance(spread.values, (tuple, list)):
            raise ConfigError(f"{place}: {name}: OneOf({spread.values!r}): must be a tuple; write OneOf((value,))")
    for name, least in (("num_samples", 1), ("grace_epochs", 1), ("reduction", 2)):
        value = getattr(sampling, name)
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"{place}: {name}={value!r}: must be a whole number of at least {least}")
    if sampling.mode not in ("min", "max"):
        raise ConfigError(f"{place}: mode={sampling.mode!r}: must be 'min' or 'max'")


def _values(name: str, values: Sequence[Any], place: str) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise ConfigError(f"{place}: axis {name}={values!r}: must be a list of values")
    typed = (v if v is EVERY_LAYER and name == "layer" else coerce(name, v) for v in values)
    return tuple(dict.fromkeys(typed))


def _check_stage(space: Space, stage: Stage) -> None:
    for name, values in stage.axes.items():
        if isinstance(values, Part) and name not in space.axes and name not in space.fixed:
            raise ConfigError(f"stage {stage.name}: {name} is neither an axis of {space.name} nor fixed in it")
    named = [*stage.axes, *stage.fixed, *(stage.sampling.fields if stage.sampling else ())]
    if stage.take:
        named.append(stage.take.field)
    for name in named:
        if name not in FIELDS:
            raise ConfigError(f"stage {stage.name}: {name}: {unknown_field(name)}")
        if sum(other in aliases(name) for other in named) > 1:
            raise ConfigError(f"stage {stage.name}: {' and '.join(sorted(aliases(name)))} stated more than once")
    for name, spread in stage.sampling.fields.items() if stage.sampling else ():
        _check_spread(stage, name, spread)
    if stage.take:
        _check_take(space, stage, stage.take)
    if stage.start_from is not None:
        _check_start(space, stage, stage.start_from)


def _check_start(space: Space, stage: Stage, name: str) -> None:
    if name not in [earlier.name for earlier in space.stages[: space.stages.index(stage)]]:
        raise ConfigError(f"stage {stage.name}: starts from {name!r}, which is no earlier stage")
    for other, told in ((stage, "it"), (stage_named(space, name), name)):
        if other.sampling:
            raise ConfigError(f"stage {stage.name}: starts from {name}, but {told} is sampled; both must be grids")
    if "start_from" in stated(stage):
        raise ConfigError(f"stage {stage.name}: starts from {name}, and states start_from besides; leave one out")


def _check_spread(stage: Stage, name: str, spread: Distribution) -> None:
    bounds = spread.values if isinstance(spread, OneOf) else (spread.low, spread.high)
    for value in bounds:
        coerce(name, value)
    is_empty = not bounds if isinstance(spread, OneOf) else spread.low >= spread.high
    if is_empty or (isinstance(spread, LogUniform) and spread.low <= 0):
        raise ConfigError(f"stage {stage.name}: {name} has nothing to sample from in {spread}")


def _check_take(space: Space, stage: Stage, take: Best) -> None:
    earlier = space.stages[: space.stages.index(stage)]
    if take.stage not in [s.name for s in earlier]:
        raise ConfigError(f"stage {stage.name}: takes {take.field} from {take.stage!r}, which is no earlier stage")
    source = stage_named(space, take.stage)
    axes = stage_axes(space, source)
    if source.start_from is not None:
        raise ConfigError(
            f"stage {stage.name}: takes {take.field} from {take.stage}, which starts from {source.start_from}; it can "
            "take it from a stage that starts anew only"
        )
    if source.take or source.sampling or not aliases(take.field) & set(axes):
        raise ConfigError(f"stage {stage.name}: {take.stage} is no grid with an axis {take.field}")
    for name in take.per:
        if name not in axes or name not in stage.axes:
            raise ConfigError(f"stage {stage.name}: per {name}: must be an axis of {take.stage} and {stage.name}")
    judged = {*take.per, *aliases(take.field), *REPEATED}
    loose = [name for name, values in axes.items() if len(values) > 1 and name not in judged]
    if loose:
        raise ConfigError(f"stage {stage.name}: {take.stage} varies {loose[0]} too; add it to per")
