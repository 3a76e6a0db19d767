"""Write the reference pages from the code: `python docs/make_reference.py`; a test says when one is out of date."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from sweep.main import COMMANDS
from sweep.planning.reported_metrics import MEMORISATION
from sweep.records import askings, record, record_shape, steering
from sweep.records.columns import METRICS
from trainables.adapters.registry import ADAPTERS
from trainables.probes.registry import PROBES
from trainables.registry import Registry

DOCS = Path(__file__).resolve().parent
MADE = "<!-- written by docs/make_reference.py from the code; change the code -->\n\n"


def _shipped(registry: Registry[Any]) -> list[str]:
    """Return what comes with this software, not what whoever runs this has registered besides."""
    return [name for name in registry if registry[name].__module__.startswith("trainables.")]


def metrics_page() -> str:
    """Return the page on every metric."""
    lines = [
        MADE + "# Metrics",
        "",
        "Names as in the results table, in MLflow and after `--select-by`. NLL is in nats a token.",
        "",
    ]
    measured = [(f"`{column.name}`", column.unit, column.meaning) for column in METRICS]
    lines += ["## Of training and memorising", "", *_table(("metric", "unit", "meaning"), measured), ""]
    lines += [
        f"{', '.join(f'`{name}`' for name in MEMORISATION)} are there for every trial that has an error to measure.",
        "",
    ]
    lines += ["## Of the adapters", "", "What each method (`method=`) reports besides.", ""]
    rows = [(f"`{name}`", _first_line(ADAPTERS[name])) for name in _shipped(ADAPTERS)]
    lines += [*_table(("method", "what it is"), rows), ""]
    for name in _shipped(PROBES):
        plan = PROBES[name]
        lines += [f"## `{name}`", "", _first_line(plan), ""]
        metrics = plan.metrics if isinstance(plan.metrics, Mapping) else {}  # those of lm_eval follow from its tasks
        rows = [(f"`{name}/{metric}`", f"{_bound(low)} to {_bound(high)}") for metric, (low, high) in metrics.items()]
        lines += (
            _table(("metric", "from … to"), rows) if rows else ["Its metrics are those of the tasks that it is given."]
        )
        lines += ["", "Columns of `answers.parquet`:", ""]
        lines += [*_table(("column", "type"), [(f"`{column}`", kind) for column, kind in plan.answers.items()]), ""]
    return "\n".join(lines)


def record_page() -> str:
    """Return the page on the record of a trial and the other files of a sweep."""
    lines = [MADE + "# Records and other files of a sweep", "", inspect.getdoc(record) or "", ""]
    lines += [
        f"Formats that are read: {', '.join(map(str, record.FORMATS))}; statuses: {', '.join(record.STATUSES)}.",
        "",
    ]
    lines += ["## Parts that every record has", ""]
    named = {**{name: "object" for name in record._OBJECTS}, **{name: "text" for name in record._TEXTS}}
    named |= {name: "object" for name in record._RESULT_PARTS}
    lines += [*_table(("part", "kind"), _code_rows(named)), "", "and, checked where they are:", ""]
    lines += [", ".join(f"`{name}`" for name in record_shape._CHECKS), ""]
    lines += ["## Trainings and askings", "", inspect.getdoc(askings) or "", ""]
    lines += ["## `steering.json`", "", inspect.getdoc(steering) or "", ""]
    wish = inspect.getdoc(steering.Wish) or ""
    lines += ["```text", wish, "```", ""]
    return "\n".join(lines)


def command_page() -> str:
    """Return the page on the command line."""
    lines = [MADE + "# The command line", "", "`memory-sweep COMMAND`, or `python -m sweep.COMMAND`.", ""]
    lines += [*_table(("command", "what it does"), [(f"[`{n}`](#{n})", told) for n, (_, told) in COMMANDS.items()]), ""]
    for name, (place, _) in COMMANDS.items():
        module, _, attribute = place.partition(":")
        app = getattr(importlib.import_module(module), attribute)
        lines += [f"## {name}", "", "```text", help_of(app, name), "```", ""]
    return "\n".join(lines)


def help_of(app: typer.Typer, name: str) -> str:
    """Return what `--help` prints, at 100 columns."""
    command = typer.main.get_command(app)
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    shown = [runner.invoke(app, ["--help"], prog_name=f"memory-sweep {name}").output]
    for sub in getattr(command, "commands", {}):
        shown.append(runner.invoke(app, [sub, "--help"], prog_name=f"memory-sweep {name}").output)
    return "\n".join(re.sub(r"[ \t]+$", "", text, flags=re.M).strip() for text in shown)


PAGES: dict[str, Callable[[], str]] = {
    "metrics.md": metrics_page,
    "record.md": record_page,
    "command_line.md": command_page,
}


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _bound(value: float) -> str:
    return "∞" if value == float("inf") else "-∞" if value == float("-inf") else f"{value:g}"


def _code_rows(values: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`", meaning) for name, meaning in values.items()]


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    head = tuple(head)
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def main() -> None:
    """Write all pages."""
    for name, made in PAGES.items():
        (DOCS / "reference" / name).write_text(made().rstrip() + "\n")


if __name__ == "__main__":
    main()
