"""The console command: its table of commands, what it imports, and a mistyped command."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from sweep.main import COMMANDS, app
from sweep.tracking.address import EXPERIMENT

HEAVY = ("torch", "ray", "mlflow", "transformers", "pandas", "pyarrow")


def test_the_list_of_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sweep.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"heavy = {set(HEAVY)!r} & set(sys.modules)\nassert not heavy, heavy\n"
        "assert not [name for name in sys.modules if name.startswith(('sweep.run', 'sweep.report', 'sweep.publish'))]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name}  " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_its_modules_own(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    command = typer.main.get_command(app).get_command(None, name)
    assert f" {name} " in done.output.splitlines()[0]
    options = [option for parameter in command.params for option in parameter.opts if option.startswith("--")]
    told = [*options, *getattr(command, "commands", ())]
    assert told and all(each in done.output for each in told)


@pytest.mark.parametrize("name", ["run", "publish", "ui", "report"])
def test_the_help_names_the_experiment_that_is_the_default(name: str) -> None:
    told = " ".join(CliRunner().invoke(app, [name, "--help"]).output.split())
    assert f"default MLFLOW_EXPERIMENT_NAME, else {EXPERIMENT}" in told


def test_a_mistyped_command_is_one_line() -> None:
    done = CliRunner().invoke(app, ["pubish", "outputs"])
    told = f"error: no command 'pubish', did you mean 'publish'?; there are {', '.join(COMMANDS)}\n"
    assert (done.exit_code, done.stderr) == (2, told)


def test_the_exit_status_of_a_command_is_the_programs(tmp_path) -> None:
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "none.py")])
    assert done.exit_code == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
