"""`--set FIELD=V[,V...]` and `--small`: the same space with other values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sweep.planning.choices import metric_mode
from sweep.space import ALL, EVERY_LAYER, AxisPart, Space, Stage, aliases, checked, without
from trainables.data.sources import is_named
from trainables.errors import ConfigError
from trainables.lm.card import is_known_model
from trainables.node.cache_dir import user_path
from trainables.trial.making import coerce
from trainables.trial.parts import REPEATED
from trainables.trial.spec import FIELDS

NUM_SAMPLES = "num_samples"


def apply_overrides(space: Space, settings: Iterable[str] = (), **extra: Any) -> Space:
    """Restrict or replace axes and fixed values of a space.

    Several values of a fixed field make it a new axis of the grid and of every stage that does not fix it.
    `layer` replaces `depth` and the other way round. What a stage takes from an earlier one it still takes.

    Args:
        space: the space as its module states it.
        settings: `FIELD=VALUE` or `FIELD=VALUE,VALUE`; a value with commas stands in double quotes as in CSV
            (`model="a,b",c`), one of several parts is joined by `+` (`probes=fever+counterfact`). `data` takes
            its sources joined by commas, as one value. `layer=all` is every block. Later settings win.
        **extra: single values from options of their own (`data=...`, `seed=...`); None is no override.

    Raises:
        ConfigError: not of that form, an unknown field, or a bad value.
    """
    for name, value in extra.items():
        if value is not None:
            space = _override(space, name, (value,))
    for name, parts in map(_split, settings):
        space = _override(space, name, parts)
    return checked(space)


def override_values(settings: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of each field that some settings name, in their fields' types; of one trial, not of a space.

    Raises:
        ConfigError: not of that form, an unknown field, or a bad value.
    """
    found = {}
    for name, parts in map(_split, settings):
        values = tuple(dict.fromkeys(_typed(name, part) for part in parts))
        if EVERY_LAYER in values:
            raise ConfigError(f"{name}={EVERY_LAYER}: say which, each by its index")
        found[name] = values
    return found


def _split(setting: str) -> tuple[str, tuple[str, ...]]:
    """Return the field and the values of `FIELD=VALUE[,VALUE...]`."""
    name, equals, text = setting.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {setting!r}: must be FIELD=VALUE or FIELD=VALUE,VALUE")
    return name.strip(), (text,) if name.strip() == "data" else _parts(setting, text)


def _parts(setting: str, text: str) -> tuple[str, ...]:
    """Split values at commas, those within double quotes left whole."""
    try:
        (parts,) = csv.reader([text], skipinitialspace=True, strict=True) if text.strip() else ([""],)
    except (csv.Error, ValueError):
        raise ConfigError(
            f"--set {setting!r}: the quotes do not match; a value with commas stands in double quotes, each of its own "
            "written twice"
        ) from None
    return tuple(part.strip() for part in parts)


def small_form(space: Space) -> Space:
    """Return the documented small form of a space, which runs on the sample world.

    Raises:
        ConfigError: the space states none.
    """
    if not space.small:
        raise ConfigError(f"--small: {space.name} states no small form")
    small = replace(space, name=f"{space.name}-small")
    for name, value in space.small.items():
        small = _override(small, name, tuple(value) if isinstance(value, list) else (value,))
    return checked(small)


def select_by_metric(space: Space, metric: str) -> Space:
    """Let another metric decide what stages take from earlier ones.

    Raises:
        ConfigError: no stage takes anything; `check_metrics` says whether there is such a metric.
    """
    if not any(stage.take for stage in space.stages):
        raise ConfigError(f"--select-by: no stage of {space.name} takes anything from an earlier one")
    stages = tuple(
        replace(stage, take=replace(stage.take, by=metric, mode=metric_mode(metric))) if stage.take else stage
        for stage in space.stages
    )
    return replace(space, stages=stages)


def _override(space: Space, name: str, given: tuple[Any, ...]) -> Space:
    if name == NUM_SAMPLES:
        return _set_num_samples(space, given)
    values = tuple(dict.fromkeys(_typed(name, value) for value in given))
    single = len(values) == 1 and values[0] is not EVERY_LAYER
    in_grid = bool(aliases(name) & set(space.axes))
    is_new_axis = not in_grid and not single
    grown = {stage.name for stage in space.stages if is_new_axis and not _states(stage, name)}
    stages = tuple(_override_stage(stage, name, values, grown) for stage in space.stages)
    axes = _swap(space.axes, name, values) | ({name: values} if is_new_axis else {})
    fixed = without(space.fixed, {name: values}) | ({} if in_grid or is_new_axis else {name: values[0]})
    return replace(space, axes=axes, fixed=fixed, stages=stages)


def _states(stage: Stage, name: str) -> bool:
    """Whether a stage itself says what the field is."""
    stated = {*stage.axes, *stage.fixed, *(stage.sampling.fields if stage.sampling else ())}
    if stage.take:
        stated.add(stage.take.field)
    return bool(aliases(name) & stated)


def _override_stage(stage: Stage, name: str, values: tuple[Any, ...], grown: set[str]) -> Stage:
    axes = _swap(stage.axes, name, values)
    sampling = stage.sampling
    if sampling and name in sampling.fields:
        left = {field: spread for field, spread in sampling.fields.items() if field != name}
        sampling = replace(sampling, fields=left) if left else None
        axes[name] = values
    elif stage.name in grown:
        axes[name] = ALL
    take = stage.take
    if take and take.stage in grown and name not in (*take.per, *REPEATED):
        take = replace(take, per=(*take.per, name))
    return replace(stage, axes=axes, sampling=sampling, take=take)


def _swap(axes: Mapping[str, Any], name: str, values: Any) -> dict[str, Any]:
    """Replace an axis, whichever of its names it has; a part of the grid's axis follows the grid."""
    swapped = {}
    for field, old in axes.items():
        same = field in aliases(name)
        swapped[name if same else field] = values if same and not isinstance(old, AxisPart) else old
    return swapped


def _set_num_samples(space: Space, given: tuple[Any, ...]) -> Space:
    if not any(stage.sampling for stage in space.stages):
        raise ConfigError(f"{NUM_SAMPLES}: {space.name} has no sampled stage")
    try:
        (number,) = (int(value) for value in given)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"{NUM_SAMPLES}={','.join(map(str, given))}: must be one whole number above 0")
    stages = tuple(
        replace(stage, sampling=replace(stage.sampling, num_samples=number)) if stage.sampling else stage
        for stage in space.stages
    )
    return replace(space, stages=stages)


def _typed(name: str, value: Any) -> Any:
    if name == "layer" and str(value) == str(EVERY_LAYER):
        return EVERY_LAYER
    if value == "" and name in FIELDS and FIELDS[name].base is not tuple:
        raise ConfigError(f"{name}=: a value is missing")
    value = coerce(name, value)
    if name == "data":
        parts = (part.strip() for part in value.split(","))
        return ",".join(part if is_named(part) else _absolute(part) for part in parts)
    if name in ("general_text", "lm_eval_folder") and value is not None:
        return _absolute(value)
    return _absolute(value) if name == "model" and not is_known_model(value) else value


def _absolute(value: str) -> str:
    """Spell an existing folder or file out, since trials run with another working directory."""
    place = user_path(value)
    return str(place.resolve()) if value and place.exists() else value
