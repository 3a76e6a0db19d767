"""Making specs from values by name, and from each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainables.errors import ConfigError, nearest
from trainables.trial.spec import FIELDS, TrialSpec

OTHER_NAMES: Mapping[str, str] = {
    "hook_layer": "layer",
    "selected_docs": "num_documents",
    "lm_size": "model (an alias such as llama2-7b, a hub id or a folder)",
    "lm": "model",
    "memory_allocation": "allocation",
    "simset": "allocation (simset1, simset2 or simset3, by the length of shingles)",
    "clusters": "num_clusters",
    "memory_seed": "mem_seed",
    "shots": "num_shots",
    "learning_rate": "lr",
    "num_epochs": "epochs",
}
"""Names of fields in the study's notes, in MLflow and in other programs, where the nearest name would mislead."""


def _check_names(names: Mapping[str, Any]) -> None:
    """Refuse unknown field names.

    Raises:
        ConfigError: names the first unknown field and the nearest known one.
    """
    for name in names:
        if name not in FIELDS:
            raise ConfigError(f"{name}: {unknown_field(name)}")


def unknown_field(name: str) -> str:
    """Say that there is no such field, and which one is meant: by the study's name for it, or the nearest."""
    plain = name.strip().lower().replace("-", "_")
    if plain in OTHER_NAMES:
        return f"unknown field; the field is {OTHER_NAMES[plain]}"
    return f"unknown field{nearest(name, FIELDS)}"


def make_spec(values: Mapping[str, Any]) -> TrialSpec:
    """Build a spec from a mapping, refusing unknown names.

    Raises:
        ConfigError: an unknown field or a bad value.
    """
    _check_names(values)
    return TrialSpec(**values)


def vary(spec: TrialSpec, values: Mapping[str, Any]) -> TrialSpec:
    """Return the spec with other values, which `coerce` has seen: only the rules between fields are checked.

    Several times faster than `dataclasses.replace`, for spaces of many points.

    Raises:
        ConfigError: a value at odds with another field.
    """
    varied = twin(spec, values)
    varied.check_together()
    return varied


def twin(spec: TrialSpec, changes: Mapping[str, Any]) -> TrialSpec:
    """Return the spec with other values, unchecked."""
    twin = object.__new__(TrialSpec)
    vars(twin).update(vars(spec), **changes)
    return twin


def coerce(name: str, value: Any) -> Any:
    """Return one field's value in its declared type.

    Raises:
        ConfigError: unknown field, wrong type, range or choice.
    """
    _check_names({name: value})
    return FIELDS[name].check(value)
