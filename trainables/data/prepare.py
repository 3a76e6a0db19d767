"""Put data by name into a folder that any node can use without a network, and with the same trial ids."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainables.data.ready import MANIFEST, Manifest, new_folder, read_manifest, write_manifest
from trainables.data.sources import OFFICIAL_NAMES, is_named
from trainables.errors import ConfigError, nearest


def prepare_folder(names: Iterable[str], target: Path) -> Manifest:
    """Make a folder of one or several sources by name; a folder that holds them already is left as it is.

    Args:
        names: `fever`, `counterfact`, `hub` or `hub:OWNER/NAME`.
        target: the folder, which must not exist yet or be empty.

    Returns:
        Its manifest.

    Raises:
        ConfigError: another name, two sources of the same files, a folder with something else in it, or a download that
            is not possible.
        DataError: a download that is not what it should be, or a prepared folder that was damaged.
    """
    sources = {name: _ready(name) for name in dict.fromkeys(names)}
    keys: dict[str, str] = {}
    origins: dict[str, Any] = {}
    pages: dict[str, int] = {}
    taken: dict[str, str] = {}
    for name, folder in sources.items():
        manifest = read_manifest(folder)
        assert manifest is not None
        keys |= manifest.keys
        origins |= manifest.origins
        pages |= manifest.pages
        for path in manifest.files:
            kind = path.partition(".")[0]
            if kind in taken:
                raise ConfigError(f"{taken[kind]} and {name}: both hold {kind}; prepare just one of them")
            taken[kind] = name
    if target.is_dir() and any(target.iterdir()):
        held = read_manifest(target)
        if held is None or dict(held.keys) != keys:
            raise ConfigError(f"{target}: holds something else; name a folder that does not exist yet")
        return held
    with new_folder(target) as half:
        for folder in sources.values():
            shutil.copytree(folder, half, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        write_manifest(half, Manifest(keys, origins, pages=pages))
    made = read_manifest(target)
    assert made is not None
    return made


def _ready(name: str) -> Path:
    from trainables.data.hub import is_hub, ready_hub
    from trainables.data.obtain import ready_data

    if name in OFFICIAL_NAMES:
        return ready_data(name)
    if is_hub(name):
        return ready_hub(name)
    known = (*OFFICIAL_NAMES, "hub")
    what = "is made on every node by itself" if is_named(name) else f"is none of {', '.join(known)}"
    raise ConfigError(f"{name!r} {what}{nearest(name, known)}")
