"""How a field of a trial is declared, once, and how its values are coerced and checked.

Every list of fields in the project is derived from what the declarations say: role, parts, cost, pack, report.

The rules for values are our own rather than pydantic's: the spellings taken for one value (`10`, `10.0`, `"10"`;
`5+10`; `none`; a number rounded to 12 digits) decide which trials have the same id, and messages are one line with
the nearest known name, so each of pydantic's checks would be replaced or reworded; what is left is type, bounds and
choices, in the few lines of `SpecField.check`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum, Flag, auto
from types import NoneType
from typing import Any, get_args, get_type_hints

from trainables.errors import ConfigError, nearest


class Role(Flag):
    """What a field means for a trial's identity; one of the first two or both, or one of the others alone.

    TRAINING: another value gives other trained weights, or another model where nothing is trained.
    PROBE: another value asks a model something else: other prompts, or other documents whose memorisation error is
    measured, or at other epochs.
    RESOURCE: how and where it is computed, not what.
    LABEL: a name for people.
    """

    TRAINING = auto()
    PROBE = auto()
    RESOURCE = auto()
    LABEL = auto()


class Part(Flag):
    """What a trial is made of. A field names each part that reads it; what is built on that part changes along.

    Parts after PAGES and before MEMORY are made of the pages chosen.

    MODEL: the frozen model's weights.
    CORPUS: pages and claims as they are read from the data.
    PAGES: which pages of the corpus.
    SEGMENTS: the pages' texts, cut; trained on, and the memorisation error is measured on them.
    TEMPLATES: training claims rendered as prompts with their answers; trained on.
    FEVER: the claims asked, as prompts.
    COUNTERFACT: the prompts whose answers are sampled.
    QUESTIONS: what the other probes ask.
    MEMORY: the memory module and its place.
    ENTRY_SETS: which entries a document may use, and how strongly it is held to them.
    SCHEDULE: how and on what is trained, and when is evaluated.
    """

    MODEL = auto()
    CORPUS = auto()
    PAGES = auto()
    SEGMENTS = auto()
    TEMPLATES = auto()
    FEVER = auto()
    COUNTERFACT = auto()
    QUESTIONS = auto()
    MEMORY = auto()
    ENTRY_SETS = auto()
    SCHEDULE = auto()


NO_PART = Part(0)


class InReport(Enum):
    """What the report does with trials that differ in a field."""

    LABEL = "label"
    """Tell them apart by its values."""
    SEED = "seed"
    """Take them for repetitions: mean and standard deviation."""
    HIDDEN = "hidden"
    """Not mention it."""


@dataclass(frozen=True, kw_only=True)
class SpecField:
    """One field as it is declared.

    Attributes:
        meaning: one line for people.
        role: see `Role`.
        parts: the parts of a trial that read it.
        costs: whether the estimated cost depends on it.
        may_differ: whether members of one pack may have different values.
        by_adapter: whether that holds only where the adapter's plan names the field among its `unequal` ones.
        report: see `InReport`.
        choices: the values there are; empty for any.
        low, high: bounds, inclusive; None for none.
        above: exclusive lower bound.
        name, base, item, optional, default: from the class in which it is declared; `item` is the type of a tuple's
            items, `optional` allows None.
    """

    meaning: str
    role: Role
    parts: Part = NO_PART
    costs: bool = False
    may_differ: bool = False
    by_adapter: bool = False
    report: InReport = InReport.LABEL
    choices: Collection[Any] = ()
    low: float | None = None
    high: float | None = None
    above: float | None = None
    name: str = ""
    base: type = str
    item: type | None = None
    optional: bool = False
    default: Any = None

    @property
    def type_name(self) -> str:
        """Its type for people: `int`, `float or none`, `ints joined by +`."""
        text = self.base.__name__
        if self.item:
            text = "names joined by +" if self.item is str else f"{self.item.__name__}s joined by +"
        return f"{text} or none" if self.optional else text

    @property
    def bounds(self) -> str:
        """Its bounds for people, such as `at least 0, at most 5`; empty without any."""
        return ", ".join(f"{text} {bound:g}" for text, bound, _ in self._bounds())

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
        if self.choices:
            for each in value if self.base is tuple else (value,):
                self._check_choice(each)
        for text, bound, is_broken in self._bounds():
            if is_broken(value, bound):
                raise ConfigError(f"{self.name}={value!r}: must be {text} {bound}")
        return value

    def _bounds(self) -> list[tuple[str, float, Any]]:
        stated = (
            ("at least", self.low, operator.lt),
            ("above", self.above, operator.le),
            ("at most", self.high, operator.gt),
        )
        return [(text, bound, is_broken) for text, bound, is_broken in stated if bound is not None]

    def _check_choice(self, value: Any) -> None:
        if value not in self.choices:
            known = list(map(str, self.choices))
            raise ConfigError(f"{self.name}={value!r}: must be one of {', '.join(known)}{nearest(str(value), known)}")

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
            if self.base in (int, float) and _is_not_finite(value):
                raise ConfigError(f"{self.name}={value}: must be a finite number") from None
            raise ConfigError(f"{self.name}={value!r}: must be of type {self.type_name}") from None


def _is_not_finite(value: Any) -> bool:
    try:
        return not math.isfinite(float(value))
    except OverflowError:
        return True
    except (ValueError, TypeError):
        return False


def declare(default: Any, meaning: str, role: Role, parts: Part = NO_PART, **more: Any) -> Any:
    """Declare a field of a dataclass; `more` are further attributes of `SpecField`."""
    return field(default=default, metadata={"declared": SpecField(meaning=meaning, role=role, parts=parts, **more)})


def declared_fields(owner: type[Any]) -> Mapping[str, SpecField]:
    """Return the fields that a dataclass declares, by name, in order."""
    hints = get_type_hints(owner)
    found = {}
    for each in fields(owner):
        assert each.default is not MISSING
        hint, arguments = hints[each.name], get_args(hints[each.name])
        optional = NoneType in arguments
        base, item = (arguments[0] if optional else hint), None
        if getattr(base, "__origin__", None) is tuple:
            base, item = tuple, arguments[0]
        found[each.name] = replace(
            each.metadata["declared"], name=each.name, base=base, item=item, optional=optional, default=each.default
        )
    return found
