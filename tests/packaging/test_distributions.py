"""The sdist and the wheel: what they hold, and that the installed command works from an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sweep", "trainables", "search_spaces")
NO_SOURCE = shutil.ignore_patterns(
    ".git", ".venv*", "outputs", "build", "dist", "mlruns", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)


def _run(*command: object, cwd: Path) -> str:
    """Run a command that sees nothing of this checkout, and return what it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it, without a download."""
    source, out = (tmp_path_factory.mktemp("build") / name for name in ("source", "dist"))
    shutil.copytree(ROOT, source, ignore=NO_SOURCE)
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=source.parent)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> set[str]:
    """The wheel's files, without its metadata."""
    (path,) = dist.glob("*.whl")
    return {name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def sdist(dist: Path) -> set[str]:
    """The sdist's files, without its leading folder."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames() if "/" in name}


def _source(*tops: str, ending: str = "") -> set[str]:
    """Return the files of the checkout below some folders."""
    found = (path for top in tops for path in (ROOT / top).rglob(f"*{ending}") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if "__pycache__" not in path.parts}


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: set[str]) -> None:
    assert wheel == _source(*PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= wheel


def test_the_sdist_holds_all_that_is_needed_to_test_and_document(sdist: set[str]) -> None:
    assert _source(*PACKAGES, "tests", "docs", "benchmarks", "infra", ".ci") <= sdist
    assert {
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
        ".pre-commit-config.yaml",
    } <= sdist
    assert not [name for name in sdist if "__pycache__" in name or name.endswith(".pyc")]


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts' folder of an environment with the wheel; other packages come from the environment of this test."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (wheel,) = dist.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", home / "bin" / "python")
    _run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    # a .pth file: the folder's own .pth files, an editable install of this checkout among them, are not followed
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_installed_command_plans_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = _run(installed / "python", "-c", "import search_spaces.sample as s; print(s.__file__)", cwd=tmp_path)
    space = Path(where.strip())
    assert space.is_relative_to(installed.parent)
    told = json.loads(_run(installed / "memory-sweep", "run", space, "--plan", "--json", cwd=tmp_path))
    assert told["trials_to_run"] > 0
    assert told == json.loads(_run(installed / "python", "-m", "sweep.plan", space, "--json", cwd=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_tells_its_version(installed: Path, dist: Path, tmp_path: Path) -> None:
    (path,) = dist.glob("*.whl")
    version = _run(installed / "memory-sweep", "--version", cwd=tmp_path).split()[-1]
    assert path.name.startswith(f"memory_sweep-{version}-")
