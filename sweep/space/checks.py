"""Checks a search space: every value in its field's type, and stages that fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sweep.space.forms import (
    EVERY_LAYER,
    AxisPart,
    Best,
    Distribution,
    LogUniform,
    OneOf,
    Sampling,
    Space,
    Stage,
    Uniform,
    aliases,
    stage_axes,
    stage_named,
    stated,
)
from trainables.errors import ConfigError
from trainables.trial.asking import check_probes
from trainables.trial.making import coerce, unknown_field
from trainables.trial.parts import REPEATED
from trainables.trial.spec import FIELDS


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
                axes={n: v if isinstance(v, AxisPart) else _values(n, v, stage.name) for n, v in stage.axes.items()},
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
        if isinstance(values, AxisPart) and name not in space.axes and name not in space.fixed:
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
