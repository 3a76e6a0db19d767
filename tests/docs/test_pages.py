"""The pages of docs/: what is made from the code is up to date, links lead somewhere, commands are commands."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml

from sweep.main import COMMANDS
from sweep.planning.load import asked_space
from sweep.planning.plan_of import plan_sweep
from tests.docs.commands import ROOT, commands, on_the_small_sweep, pages, parsed

DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["metrics.md", "record.md"])
def test_the_reference_says_what_the_code_says(name: str) -> None:
    made = script("make_reference").PAGES[name]()
    assert (DOCS / "reference" / name).read_text() == made.rstrip() + "\n", "python docs/make_reference.py"


def test_the_reference_has_every_command_and_option() -> None:
    """How help is laid out is the library's matter, and differs between its versions."""
    page = (DOCS / "reference" / "command_line.md").read_text()
    root: Any = typer.main.get_command(__import__("sweep.main", fromlist=["app"]).app)
    for name in COMMANDS:
        command = root.get_command(None, name)
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for each in [command, *getattr(command, "commands", {}).values()]:
            missing = [o for p in each.params for o in p.opts if o.startswith("--") and o not in section]
            assert not missing, f"{name}: python docs/make_reference.py"


def test_the_drawing_is_the_scripts() -> None:
    assert (DOCS / "terms.svg").read_text() == script("draw_terms").drawing(), "python docs/draw_terms.py"


def test_every_page_is_in_the_site_and_every_link_leads_somewhere() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = set(re.findall(r"[\w/]+\.md", json.dumps(site["nav"])))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert listed == there
    for page in pages():
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page}: {target}"


ALL = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}:{number}") for page in pages() for number, words in commands(page)
]


def test_commands_are_found() -> None:
    assert len(ALL) > 40


@pytest.mark.parametrize("words", ALL)
def test_a_command_parses_and_names_what_there_is(words: list[str]) -> None:
    name, given = parsed(words)
    if name not in ("run", "plan") or not (given["space"].startswith("search_spaces/") or "/" not in given["space"]):
        return
    if given["space"].endswith(".py") and not (ROOT / given["space"]).exists():
        return  # the reader's own
    space = str(ROOT / given["space"]) if "/" in given["space"] else given["space"]
    settings = [text for text in given["settings"] or () if not re.search(r"[A-Z]{4,}$", text)]  # FOLDER
    found = asked_space(space, settings=settings, small=given.get("small", False), select_by=given["select_by"])
    if found.fixed.get("data") == "sample" and given["small"]:
        assert plan_sweep(found, storage="/nowhere/at/all").plan.num_left > 0


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    pages_made = list((tmp_path / "site").rglob("*.html"))
    elsewhere = {
        link
        for page in pages_made
        for link in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text())
        if 'rel="canonical"' not in link
    }
    assert len(pages_made) > 20 and not elsewhere, "a page is read without a network"


def in_folder(folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a reader does who has this version installed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "MPLBACKEND": "agg"}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tutorial's commands have been run, one after the other."""
    folder = tmp_path_factory.mktemp("tutorial")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    for _, words in commands(DOCS / "tutorial.md"):
        if words[0] == "ui":
            continue  # it serves until it is ended; its own tests run it
        words = ["run", "mine.py", "--plan"] if words[:2] == ["run", "mine.py"] else words
        done = subprocess.run(
            [sys.executable, "-m", "sweep.main", *words],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return folder


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorials_commands_run(worked: Path) -> None:
    made = worked / "outputs" / "sample-small"
    assert (made / "report" / "report.html").exists() and (made / "results.parquet").exists()
    assert (worked / "mine.py").exists() and list(made.rglob("probes/*/answers.parquet"))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_other_pages_commands_run_on_the_tutorials_sweep(worked: Path, tmp_path: Path) -> None:
    shutil.copytree(worked / "outputs", tmp_path / "outputs")
    others = [words for page in pages() if page.name != "tutorial.md" for _, words in commands(page)]
    here = {tuple(found) for words in others if (found := on_the_small_sweep(words))}
    assert {words[0] for words in here} == {"run", "report", "publish", "export", "evaluate", "status", "new"}
    for words in sorted(here):
        done = in_folder(tmp_path, [sys.executable, "-m", "sweep.main", *words])
        assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_own_documents_and_questions_run_as_the_page_has_them(tmp_path: Path) -> None:
    block = re.search(r"^    mkdir ship\n(?:    .*\n)+", (DOCS / "own_data.md").read_text(), flags=re.M)
    assert block
    (tmp_path / "search_spaces").symlink_to(ROOT / "search_spaces")
    (tmp_path / "try.sh").write_text(textwrap.dedent(block[0]))
    done = in_folder(tmp_path, ["bash", "-e", "try.sh"])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (tmp_path / "outputs/own_data/report/report.html").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_notebook_runs_from_top_to_bottom(worked: Path, tmp_path: Path) -> None:
    shutil.copytree(worked / "outputs", tmp_path / "outputs")
    cells = json.loads((DOCS / "notebook.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "notebook.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = re.findall(r"NLL ([\d.]+) without the memory, ([\d.]+) with it", done.stdout)[0]
    assert float(after) < float(before)
    own, others = (re.findall(rf"{name}: NLL ([\d.]+)", done.stdout)[0] for name in ("own entries", "another page's"))
    assert float(own) < float(others), "a hard memory under its document's entries"
