"""A table of faults: tests that take the fixture `row` say what they break, and a table of them is printed at the end.

    make test-faults

runs all of them; those that are not `slow` are among the default tests, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

MARK = "faults"
Row = dict[str, Any]
OpenRow = Callable[..., Row]


@pytest.fixture
def row(request: pytest.FixtureRequest) -> OpenRow:
    """Return a function that writes this test's row: the fault, how often it is made to happen, what holds after it.

    The outcome counts only when the test passes. What the function returns may be changed until the test ends.
    """

    def open_row(fault: str, times: int, outcome: str) -> Row:
        opened = {"fault": fault, "times": times, "outcome": outcome}
        request.node.user_properties.append((MARK, opened))
        return opened

    return open_row


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "row" in getattr(item, "fixturenames", ()):
            item.add_marker(MARK)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    seconds: dict[str, float] = defaultdict(float)
    ended: dict[str, pytest.TestReport] = {}
    for outcome, reports in terminalreporter.stats.items():
        for report in reports if outcome in ("", "passed", "failed", "skipped", "error") else ():
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid] += report.duration
                if report.when == "call" or report.outcome != "passed":
                    ended[report.nodeid] = report
    rows = [(row, report) for report in ended.values() for name, row in report.user_properties if name == MARK]
    if not rows:
        return
    width = max(len(row["fault"]) for row, _ in rows)
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':{width}}  times  seconds  outcome")
    for row, report in rows:
        told = row["outcome"] if report.passed else report.outcome.upper()
        terminalreporter.write_line(f"{row['fault']:{width}}  {row['times']:5}  {seconds[report.nodeid]:7.1f}  {told}")
