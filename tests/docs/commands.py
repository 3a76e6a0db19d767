"""The commands that the pages tell people to type, and what a test may do with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from sweep.main import app

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "command_line.md"
"""Made of the commands' own help."""


def pages() -> list[Path]:
    """Return the pages that people read."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page.name != GENERATED]


def commands(page: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the commands of a page: the number of the line, and the words after `memory-sweep`."""
    lines = page.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        found = re.match(r"(?: {4,}|)(?:memory-sweep |python -m sweep\.)(\S.*)$", line)
        is_code = line.startswith("    ") or (number > 1 and lines[number - 2].startswith("```"))
        if not found or not is_code:
            continue
        text = found[1]
        for more in lines[number:]:
            if not text.endswith("\\"):
                break
            text = f"{text[:-1]} {more.strip()}"
        yield number, shlex.split(text, comments=True)


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse a command as the command line does; nothing runs.

    Returns:
        Its name and the values of its parameters.

    Raises:
        click.ClickException: it does not parse.
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context("memory-sweep", list(words), resilient_parsing=False)
    names = []
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        names.append(name)
        context = command.make_context(name, rest, parent=context)
    return " ".join(names), dict(context.params)
