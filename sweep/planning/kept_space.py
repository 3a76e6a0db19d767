"""A search space kept beside a sweep's results, `space.json`: what the sweep can be given more points from later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from sweep.records.sweep_files import SPACE, read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.space import (
    EVERY_LAYER,
    AxisPart,
    Best,
    LogUniform,
    OneOf,
    Sampling,
    Space,
    Stage,
    Uniform,
    checked,
)
from trainables.errors import ConfigError

_KIND = "is"
_KINDS = {kind.__name__: kind for kind in (Space, Stage, Best, Sampling, Uniform, LogUniform, OneOf)}


def keep_space(storage: SweepStorage, name: str, space: Space, until_stage: str | None) -> None:
    """Write down the space of a sweep, with its overrides, and the last stage that is asked for."""
    write_sweep_file(storage, name, SPACE, {"format": 1, "space": plain_space(space), "until_stage": until_stage or ""})


def kept_space(storage: SweepStorage, name: str) -> tuple[Space, str | None]:
    """Return the space of a sweep's last run, and the last stage that it was to run.

    Raises:
        ConfigError: nothing says it, or what does is of another version.
        StorageError: the storage cannot be read.
    """
    found = read_sweep_file(storage, name, SPACE)
    if found is None:
        raise ConfigError(
            f"{storage.full(name)}: no {SPACE} there, so its points are not known; run the sweep once more"
        )
    try:
        space = _made(found["space"])
    except (KeyError, TypeError, ValueError) as error:
        where = storage.full(f"{name}/{SPACE}")
        raise ConfigError(f"{where}: of another version ({error}); run the sweep once more") from None
    return checked(space), found.get("until_stage") or None


def plain_space(value: Any) -> Any:
    """Return a space, or a part of one, as plain JSON values."""
    if isinstance(value, AxisPart):
        return {_KIND: "AxisPart", "name": value.name}
    if value is EVERY_LAYER:
        return {_KIND: "EveryLayer"}
    if is_dataclass(value):
        parts = {part.name: plain_space(getattr(value, part.name)) for part in fields(value)}
        return {_KIND: type(value).__name__, **parts}
    if isinstance(value, Mapping):
        return {name: plain_space(held) for name, held in value.items()}
    return [plain_space(held) for held in value] if isinstance(value, (list, tuple)) else value


def _made(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_made, value))
    if not isinstance(value, dict):
        return value
    parts = {name: _made(held) for name, held in value.items() if name != _KIND}
    if _KIND not in value:
        return parts
    if value[_KIND] == "AxisPart":
        return AxisPart[parts["name"]]
    return EVERY_LAYER if value[_KIND] == "EveryLayer" else _KINDS[value[_KIND]](**parts)
