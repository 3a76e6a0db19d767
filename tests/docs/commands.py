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


NEED_MORE = {
    "ui": "it serves until it is ended",
    "data": "it asks the network",
    "doctor": "what it finds is the machine's matter",
    "ctl": "it would leave the sweep paused for the next command",
    "compare": "it takes two sweeps",
}
"""Commands that their own tests run, and why not the test of the pages."""


def on_the_small_sweep(words: list[str]) -> list[str] | None:
    """Return a page's command for the sweep that the tutorial makes, `sample-small`; None where it needs more.

    A run is one of the sample world in its small form, or is planned only; models of the study and clusters are not
    here (`asked_space` reads these commands' spaces and settings all the same).
    """
    if words[0] in NEED_MORE or "--address" in words:
        return None
    if words[0] == "run":
        return words if "--small" in words else None
    if "--name" in words:
        words = words[: words.index("--name")]
    found = [re.sub(r"^outputs(/\w+)?$", "outputs/sample-small", word) for word in words if word != "--watch"]
    return [*found, "--executor", "local"] if words[0] == "evaluate" and "--executor" not in words else found
