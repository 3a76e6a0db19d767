"""`memory-sweep doctor`: what is there, and what is to be mended."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sweep import doctor


def told(tmp_path: Path, *words: str, code: int = 0) -> dict[str, list[str]]:
    """Return its lines by the name of the check."""
    done = CliRunner().invoke(doctor.app, ["--storage", str(tmp_path / "out"), *words])
    assert done.exit_code == code, done.output
    found: dict[str, list[str]] = {}
    for line in done.output.splitlines():
        found.setdefault(line[6:14].strip(), []).append(line[:4].strip() + " " + line[16:])
    return found


def test_all_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    found = told(tmp_path, "--data", "sample", "--model", "sample-neox")
    assert not [line for lines in found.values() for line in lines if line.startswith("mend")]
    assert found["data"] == ["ok sample: sample@v1"] and "8 blocks" in found["models"][0]
    assert "not there yet" in found["storage"][0] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "check", "said"),
    [
        (["--tracking-uri", "http://127.0.0.1:9"], "mlflow", "does not answer"),
        (["--tracking-uri", "foo://bar"], "mlflow", "MLflow has no store for foo"),
        (["--data", "fevr"], "data", "no such folder"),
        (["--model", "/nowhere/model"], "models", "no such folder"),
        (["--address", "127.0.0.1:9"], "ray", "nothing answers there"),
    ],
)
def test_what_is_wrong_is_one_line_beside_the_rest(tmp_path: Path, words: list[str], check: str, said: str) -> None:
    found = told(tmp_path, *words, code=1)
    (line,) = found[check]
    assert line.startswith("mend") and said in line
    assert len(found) >= 9, "the other checks went on"


def test_versions_are_held_against_the_declared_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch>=99", "no-such-package>=1", "rich>=1", "never; extra == 'dev'"]
    monkeypatch.setattr(metadata, "requires", lambda name: wanted)
    lines = told(tmp_path, code=1)["packages"]
    assert any("torch" in line and "out of range" in line for line in lines)
    assert any("no-such-package is not installed" in line for line in lines)
    assert lines[-1].startswith("ok 1 of")


def test_a_full_or_read_only_place_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full: Any = type("usage", (), {"free": 1e6})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: full)
    assert "make room" in told(tmp_path, code=1)["cache"][0]
    monkeypatch.setattr(doctor.os, "access", lambda place, mode: False)
    found = told(tmp_path, code=1)
    assert "cannot be written" in found["storage"][0] and found["cache"][0].startswith("note")


def test_no_password_is_shown(tmp_path: Path) -> None:
    found = told(tmp_path, "--tracking-uri", "http://me:secret@127.0.0.1:9", code=1)
    assert "secret" not in str(found)
