"""docs/faults.md names tests and commands that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_that_the_promises_name_is_there() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"\btest_\w+\b(?!\.py)", page))
    there = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    assert named and not named - there, named - there
    assert not set(re.findall(r"\btest_\w+\.py", page)) - {file.name for file in files}
