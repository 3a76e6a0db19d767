"""Run names that tell the trials of one sweep apart where a table or a legend cuts them off.

A name states the fields in which the sweep's trials differ, those that split them most first, and leaves out what is
the same for all: `a2 simset1 n12 L7 neox`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from sweep.records.record import Record
from sweep.records.starts import START
from trainables.adapters.registry import ADAPTERS
from trainables.trial.fields import Part
from trainables.trial.spec import FIELDS

WIDTH = 18
"""Characters of a name that MLflow's tables and legends show at their default width (3.17, counted on the screen)."""
_FIELDS = (
    "alpha", "allocation", "num_documents", "layer", "model", "content", "start_from", "num_clusters", "memory_dim",
    "num_shots",
    "rank", "lora_alpha", "lora_targets", "virtual_tokens", "template_layer", "activation", "negatives",
    "guidance_target", "guidance_alpha", "key_dim", "epochs", "lr", "weight_decay", "entries_per_group",
    "grouping", "norm_and_gate", "memory_precision", "batch_size", "dtype", "data", "seed", "mem_seed",
)  # fmt: skip
_LETTERS = {
    "num_documents": "n", "layer": "L", "num_clusters": "g", "memory_dim": "m", "num_shots": "k", "epochs": "e",
    "lr": "lr", "weight_decay": "wd", "entries_per_group": "h", "batch_size": "b", "seed": "s", "mem_seed": "ms",
    "rank": "r", "lora_alpha": "la", "virtual_tokens": "v", "template_layer": "TL",
    "guidance_target": "t", "guidance_alpha": "ga", "key_dim": "d",
}  # fmt: skip
_MOST_PERMUTED = 5
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Naming:
    """How the trials of a sweep are named.

    Attributes:
        fields: what a name states, in this order.
        models: the short form of each model.
        brief: 1 cuts allocations and round numbers short, 2 models as well.
    """

    fields: tuple[str, ...] = ("alpha", "allocation", "num_documents", "layer", "model")
    models: tuple[tuple[str, str], ...] = ()
    brief: int = 0

    @classmethod
    def of(cls, trials: Iterable[Values]) -> Naming:
        """Choose the naming under which most of some trials have different beginnings.

        Args:
            trials: the fields of each trial, `model` by its short name; where fewer than two differ, the default
                is returned.
        """
        every = list(trials)
        shown = {name: [_stated(name, values) for values in every] for name in _FIELDS}
        methods = [str(values.get("method")) for values in every]
        varied = [name for name in _FIELDS if _varies(shown[name], methods)]
        if not varied:
            return cls()
        models = tuple(_short_models({str(values["model"]) for values in every}).items())
        order = _most_telling_first(varied, shown)
        first, rest = order[:_MOST_PERMUTED], order[_MOST_PERMUTED:]
        points = list({tuple(shown[name][i] for name in order): values for i, values in enumerate(every)}.values())
        best, most = cls(), 0
        for brief in (0, 1, 2):
            words = {name: [cls((), models, brief)._word(name, values) for values in points] for name in order}
            for chosen in permutations(first):
                naming = cls((*chosen, *rest), models, brief)
                columns = zip(*(words[name] for name in naming.fields), strict=True)
                apart = len({" ".join(filter(None, row))[:WIDTH] for row in columns})
                if apart > most:
                    best, most = naming, apart
                if most == len(points):
                    return best
        return best

    def of_values(self, values: Values) -> str:
        """Return the name of a trial with these fields."""
        words = [self._word(name, values) for name in self.fields]
        return " ".join(filter(None, words)) or str(values.get("method") or "trial")

    def of_record(self, record: Record) -> str:
        """Return the name of a trial by its record."""
        return self.of_values(values_of(record))

    def _word(self, name: str, values: Values) -> str:
        text = _stated(name, values)
        if name == "model":
            return dict(self.models).get(text, text)[: 2 if self.brief > 1 else None]
        if self.brief and name == "num_documents" and values[name] % 1000 == 0:
            return f"n{values[name] // 1000}k"
        return _BRIEF.get(text, text) if self.brief else text


_BRIEF = {"partitioned": "part", "random": "rand", **{f"simset{k}": f"sim{k}" for k in (1, 2, 3)}}
_BRIEF |= {f"simset{k}-token": f"sim{k}t" for k in (1, 2, 3)}


def values_of(record: Record) -> dict[str, Any]:
    """Return a trial's fields by its record, model and data by the names that people gave them."""
    found = {**record["identity"], "model": record["model"]["name"], "data": record["data"]["given"]}
    if record.get("start"):
        found[START] = record["start"].get("stage")  # its id says nothing to people
    return found


def _stated(name: str, values: Values) -> str:
    """Print a field in as few characters as it takes; empty where it says nothing about this trial."""
    value, method = values.get(name), values.get("method")
    if name == "alpha":
        if method != "memory":
            return str(method)
        return "hard" if values.get("mode") == "hard" else f"a{value:g}"
    if value is None or (
        method == "pretrained" and name not in ("model", "num_documents", "num_shots", "data", "seed")
    ):
        return ""
    if name == "allocation":
        if value == "none" or method != "memory":
            return ""
        return f"{value}-token" if values.get("granularity") == "token" and value.startswith("simset") else str(value)
    if not _uses(method, name):
        return ""
    if name == START:
        return f"from-{value}"
    if name == "norm_and_gate":
        return "" if value else "no-norm"
    if name == "data":
        return os.path.basename(str(value).rstrip("/"))
    return f"{_LETTERS.get(name, '')}{value:g}" if isinstance(value, (int, float)) else str(value)


def _uses(method: Any, name: str) -> bool:
    """Tell whether a field that belongs to some methods belongs to this one; to one that is not known, it does."""
    owned = name in FIELDS and bool(FIELDS[name].parts & Part.MEMORY) and not FIELDS[name].parts & Part.SCHEDULE
    return not owned or method not in ADAPTERS or name in ADAPTERS[method].uses()


def _varies(shown: Sequence[str], methods: Sequence[str]) -> bool:
    """Say whether trials differ in a field that they have: within a method, or in values that several methods have."""
    by_method: dict[str, set[str]] = {}
    for text, method in zip(shown, methods, strict=True):
        by_method.setdefault(method, set()).add(text)
    return any(len(own) > 1 for own in by_method.values()) or len(set().union(*by_method.values()) - {""}) > 1


def _most_telling_first(varied: Sequence[str], shown: Mapping[str, Sequence[str]]) -> list[str]:
    """Order fields so that each next one splits best what the ones before it leave together (joint entropy)."""
    order: list[str] = []
    left = list(varied)
    while left:
        gains = {}
        for name in left:
            groups = Counter(zip(*(shown[each] for each in (*order, name)), strict=True))
            total = sum(groups.values())
            gains[name] = -sum(n / total * math.log2(n / total) for n in groups.values())
        chosen = max(left, key=lambda name: round(gains[name], 6))
        order.append(chosen)
        left.remove(chosen)
    return order


def _short_models(names: set[str]) -> dict[str, str]:
    """Leave out the beginning that all models share, up to a hyphen."""
    shared = os.path.commonprefix(sorted(names)) if len(names) > 1 else ""
    cut = shared.rfind("-") + 1
    return {name: name[cut:] for name in sorted(names)}
