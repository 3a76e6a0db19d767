"""What `--thorough` leaves out without it, and marks that would leave out more than they may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = """
import pytest

def test_cheap(): pass

@pytest.mark.thorough(beside="test_cheap")
def test_long(): pass

@pytest.mark.thorough(only=("b",))
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_only(name): pass

@pytest.mark.thorough(but=("a-2", "b"))
@pytest.mark.parametrize("number", ["1", "2"])
@pytest.mark.parametrize("name", ["a", "b"])
def test_but(name, number): pass
"""


def collected(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_some.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), "-p", "tests.tiers"]
    command += ["-q", "--collect-only", "-p", "no:cacheprovider", *options, "test_some.py"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def names(done: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(line.partition("::")[2] for line in done.stdout.splitlines() if "::" in line)


def test_what_has_a_cheaper_test_beside_it_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    stay = ["test_but[a-2]", "test_but[b-1]", "test_but[b-2]", "test_cheap", "test_only[a]", "test_only[c]"]
    assert names(collected(tmp_path, TESTS)) == stay
    left_out = ["test_but[a-1]", "test_long", "test_only[b]"]
    assert names(collected(tmp_path, TESTS, "--thorough")) == sorted([*stay, *left_out])
    assert names(collected(tmp_path, TESTS, "--only-thorough")) == left_out


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ('beside="test_none"', "is not there"),
        ('beside="test_long"', "is left out too (thorough)"),
        ('beside="tests/test_tiers.py::test_none"', "is not there"),
        ('but=("z",)', "leaves out all of its parameters"),
    ],
)
def test_a_mark_that_leaves_nothing_in_its_place_is_refused(tmp_path: Path, mark: str, told: str) -> None:
    more = f'\n@pytest.mark.thorough({mark})\n@pytest.mark.parametrize("name", ["a"])\ndef test_more(name): pass\n'
    done = collected(tmp_path, TESTS + more)
    assert done.returncode and "test_more" in done.stderr and told in done.stderr, done.stdout + done.stderr


def test_files_that_take_longest_are_there_and_begin_first() -> None:
    from tests.tiers import LONG_FIRST, place_of

    assert [file for file in LONG_FIRST if not (ROOT / file).is_file()] == []
    places = [place_of(file) for file in (*(ROOT / file for file in LONG_FIRST), Path(__file__), Path("/elsewhere.py"))]
    assert places == [*range(len(LONG_FIRST)), len(LONG_FIRST), len(LONG_FIRST)]
