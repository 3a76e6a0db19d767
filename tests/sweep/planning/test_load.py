"""Search-space files that cannot be used are refused with one line that names file and line."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.planning.load import asked_space, load_space, shipped_spaces
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
        ("raise SystemExit('enough')", "bad.py:1: SystemExit: enough"),
        ("raise ValueError('two\\nlines')", "bad.py:1: ValueError: two lines"),
        (
            f'{HEAD}space = Space(name="a", title="", axes={{}}, stages=({STAGE}))',
            r"stages is one Stage.* write stages=\(S",
        ),
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


SPACE = f'space = Space(name=NAME, title="", axes={{"alpha": [0, 1]}}, fixed={{"layer": 3}}, stages=({STAGE},))\n'


def test_a_module_beside_the_file_is_imported_from_any_working_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):  # each has a helper, a package and a lazy import of its own under the same names
        folder = tmp_path / name
        (folder / "parts").mkdir(parents=True)
        (folder / "parts" / "deep.py").write_text(f"DEEP = {name!r}\n")
        (folder / "helper.py").write_text("from parts.deep import DEEP\nNAME = DEEP\n")
        (folder / "space.py").write_text(
            f"{HEAD}def late():\n    import helper\n    return helper.NAME\n\nNAME = late()\n{SPACE}"
        )
    before = list(sys.path)
    assert [load_space(tmp_path / name / "space.py").name for name in ("one", "two", "one")] == ["one", "two", "one"]
    assert sys.path == before


def test_a_module_that_is_imported_already_stays_the_same(tmp_path: Path) -> None:
    import sweep.space

    (tmp_path / "sweep").mkdir()
    (tmp_path / "json.py").write_text("raise RuntimeError('not this one')\n")
    (tmp_path / "space.py").write_text(f"import json\n{HEAD}NAME = 'a'\n{SPACE}")
    known = sys.modules["sweep"], sys.modules["json"]
    assert load_space(tmp_path / "space.py").name == "a"
    assert (sys.modules["sweep"], sys.modules["json"]) == known and sys.modules["sweep.space"] is sweep.space


def test_dataclasses_and_pickle_work_in_a_space_file(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(
        "from __future__ import annotations\nimport pickle\nfrom dataclasses import dataclass, field, KW_ONLY\n"
        f"{HEAD}@dataclass\nclass Mine:\n    _: KW_ONLY\n    values: list[float] = field(default_factory=list)\n\n"
        "NAME = type(pickle.loads(pickle.dumps(Mine(values=[1.0])))).__name__\n"
        f"{SPACE}KEPT = Mine(values=[2.0])\n"
    )
    assert load_space(tmp_path / "space.py").name == "Mine"
    (module,) = [m for name, m in sys.modules.items() if name.startswith("search_space_space_") and hasattr(m, "KEPT")]
    assert pickle.loads(pickle.dumps(module.KEPT)) == module.KEPT


def test_what_runs_only_as_a_program_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(
        f"{HEAD}NAME = 'a'\n{SPACE}if __name__ == '__main__':\n    raise SystemExit(3)\n"
    )
    assert load_space(tmp_path / "space.py").name == "a"


def test_what_a_space_file_prints_does_not_spoil_the_json(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(
        f"import os, subprocess, sys\n{HEAD}print('by print')\nsys.__stdout__.write('by the stream')\n"
        "subprocess.run([sys.executable, '-c', 'print(\"by a process\")'])\nos.write(1, b'by the system')\n"
        f"NAME = 'noisy'\n{SPACE}"
    )
    done = subprocess.run(
        [sys.executable, "-m", "sweep.plan", "space.py", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert json.loads(done.stdout)["name"] == "noisy"
    for said in ("by print", "by the stream", "by a process", "by the system"):
        assert said in done.stderr


def test_shipped_spaces_run_by_name_from_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inductive").mkdir()  # a folder of that name, as a storage might have, is no obstacle
    assert load_space("inductive").name == "inductive" and set(shipped_spaces()) >= {"sample", "inductive"}
    with pytest.raises(ConfigError, match=r"no such file, and none of the shipped spaces .*did you mean 'inductive'"):
        load_space("inductve")
    (tmp_path / "layers").write_text("")
    with pytest.raises(ConfigError, match=r"not a Python file"):
        load_space("layers")


def test_a_space_as_asked_for(tmp_path: Path) -> None:
    whole = load_space("inductive")
    found = asked_space(whole, settings=["alpha=0.5"], seed=3, data=["sample"], select_by="fever/accuracy")
    assert found.axes["alpha"] == (0.5,) and found.fixed["seed"] == 3 and found.fixed["data"] == "sample"
    assert {stage.take.by for stage in found.stages if stage.take} == {"fever/accuracy"}
    assert asked_space("inductive", small=True).name == "inductive-small"
