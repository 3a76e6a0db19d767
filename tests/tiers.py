"""Which tests are left to `--thorough`: those that take long and have a cheaper one that would notice the same mistake.

    @pytest.mark.thorough(beside="test_another")      of the same file, or as "tests/FILE.py::test_another"
    @pytest.mark.thorough(only=("ray",))              with these parameters; with its others it is in the default set
    @pytest.mark.thorough(but=("memory", "lora"))     with all parameters but these

`make test` runs without them, `make test-thorough` (`--only-thorough`) runs them alone; CI runs both.

Also which files begin first.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONG_FIRST = (
    "tests/sweep/running/test_executors.py",
    "tests/sweep/test_run.py",
    "tests/search_spaces/test_small_runs.py",
    "tests/trainables/pack/test_fields.py",
    "tests/trainables/lm/test_families.py",
    "tests/sweep/test_asking.py",
    "tests/trainables/adapters/test_conformance.py",
    "tests/sweep/test_kept_files.py",
)
"""The files that take longest: of several processes none is left with one of them when the others are done.

With `--no-loadscope-reorder`: by itself pytest-xdist begins with the files of most tests, and ends with those of few
long ones.
"""
LEFT_OUT = {"thorough", "slow", "cluster", "gpu", "browser", "real_data"}


def pytest_addoption(parser: pytest.Parser) -> None:
    for option, word in (("--thorough", "also"), ("--only-thorough", "only")):
        told = f"{word} what takes long and has a cheaper test beside it"
        parser.addoption(option, action="store_const", dest="thorough", const=word, help=told)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(_means(item, mark) for mark in item.iter_markers("thorough"))]
    _check_some_stay(config, items, left_out)
    wanted, out = config.getoption("thorough"), set(left_out)
    if wanted != "also":
        deselected = [item for item in items if (item in out) != (wanted == "only")]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if (item in out) == (wanted == "only")]
    items.sort(key=lambda item: place_of(item.path))


def place_of(file: Path) -> int:
    """Return the place of a file in the order in which they begin; those that are not long share the last."""
    name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else ""
    return LONG_FIRST.index(name) if name in LONG_FIRST else len(LONG_FIRST)


def _means(item: pytest.Item, mark: pytest.Mark) -> bool:
    """Whether a mark leaves out this test with the parameters that it has."""
    if "beside" in mark.kwargs:
        _check_beside(item, mark.kwargs["beside"])
        return True
    called = getattr(item, "callspec", None)
    if called is None:
        return False
    values = {str(value) for value in called.params.values()} | {called.id, *called.id.split("-")}
    return bool(values & set(mark.kwargs["only"])) if "only" in mark.kwargs else not values & set(mark.kwargs["but"])


def _check_beside(item: pytest.Item, beside: str) -> None:
    """Refuse a mark whose cheaper test is not there, or is left out itself."""
    file, _, name = beside.rpartition("::")
    marks = _marks_of(ROOT / file if file else item.path).get(name)
    if marks is None or marks & LEFT_OUT:
        told = "is not there" if marks is None else f"is left out too ({', '.join(sorted(marks & LEFT_OUT))})"
        raise pytest.UsageError(f"{item.nodeid}: thorough(beside={beside!r}): {told}")


def _check_some_stay(config: pytest.Config, items: Iterable[pytest.Item], left_out: Iterable[pytest.Item]) -> None:
    """Refuse `only` and `but` that leave out all parameters of a test; of one that is called by name they may."""
    if any("[" in arg for arg in config.args):
        return
    out = set(left_out)
    stay = {_function(item) for item in items if item not in out}
    for item in out:
        whole = any("beside" in mark.kwargs for mark in item.iter_markers("thorough"))
        if not whole and _function(item) not in stay:
            raise pytest.UsageError(f"{_function(item)}: thorough(...) leaves out all of its parameters")


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@cache
def _marks_of(file: Path) -> dict[str, set[str]]:
    """Return the names of a file's tests, each with the marks that hold for all of its parameters."""
    if not file.is_file():
        return {}
    tests = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]
    return {
        test.name: {mark for decorator in test.decorator_list for mark in _whole_marks(decorator)} for test in tests
    }


def _whole_marks(decorator: ast.expr) -> list[str]:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    some = isinstance(decorator, ast.Call) and any(given.arg in ("only", "but") for given in decorator.keywords)
    is_mark = isinstance(called, ast.Attribute) and ast.unparse(called.value) == "pytest.mark"
    return [called.attr] if is_mark and not some else []
