"""Each `python -m sweep...` that infra/ or the README shows or runs is one that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from sweep.main import app

COMMAND = re.compile(r"python -m (sweep\.\w+)([^\n`']*)")
ROOT = Path(__file__).resolve().parents[2]


FILES = sorted(path for path in (ROOT / "infra").rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for part in value.values() for text in _strings(part))
    elif isinstance(value, list):
        yield from (text for part in value for text in _strings(part))


def _commands() -> list[Any]:
    found = []
    for path in [ROOT / "README.md", *FILES]:
        texts = [path.read_text().replace("\\\n", " ")]
        if path.suffix == ".yaml":
            texts = [text for document in yaml.safe_load_all(texts[0]) for text in _strings(document)]
        for text in texts:
            found += [
                pytest.param(
                    module,
                    shlex.split(rest.partition(" && ")[0].partition(" # ")[0]),
                    id=f"{path.relative_to(ROOT)}-{i}",
                )
                for i, (module, rest) in enumerate(COMMAND.findall(text))
                if rest.strip()
            ]
    return found


@pytest.mark.parametrize(("module", "args"), _commands())
def test_the_program_takes_it(module: str, args: list[str]) -> None:
    command = typer.main.get_command(app).get_command(None, module.removeprefix("sweep."))
    args = ["search_spaces/inductive.py" if arg == "$@" else arg for arg in args]
    context = command.make_context(module, args)
    space = context.params.get("space", "")
    named = ROOT / "search_spaces" / f"{space}.py"  # a space that ships is called by its name
    assert not space or (ROOT / space.removeprefix("/opt/memory-sweep/")).is_file() or named.is_file()


def test_the_commands_are_found() -> None:
    names = {param.id.rpartition("-")[0] for param in _commands()}
    assert {
        "README.md",
        "infra/kubernetes/rayjob.yaml",
        "infra/slurm/one_node.sh",
        "infra/slurm/many_nodes.sh",
    } <= names


def test_the_readme_names_every_file(infra: Path) -> None:
    readme = (infra / "README.md").read_text()
    assert not [path.name for path in FILES if path.name not in readme and path.suffix not in (".md", ".dockerignore")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_starts_ray_says_how_it_authenticates(path: Path) -> None:
    text = path.read_text()
    if re.search(r"ray (start|symmetric-run|job submit)|kind: RayJob", text) and path.suffix != ".py":
        assert "RAY_AUTH_MODE" in text or "env.sh" in text
