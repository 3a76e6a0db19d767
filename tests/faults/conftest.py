"""The matrix of faults: every test here breaks something in real processes and adds a row to a table.

    make test-faults

A row is a test that takes the fixture `row`, calls it with the fault and how often it was made to happen, and asserts
what must hold after it. The table is printed at the end, with the outcome and the seconds of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.sweeps import Sweep, write_space


@dataclass
class Row:
    """A line of the table."""

    fault: str
    times: int
    outcome: str = "not shown"
    seconds: float = 0.0


ROWS: list[Row] = []


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Iterator[Callable[..., Row]]:
    """Return a function that opens the row of this test; `outcome` is what the test has shown when it passes."""
    opened: list[Row] = []

    def open_row(fault: str, times: int, outcome: str) -> Row:
        opened.append(Row(fault, times, outcome))
        return opened[-1]

    start = time.monotonic()
    yield open_row
    failed = getattr(request.node, "failed_call", True)
    for found in opened or [Row(request.node.name, 0)]:
        found.seconds = time.monotonic() - start
        if failed:
            found.outcome = "FAILED"
        ROWS.append(found)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield
    if report.when == "call":
        item.failed_call = report.failed or report.skipped
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not ROWS:
        return
    width = max(len(row.fault) for row in ROWS)
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':{width}}  times  seconds  outcome")
    for row in ROWS:
        terminalreporter.write_line(f"{row.fault:{width}}  {row.times:5}  {row.seconds:7.0f}  {row.outcome}")


@pytest.fixture
def sweep(tmp_path: Path, tiny_models: dict[str, Path], sample_data: Path) -> Sweep:
    """A small sweep of eight trials of a tiny model, in a folder of its own; nothing has run yet."""
    write_space(tmp_path / "small.py", tiny_models["llama"], sample_data)
    return Sweep(tmp_path)
