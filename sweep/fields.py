"""`python -m sweep.fields`: every field of a trial, as it may stand in a search space or in `--set`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import Flag
from typing import Annotated, Any

import typer

from trainables.trial.fields import SpecField
from trainables.trial.spec import FIELDS

LEGEND = """
training: another value gives other trained weights (or another model, where nothing is trained)
probe:    another value asks a model something else
resource: how it is computed, not what;   label: a name for people; neither changes a trial's id
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    as_json: Annotated[bool, typer.Option("--json", help="a JSON list, with parts, cost and pack")] = False,
) -> None:
    """List every field: type, default, allowed values, role and meaning."""
    typer.echo(json.dumps([field_json(field) for field in FIELDS.values()], indent=2) if as_json else fields_text())


def field_json(field: SpecField) -> dict[str, Any]:
    """Return a field as plain data.

    Returns:
        `name`, `type`, `default`, `choices`, `low`, `high`, `above` (bounds, None for none), `role` and `parts` (lists
        of words), `costs`, `may_differ_in_a_pack`, `report` and `meaning`.
    """
    return {
        "name": field.name,
        "type": field.type_name,
        "default": list(field.default) if isinstance(field.default, tuple) else field.default,
        "choices": list(field.choices),
        "low": field.low,
        "high": field.high,
        "above": field.above,
        "role": _words(field.role),
        "parts": _words(field.parts),
        "costs": field.costs,
        "may_differ_in_a_pack": field.may_differ,
        "report": field.report.value,
        "meaning": field.meaning,
    }


def fields_text() -> str:
    """Return the table for people."""
    rows = [("field", "type", "default", "allowed", "role", "meaning")]
    for field in FIELDS.values():
        allowed = ", ".join(map(str, field.choices)) or field.bounds
        role = ", ".join(_words(field.role))
        rows.append((field.name, field.type_name, _spelled(field.default), allowed, role, field.meaning))
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n" + LEGEND.rstrip()


def _words(flags: Flag) -> list[str]:
    members: Iterable[Flag] = type(flags)
    return [str(member.name).lower() for member in members if member in flags]


def _spelled(value: Any) -> str:
    """Spell a value as `--set` takes it."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "+".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    app()
