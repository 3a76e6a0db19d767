"""Under which entry sets a memory without structure has its leakage measured: those it will stand beside.

Such a memory is one trial for many structured ones, and leakage depends on groups, granularity, hash functions and
seed of the set. So it is told the sets of its whole space, also those of stages that this run leaves out or has not
opened yet. It is no part of the trial's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from sweep.planning.stages import ResolvedSpace, ResolvedStage
from sweep.space import OneOf
from trainables.adapters.memory.setting import ALLOCATIONS, SetSetting
from trainables.trial.making import twin
from trainables.trial.spec import FIELDS, TrialSpec

_FIELDS = (
    "num_documents",
    "method",
    "allocation",
    "granularity",
    "num_clusters",
    "grouping",
    "entries_per_group",
    "mem_seed",
)


def compared_sets(space: ResolvedSpace) -> Mapping[int, tuple[str, ...]]:
    """Return the names of a space's entry sets by number of documents, those measured anyhow left out.

    A field that is sampled from a range has no values to know beforehand; its middle stands for it.
    """
    found: dict[int, dict[str, None]] = {}
    for stage in space.stages:
        options = [_options(stage, name) for name in _FIELDS]
        for combination in product(*options):
            values = dict(zip(_FIELDS, combination, strict=True))
            if values["method"] == "memory" and values["allocation"] != "none":
                name = SetSetting.of(values).name
                if name not in ALLOCATIONS:
                    found.setdefault(values["num_documents"], {})[name] = None
    return {documents: tuple(sorted(names)) for documents, names in found.items()}


def told_sets(spec: TrialSpec, sets: Mapping[int, tuple[str, ...]]) -> TrialSpec:
    """Return a canonical trial with the sets that it is to be measured under; itself where it has a set of its own."""
    if spec.method != "memory" or spec.allocation != "none":
        return spec
    names = {*spec.leakage_sets, *sets.get(spec.num_documents, ())}
    return twin(spec, {"leakage_sets": tuple(sorted(names))})


def _options(stage: ResolvedStage, name: str) -> tuple[Any, ...]:
    """Return the values that a field can have in a stage."""
    if stage.take and stage.source and stage.take.field == name:
        return stage.source.axes[name]
    spread = stage.sampling.fields.get(name) if stage.sampling else None
    if isinstance(spread, OneOf):
        return tuple(FIELDS[name].check(value) for value in spread.values)
    axes = stage.typical_axes
    if stage.start and name not in stage.stated and name in stage.start.axes:
        return stage.start.axes[name]
    return axes[name] if name in axes else (stage.base.get(name, FIELDS[name].default),)
