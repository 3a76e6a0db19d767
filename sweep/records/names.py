"""What models are called where people read: two different ones never alike, whatever their folders are called.

A model's name is short (the last part of a folder's path); its key is what it is. Names that two keys share are told
apart by what differs in their paths, else by their revisions, else by their keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import PurePath
from typing import Any

from sweep.records.sweep_storage import RecordHead, as_folder
from trainables.lm.card import ModelCard

Model = Mapping[str, Any]
"""What a record says of its model: `name`, `key`, `given`, and since 0.3 `path`, `revision` and `commit`."""


def display_names(models: Iterable[Model]) -> dict[str, str]:
    """Return a name for every model by its key: its own where no other bears it.

    Args:
        models: the `model` parts of records; each as often as it occurs.
    """
    by_name: dict[str, dict[str, Model]] = defaultdict(dict)
    for model in models:
        by_name[str(model.get("name"))].setdefault(str(model.get("key")), model)
    names: dict[str, str] = {}
    for alike in by_name.values():
        forms = {key: list(_longer(model)) for key, model in alike.items()}
        levels = max(map(len, forms.values()))
        for level in range(levels):
            chosen = {key: own[min(level, len(own) - 1)] for key, own in forms.items()}
            if len(alike) == len(set(chosen.values())):
                names |= chosen
                break
    return names


def _longer(model: Model) -> Iterator[str]:
    """Yield a model's name, then longer and longer forms, the last of which is its alone."""
    name, key = str(model.get("name")), str(model.get("key"))
    yield name
    path = str(model.get("path") or "")
    if not path and "/" in str(model.get("given") or "") and ":" in key:
        path = str(model["given"])  # a folder, in a record that does not say its path
    above = [part for part in PurePath(path).parts[:-1] if part != "/"]
    for count in range(1, len(above) + 1):
        yield "/".join([*above[-count:], name])
    if not path and model.get("revision") not in (None, "", "main"):
        yield f"{name}@{str(model['revision'])[:12]}"
    yield f"{name}@{re.split('[:@]', key)[-1][:8]}"
    yield f"{name}@{key}"


class ModelNames:
    """Chooses names for the models of a sweep: unlike each other's, and unlike those the storage has already.

    Args:
        cards: the models of the plan.
        index: the records of the storage.
    """

    def __init__(self, cards: Iterable[ModelCard], index: Mapping[str, RecordHead]) -> None:
        """Look up what the storage has of these names: one record of each folder named like one of them."""
        cards = list({card.key: card for card in cards}.values())
        self._names: dict[str, str] = {}
        for model in _recorded({card.name for card in cards}, index):
            self._names.setdefault(str(model["key"]), str(model["name"]))
        own = display_names(_as_model(card) for card in cards)
        for card in cards:
            self._choose(card, own[card.key])

    def named(self, card: ModelCard) -> ModelCard:
        """Return a card under the name that was chosen for it."""
        if card.key not in self._names:
            self._choose(card, card.name)
        return replace(card, name=self._names[card.key])

    def _choose(self, card: ModelCard, wanted: str) -> None:
        taken = {name for key, name in self._names.items() if key != card.key}
        forms = [wanted, *_longer(_as_model(card))]
        self._names.setdefault(card.key, next(form for form in forms if form not in taken))


def moved_branches(cards: Iterable[ModelCard], index: Mapping[str, RecordHead]) -> list[str]:
    """Return a line for each hub model whose branch stands elsewhere than when the storage's records were made."""
    lines: dict[str, None] = {}
    hub = {card.key: card for card in cards if card.is_hub and card.commit}
    for model in _recorded({card.name for card in hub.values()}, index) if hub else ():
        source, _, commit = str(model.get("key")).rpartition("@")
        for card in hub.values():
            if card.source == source and card.revision == model.get("revision") and commit != card.commit:
                known = commit != card.revision
                before = commit[:12] if known else "a commit that is not recorded"
                earlier = f" (for the earlier one: --set revision={commit})" if known else ""
                lines[
                    f"{card.name}: {card.revision!r} of {source} moved since it was recorded here, from {before} to "
                    f"{card.commit[:12]}: what is planned is another model{earlier}"
                ] = None
    return list(lines)


def _as_model(card: ModelCard) -> Model:
    return {**asdict(card), "path": "" if card.is_hub else card.source}


def _recorded(names: set[str], index: Mapping[str, RecordHead]) -> Iterator[Model]:
    """Yield the models of records in folders that bear one of some names, one record a folder."""
    ends = tuple(as_folder(name) for name in names)
    seen: set[tuple[str, str]] = set()
    for head in index.values():
        found = re.search(r"(?:^|/)lm_([^/]+)/", head.folder)
        if not found or (head.sweep, found[1]) in seen:
            continue
        if any(found[1].split("@")[0].endswith(end) or found[1].endswith(end) for end in ends):
            seen.add((head.sweep, found[1]))
            yield head.record()["model"]
