"""Lists of fields, derived from their declarations, and stand-ins for specs that have some of their fields only."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Collection, Sequence
from functools import cache
from operator import attrgetter
from typing import cast

from trainables.adapters.registry import ADAPTERS
from trainables.trial.fields import InReport, Part, Role
from trainables.trial.making import twin
from trainables.trial.spec import FIELDS, TrialSpec


@cache
def fields_of(parts: Part) -> tuple[str, ...]:
    """Return the fields on which any of these parts of a trial depends."""
    return tuple(name for name, field in FIELDS.items() if field.parts & parts)


def fields_in_role(role: Role) -> tuple[str, ...]:
    """Return the fields that have this role, alone or beside another."""
    return tuple(name for name, field in FIELDS.items() if field.role & role)


def fields_in_report(use: InReport) -> tuple[str, ...]:
    """Return the identity fields that the report uses like this."""
    return tuple(name for name in IDENTITY_FIELDS if FIELDS[name].report is use)


@cache
def pack_fields(method: str, draws: bool) -> tuple[str, ...]:
    """Return what the members of a pack have in common.

    Args:
        method: of all of them.
        draws: whether the seed decides what they are trained on (`draws_texts`).
    """
    free = [name for name in ADAPTERS[method].unequal if not (name == "seed" and draws)]
    return tuple(name for name in FIELDS if not may_differ(name, free))


def may_differ(name: str, free: Collection[str]) -> bool:
    """Say whether members of a pack may differ in a field, given those that their adapter leaves free."""
    return FIELDS[name].may_differ and (name in free or not FIELDS[name].by_adapter)


IDENTITY_FIELDS: tuple[str, ...] = fields_in_role(Role.TRAINING | Role.PROBE)
REPEATED: tuple[str, ...] = tuple(name for name, field in FIELDS.items() if field.report is InReport.SEED)
"""Fields whose values repeat a trial: means are taken over them."""
COST_FIELDS = tuple(name for name, field in FIELDS.items() if field.costs)
"""On what the estimated cost of a trial depends."""


def only(names: Sequence[str]) -> Callable[[TrialSpec], TrialSpec]:
    """Return a function that gives a spec's stand-in, which has these fields (two or more) and no others.

    What is made of a stand-in cannot depend on a field that is not among them: to read one is an AttributeError.
    Stand-ins are equal, and hash alike, where these fields are: they are the keys of what is made of them.
    """
    stand_in = namedtuple("stand_in", names)  # type: ignore[misc]
    values_of = attrgetter(*names)
    make = stand_in._make

    def narrow(spec: TrialSpec) -> TrialSpec:
        return cast(TrialSpec, make(values_of(spec)))

    return narrow


def with_only(names: Sequence[str], spec: TrialSpec) -> TrialSpec:
    """Return the spec with all other fields at their defaults; the rules between fields are not checked."""
    return twin(spec, {name: field.default for name, field in FIELDS.items() if name not in names})
