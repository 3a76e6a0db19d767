"""What a shell offers after TAB, asked as bash asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.cli import completion
from sweep.main import COMMANDS
from trainables.trial.spec import FIELDS

ROOT = Path(__file__).resolve().parents[2]


def offered(line: str, shell: str = "bash") -> list[str]:
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    env = {**os.environ, "PYTHONPATH": str(ROOT), **asked, "_MEMORY_SWEEP_COMPLETE": f"complete_{shell}"}
    code = "import sys; sys.argv = ['memory-sweep']; from sweep.main import app; app(prog_name='memory-sweep')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return [word for word in done.stdout.split() if word]


def test_commands_are_offered() -> None:
    assert offered("memory-sweep ") == list(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("memory-sweep st", ["status"]),
        ("memory-sweep run induc", ["inductive"]),
        ("memory-sweep run inductive --exec", ["--executor"]),
        (
            "memory-sweep run inductive --set allocation=sim",
            ["allocation=simset1", "allocation=simset2", "allocation=simset3"],
        ),
        ("memory-sweep ctl outputs fin", ["finish-early"]),
        ("memory-sweep evaluate outputs --probe rec", ["recall"]),
    ],
)
def test_what_fits_is_offered(line: str, expected: list[str]) -> None:
    assert offered(line) == expected


def test_fields_and_their_values() -> None:
    assert completion.settings("alp") == ["alpha="]
    assert completion.settings("mode=") == [f"mode={value}" for value in FIELDS["mode"].choices]
    assert (
        completion.settings("nothing=") == []
        and "sample" in completion.spaces("")
        and completion.probes("fe") == ["fever"]
    )
