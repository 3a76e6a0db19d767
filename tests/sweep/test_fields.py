"""The list of fields that `python -m sweep.fields` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sweep import fields
from trainables.trial.making import coerce
from trainables.trial.spec import FIELDS


def shown(*args: str) -> str:
    done = CliRunner().invoke(fields.app, list(args))
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_field_is_listed_with_what_it_is() -> None:
    lines = shown().splitlines()
    for field, line in zip(FIELDS.values(), lines[1:], strict=False):
        assert line.split()[0] == field.name and line.endswith(field.meaning) and field.type_name in line
        assert all(str(choice) in line for choice in field.choices)
    bounds = {line.split()[0]: line for line in lines if line}
    assert "above 0, at most 1" in bounds["depth"] and "at least 0, at most 5" in bounds["num_shots"]
    assert "training, probe" in bounds["seed"] and "resource" in bounds["keep_memory"] and "label" in bounds["stage"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_is_spelled_as_it_may_be_set(name: str) -> None:
    lines = {line.split()[0]: line for line in shown().splitlines() if line}
    type_name, default = FIELDS[name].type_name, FIELDS[name].default
    spelled = lines[name][lines[name].index(type_name) + len(type_name) :].split("  ")
    word = "" if default in ((), "") else next(word.strip() for word in spelled if word.strip())
    assert coerce(name, word) == default


def test_the_same_as_json() -> None:
    found = json.loads(shown("--json"))
    assert [each["name"] for each in found] == list(FIELDS)
    by_name = {each["name"]: each for each in found}
    assert by_name["num_shots"] == {
        "name": "num_shots", "type": "int", "default": 1, "choices": [], "low": 0, "high": 5, "above": None,
        "role": ["training", "probe"], "parts": ["templates", "fever", "questions"], "costs": True,
        "may_differ_in_a_pack": False, "report": "label", "meaning": "few-shot examples in a prompt",
    }  # fmt: skip
    assert by_name["probes"]["default"] == ["fever"] and by_name["lr"]["above"] == 0


def test_the_page_in_the_docs_is_of_today() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()
    # in a process of its own: other tests make adapters and probes of theirs known
    done = subprocess.run([sys.executable, "-m", "sweep.fields"], capture_output=True, text=True, check=True)
    assert done.stdout in page, "write it anew: python -m sweep.fields"


def test_nothing_heavy_is_imported_for_it() -> None:
    script = "import sys, sweep.fields; print(sorted({'torch', 'ray', 'mlflow', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
