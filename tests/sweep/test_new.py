"""`memory-sweep new`: a space to start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep import plan_sweep
from sweep.new import app


def test_what_is_written_is_a_space_that_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["mine"])
    assert made.exit_code == 0 and "--plan" in made.output
    plan = plan_sweep(tmp_path / "mine.py", tmp_path / "out", small=True).plan
    assert plan.space.name == "mine-small" and [stage.name for stage in plan.stages] == ["layers", "grid", "pretrained"]
    assert plan.num_to_run == 11


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("mine")
    again = CliRunner().invoke(app, ["mine"])
    assert again.exit_code == 2 and "is there already" in again.stderr
    assert (tmp_path / "mine.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["a/b", "..", "", "mlflow.db"])
def test_a_name_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, [name]).exit_code == 2 and not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["mine", "--to", str(tmp_path / "none")])
    assert done.exit_code == 2 and "cannot be written (No such file or directory)" in done.stderr
