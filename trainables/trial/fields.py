"""How the fields of a trial are declared, coerced and checked: type, range, choices, kind."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from trainables.errors import ConfigError, nearest


def identity_field(
    default: Any,
    doc: str,
    *,
    choices: Collection[Any] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    packs: bool = False,
) -> Any:
    """Declare a field that changes the result; members of one pack may differ where `packs`."""
    rule = {"choices": choices, "low": low, "high": high, "above": above}
    return field(default=default, metadata={"kind": "identity", "doc": doc, "packs": packs, **rule})


def other_field(kind: str, default: Any, doc: str, *, choices: Collection[Any] = (), low: float | None = None) -> Any:
    """Declare a field that changes no result: `resource` or `label`."""
    rule = {"choices": choices, "low": low, "high": None, "above": None}
    return field(default=default, metadata={"kind": kind, "doc": doc, "packs": True, **rule})


@dataclass(frozen=True)
class Rule:
    """Type, range and choices of one field."""

    name: str
    base: type
    optional: bool
    default: Any
    item: type | None
    meta: Mapping[str, Any]

    def check(self, value: Any) -> Any:
        """Return the value in its declared type.

        Raises:
            ConfigError: wrong type, range or choice.
        """
        if value is None or value == "none" and self.optional:
            if self.optional:
                return None
            raise ConfigError(f"{self.name}=None: a value is needed")
        value = self._coerce(value)
        meta = self.meta
        if meta["choices"] and value not in meta["choices"]:
            raise ConfigError(
                f"{self.name}={value!r}: must be one of {', '.join(map(str, meta['choices']))}"
                f"{nearest(str(value), map(str, meta['choices']))}"
            )
        broken = [
            f"{text} {bound}"
            for bound, text, fails in (
                (meta["low"], "at least", operator.lt),
                (meta["high"], "at most", operator.gt),
                (meta["above"], "above", operator.le),
            )
            if bound is not None and fails(value, bound)
        ]
        if broken:
            raise ConfigError(f"{self.name}={value!r}: must be {broken[0]}")
        return value

    def _coerce(self, value: Any) -> Any:
        try:
            if self.base is tuple:
                parts = value.split("+") if isinstance(value, str) else value
                parts = [parts] if isinstance(parts, int) else parts
                assert self.item is not None
                return tuple(sorted({self.item(part) for part in parts if part != ""}))
            if self.base is bool:
                known = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
                return known[str(value).lower()]
            if isinstance(value, bool):
                raise ValueError
            if self.base is int:
                number = float(value)
                if not number.is_integer():
                    raise ValueError
                return int(value) if isinstance(value, int) else int(number)
            if self.base is float:
                number = float(value)
                if not math.isfinite(number):
                    raise ValueError
                return float(f"{number:.12g}") + 0.0
            if self.base is str and not isinstance(value, str):
                raise ValueError
            return value
        except (ValueError, TypeError, KeyError, OverflowError):
            wanted = f"{self.item.__name__}s joined by +" if self.item else self.base.__name__
            raise ConfigError(f"{self.name}={value!r}: must be of type {wanted}") from None


def rules_of(declared: type[Any]) -> dict[str, Rule]:
    """Read the rules off a dataclass whose fields are declared as above."""
    types: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "tuple": tuple}
    rules = {}
    for f in fields(declared):
        text = str(f.type)
        base = types[text.split(" | ")[0].split("[")[0]]
        item = types[text[6 : text.index(",")]] if base is tuple else None
        assert f.default is not MISSING
        rules[f.name] = Rule(f.name, base, "None" in text, f.default, item, f.metadata)
    return rules
