"""Search-space files that cannot be used are refused with one line that names file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.planning.load import load_space
from trainables.errors import ConfigError

STAGE = 'Stage(name="s", axes={})'
HEAD = "from sweep.space import Space, Stage\n"


def test_a_space_is_loaded_by_path_with_its_values_typed(tmp_path: Path) -> None:
    file = tmp_path / "my space.py"
    file.write_text(f'{HEAD}space = Space(name="a", title="", axes={{"alpha": [1]}}, stages=({STAGE},))')
    assert load_space(file).axes["alpha"] == (1.0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = [", r"bad.py:1: '\[' was never closed"),
        ("x = 1\ny = x.foo\n", "bad.py:2: AttributeError"),
        ("import no_such_module", "bad.py:1: ModuleNotFoundError"),
        ("x = 1", "has no `space`"),
        ("space = 3", "has no `space`"),
        (f'{HEAD}space = Space(name="a", title="", axes={{}}, stages=())', "bad.py: a: the space has no stages"),
        (f'{HEAD}space = Space(name="a", title="", axes={{"alhpa": [1]}}, stages=({STAGE},))', "did you mean 'alpha'"),
        (f'{HEAD}space = Space(name="a", titel="", axes={{}}, stages=({STAGE},))', "bad.py:2: TypeError"),
    ],
)
def test_a_file_that_is_no_space_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_space(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)


def test_a_missing_file_gets_a_hint(tmp_path: Path) -> None:
    (tmp_path / "inductive.py").write_text("")
    with pytest.raises(ConfigError, match=r"no such file; .*did you mean '.*inductive.py'"):
        load_space(tmp_path / "inductve.py")
    with pytest.raises(ConfigError, match="a folder, not a file"):
        load_space(tmp_path)
