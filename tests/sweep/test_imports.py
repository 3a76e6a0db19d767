"""What the driver imports: torch and transformers take seconds, and only workers and checks of models need them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "datasets", "mlflow", "ray", "pandas", "scipy", "statsmodels", "matplotlib", "optuna"}
HEAVY |= {"sklearn"}
ROOT = Path(__file__).parents[2]


def imported_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh process has after some code."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import sweep.main", set()),
        ("import sweep.run, sweep.publish, sweep.report", set()),
        ("import sweep.running.ray_tune, trainables.pack.trainable", {"ray", "pandas"}),
        (  # what a task has to import that prepares a piece of a corpus
            "import trainables.pack.ray_data_map, trainables.lm.token_tables\n"
            "import trainables.adapters.memory.near, trainables.adapters.memory.simset",
            {"ray"},
        ),
        (  # what every worker that asks FEVER computes
            "from trainables.probes.fever.metrics import fever_metrics\n"
            "from trainables.probes.fever.questions import FeverAnswer\n"
            "fever_metrics([FeverAnswer('1', 'Tetris', 'SUPPORTS', 1, '', 'a')])",
            {"torch", "transformers", "scipy"},
        ),
        (
            "from sweep.run import app; from typer.testing import CliRunner\n"
            "assert CliRunner().invoke(app, ['sample', '--plan', '--storage', '/none/at/all']).exit_code == 0",
            set(),
        ),
    ],
)
def test_what_a_part_of_the_driver_imports(code: str, needed: set[str]) -> None:
    assert imported_by(code) <= needed


@pytest.mark.thorough(beside="test_what_a_part_of_the_driver_imports")
def test_a_run_with_nothing_to_do_imports_neither_mlflow_nor_what_makes_a_report(
    tmp_path: Path, untaught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(untaught))
    call = f"['sample', '--small', '--executor', 'local', '--stage', 'layer_selection', '--storage', '{tmp_path}']"
    code = (
        "from sweep.run import app; from typer.testing import CliRunner\n"
        f"done = CliRunner().invoke(app, {call})\n"
        "assert done.exit_code == 0 and 'report.html' in done.output, done.output\n"
    )
    assert "mlflow" in imported_by(code)
    assert imported_by(f"{code}assert 'nothing to run' in done.output") == set()


def test_what_a_worker_tells_needs_no_torch_to_be_read() -> None:
    from trainables.pack.worker import library_versions

    assert {type(version) for version in library_versions().values()} == {str}
