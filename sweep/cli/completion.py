"""What a shell offers after TAB, beside commands and options; files and folders it offers by itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from trainables.probes.registry import PROBES
from trainables.trial.spec import FIELDS

SHIPPED = "search_spaces"


def spaces(incomplete: str) -> list[str]:
    """Return the shipped spaces that begin so."""
    found = importlib.util.find_spec(SHIPPED)
    folders = list(found.submodule_search_locations or ()) if found else []
    names = (file.stem for folder in folders for file in sorted(Path(folder).glob("*.py")))
    return [name for name in names if name.startswith(incomplete) and not name.startswith("_")]


def settings(incomplete: str) -> list[str]:
    """Return the fields that begin so, as `FIELD=`; after the `=` the values of those that have a list of them."""
    name, equals, value = incomplete.partition("=")
    if not equals:
        return [f"{field}=" for field in FIELDS if field.startswith(incomplete)]
    choices = FIELDS[name].choices if name in FIELDS else ()
    return [f"{name}={choice}" for choice in choices if str(choice).startswith(value)]


def probes(incomplete: str) -> list[str]:
    """Return the probes that begin so."""
    return [name for name in PROBES if name.startswith(incomplete)]
