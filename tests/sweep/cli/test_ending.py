"""How the process of a command ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "call",
    [
        "from sweep.run import app; call = ['sample', '--plan', '--storage', '/none/at/all']",
        "from sweep.evaluate import app; call = ['/none/at/all', '--probe', 'recall', '--plan']",
        "from sweep.publish import app; call = ['/none/at/all/x']",
        "from sweep.report.__main__ import app; call = ['/none/at/all/x']",
    ],
)
def test_a_command_searches_for_no_garbage_when_it_ends(call: str) -> None:
    """What is frozen is left out of each search; what was registered first is called last."""
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count()))\n"
        f"from typer.testing import CliRunner; {call}\nCliRunner().invoke(app, call)\n"
        "print(gc.get_freeze_count())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout.split()
    left, frozen = map(int, told)
    assert left < 1000 < 10_000 < frozen
