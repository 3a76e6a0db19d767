"""The files in a sweep's folder that are no records: read with their checksums, checked, set aside when broken.

`plan.json` and `sampled.json` are made again from the records, `choices.json` is decided again from them, `space.json`
is written by every run. What `commits.json` and `steering.json` say is nowhere else, so a broken one is the user's to
restore or remove. A file without checksums, as earlier versions wrote them, is read too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sweep.records.record_shape import is_number
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_storage import SweepStorage
from trainables.errors import DataError
from trainables.node.checksums import read_plain_json, sealed, unsealed

CHOICES, DRAWS, COMMITS = "choices.json", "sampled.json", "commits.json"
STEERING, SPACE = "steering.json", "space.json"


def read_sweep_file(storage: SweepStorage, name: str, file: str) -> Any:
    """Return the value of a sweep's file; None where there is none, or a broken one (see `broken_files`).

    Raises:
        StorageError: the storage cannot be read.
    """
    try:
        return _read(storage, name, file)
    except (FileNotFoundError, DataError):
        return None


def write_sweep_file(storage: SweepStorage, name: str, file: str, value: Any) -> None:
    """Write a sweep's file, with its checksums, whole or not at all."""
    if file == CHOICES:
        value = {key: sealed(choice) for key, choice in value.items()}
    elif file == DRAWS:
        value = [sealed(draw) for draw in value]
    else:
        value = sealed(value)
    storage.write_json(f"{name}/{file}", value)


def broken_files(storage: SweepStorage, name: str) -> dict[str, str]:
    """Return what is wrong with the files of a sweep that cannot be used, by name."""
    found = {}
    for file in _CHECKS:
        try:
            _read(storage, name, file)
        except FileNotFoundError:
            continue
        except DataError as error:
            found[file] = str(error)
    return found


def set_broken_aside(storage: SweepStorage, name: str) -> list[str]:
    """Rename the broken files of a sweep that will be made again from the records, and return a line on each.

    Raises:
        DataError: one that cannot be made again.
        StorageError: one cannot be renamed.
    """
    found = broken_files(storage, name)
    if COMMITS in found:
        raise DataError(
            f"{found[COMMITS]}; it says at which commits this sweep takes its models and data: restore it, or remove "
            "it to go on with those of today"
        )
    again = {MANIFEST: "made again", DRAWS: "made again from the records", CHOICES: "decided again from the records"}
    return [f"{problem}; {storage.set_aside(f'{name}/{file}')}, {again[file]}" for file, problem in found.items()]


def _read(storage: SweepStorage, name: str, file: str) -> Any:
    path = f"{name}/{file}"
    text = storage.read(path)
    try:
        value = read_plain_json(text)
        if file == CHOICES and isinstance(value, dict):
            value = {key: unsealed(choice) if isinstance(choice, dict) else choice for key, choice in value.items()}
        elif file == DRAWS and isinstance(value, list):
            value = [unsealed(draw) if isinstance(draw, dict) else draw for draw in value]
        elif isinstance(value, dict):
            value = unsealed(value)
    except ValueError as error:
        raise DataError(f"{storage.full(path)}: not readable ({error})") from None
    if not _CHECKS[file](value):
        raise DataError(f"{storage.full(path)}: not what this file holds")
    return value


def _is_manifest(value: Any) -> bool:
    stages = value.get("stages", []) if isinstance(value, dict) else None
    return isinstance(stages, list) and all(
        isinstance(stage, dict)
        and isinstance(stage.get("name"), str)
        and _texts(stage.get("ids") or [])
        and (stage.get("points") is None or type(stage["points"]) is int)
        for stage in stages
    )


def _is_choices(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_choice, value.values()))


def _is_choice(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("field", ""), str)
        and isinstance(value.get("by"), str)
        and "value" in value
        and not isinstance(value["value"], (dict, list))
        and is_number(value.get("metric"))
        and isinstance(value.get("group", {}), dict)
        and isinstance(value.get("runners_up", []), list)
        and all(
            isinstance(r, dict) and "value" in r and is_number(r.get("metric")) for r in value.get("runners_up", [])
        )
    )


def _are_draws(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(draw, dict)
        and isinstance(draw.get("stage"), str)
        and isinstance(draw.get("id"), str)
        and isinstance(draw.get("group"), dict)
        and isinstance(draw.get("values"), dict)
        for draw in value
    )


def _are_commits(value: Any) -> bool:
    parts = [value.get("models", {}), value.get("data", {})] if isinstance(value, dict) else [None]
    return all(isinstance(part, Mapping) and _texts(list(part.values())) for part in parts)


def _is_steering(value: Any) -> bool:
    wishes = value.get("wishes") if isinstance(value, dict) else None
    return isinstance(wishes, list) and all(
        isinstance(wish, dict)
        and all(isinstance(wish.get(part, ""), str) for part in ("id", "command", "by", "at", "trial", "stage"))
        and _texts(wish.get("settings", []))
        for wish in wishes
    )


def _is_space(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("space"), dict)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    MANIFEST: _is_manifest,
    CHOICES: _is_choices,
    DRAWS: _are_draws,
    COMMITS: _are_commits,
    STEERING: _is_steering,
    SPACE: _is_space,
}
