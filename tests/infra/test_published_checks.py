"""Checks that others publish: shellcheck for the scripts, the Compose specification for the MLflow server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml


def _shellcheck(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "shellcheck"), "--external-sources", *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_shellcheck_has_nothing_to_say(root: Path, infra: Path) -> None:
    scripts = [*sorted(infra.rglob("*.sh")), root / ".ci" / "run"]
    assert len(scripts) >= 5
    done = _shellcheck(*scripts)
    assert done.returncode == 0, done.stdout


def test_shellcheck_would_say_something(tmp_path: Path) -> None:
    (tmp_path / "wrong.sh").write_text("#!/usr/bin/env bash\nrm $1\n")
    assert "SC2086" in _shellcheck(tmp_path / "wrong.sh").stdout


def _compose(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_compose_file_follows_the_specification(infra: Path) -> None:
    done = _compose(infra / "mlflow" / "compose.yaml")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("field", ["imge", "port"])
def test_a_misspelt_field_of_a_service_is_refused(infra: Path, tmp_path: Path, field: str) -> None:
    wrong = yaml.safe_load((infra / "mlflow" / "compose.yaml").read_text())
    next(iter(wrong["services"].values()))[field] = "x"
    (tmp_path / "compose.yaml").write_text(yaml.safe_dump(wrong))
    assert _compose(tmp_path / "compose.yaml").returncode != 0
