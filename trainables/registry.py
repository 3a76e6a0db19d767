"""Names of what can be plugged in, each with the class that describes it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar

from trainables.errors import ConfigError, nearest

P = TypeVar("P", bound="PluginPlan")


@dataclass(frozen=True, kw_only=True)
class PluginPlan:
    """What one adapter or probe is set to, in a trial.

    The fields of a subclass are those fields of a trial that it uses, by the same names: which ones an adapter or a
    probe has a use for is read off here. A plan's module imports neither torch nor transformers, because planning
    thousands of trials reads plans; what computes is loaded by the plan when a worker asks for it.
    """

    name: ClassVar[str]

    @classmethod
    @cache
    def uses(cls) -> tuple[str, ...]:
        """Return the names of the trial's fields that matter to it."""
        return tuple(f.name for f in fields(cls))

    @classmethod
    def from_fields(cls: type[P], values: Mapping[str, Any]) -> P:
        """Take the fields it uses out of all those of a trial (`vars(spec)`)."""
        return cls(**{name: values[name] for name in cls.uses()})


class Registry(Collection[str], Generic[P]):
    """Plan classes by name, in the order in which they were added.

    Args:
        what: the field that names them, for messages.
        plans: those that are there from the start.
    """

    def __init__(self, what: str, *plans: type[P]) -> None:
        """Start with the built-in ones."""
        self._what = what
        self._plans: dict[str, type[P]] = {}
        for plan in plans:
            self.add(plan)

    def add(self, plan: type[P]) -> None:
        """Make a plan known under its name; the same class may be added again.

        Raises:
            ConfigError: another class has the name.
        """
        if self._plans.setdefault(plan.name, plan) is not plan:
            raise ConfigError(f"{self._what}={plan.name!r}: there is one of this name already; choose another")

    def __getitem__(self, name: str) -> type[P]:
        """Return the plan class of a name.

        Raises:
            ConfigError: no such name; tells the nearest.
        """
        if name not in self._plans:
            known = ", ".join(self._plans)
            raise ConfigError(f"{self._what}={name!r}: must be one of {known}{nearest(name, self._plans)}")
        return self._plans[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether a name is known."""
        return name in self._plans

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._plans)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._plans)
