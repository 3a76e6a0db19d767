"""`python -m sweep.compare`: two sweeps in pairs, on made-up storages."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sweep.compare import app
from tests.sweep.report.conftest import FakeStorage


def run(*arguments: object):
    return CliRunner().invoke(app, [*map(str, arguments), "--resamples", "200"])


@pytest.fixture
def fake(tmp_path):
    return FakeStorage(tmp_path / "outputs")


def add(fake, sweep, layer, accuracy, **fields):
    fields = {"num_documents": 20, "metrics": {"memory/nll": 2.0 - accuracy}, **fields}
    return fake.add(sweep, "all", layer=layer, accuracy=accuracy, **fields)


def test_settings_are_paired_but_for_the_field_in_which_the_sweeps_differ(fake):
    for layer in range(7):
        add(fake, "short", layer, 0.3, epochs=5)
        add(fake, "long", layer, 0.8, epochs=25)
    add(fake, "long", 7, 0.8, epochs=25)
    fake.write_plans()
    told = json.loads(run(fake.root / "short", fake.root / "long", "--json").output)
    assert told["differ"] == {"epochs": [5, 25]} and (told["pairs"], told["only_a"], told["only_b"]) == (7, 0, 1)
    overall = {row["metric"]: row for row in told["overall"]}
    assert overall["memory/nll"]["difference"] == pytest.approx(-0.5) and overall["memory/nll"]["result"] == "better"
    accuracy = overall["fever/accuracy"]
    assert accuracy["low"] - 1e-9 <= accuracy["difference"] <= accuracy["high"] + 1e-9 and accuracy["difference"] > 0.3
    assert {row["result"] for row in told["each"]} == {"better"} and len(told["each"]) == 7
    assert max(row["p"] for row in told["each"]) <= min(row["p_holm"] for row in told["each"]) < 0.05
    for row in told["each"]:
        assert row["difference"] == pytest.approx(row["accuracy_b"] - row["accuracy_a"])
    back = json.loads(run("long", "short", "--storage", fake.root, "--json").output)
    assert {row["result"] for row in back["each"]} == {"worse"} and back["differ"] == {"epochs": [25, 5]}


@pytest.mark.thorough(beside="test_settings_are_paired_but_for_the_field_in_which_the_sweeps_differ")
def test_the_same_trials_in_two_storages_are_told_apart(fake, tmp_path):
    again = FakeStorage(tmp_path / "again")
    ids = [add(fake, "s", layer, 0.3) for layer in range(3)]
    assert ids == [add(again, "s", layer, 0.9) for layer in range(3)]
    fake.write_plans()
    again.write_plans()
    told = json.loads(run(fake.root / "s", again.root / "s", "--json").output)
    assert told["differ"] == {} and {row["result"] for row in told["each"]} == {"better"}
    assert len(told["each"]) == 3 and all(row["trial_a"] == row["trial_b"] for row in told["each"])
    assert {row["result"] for row in told["overall"]} == {"no difference found"}, "three pairs are too few"


def test_the_terminal_says_what_differs_and_nothing_is_squeezed_out_at_80_columns(fake, tmp_path):
    for layer in range(3):
        add(fake, "short", layer, 0.3, epochs=5)
        add(fake, "long", layer, 0.8, epochs=25)
    fake.write_plans()
    page = tmp_path / "page.html"
    output = run(fake.root / "short", fake.root, "--html", page).output
    assert output.startswith(f"error: {fake.root}: holds several sweeps")
    output = run(fake.root / "short", fake.root / "long", "--html", page).output
    assert (
        "They differ in epochs: 5 in A, 25 in B." in output and "B is better in 3 and worse in 0 of 3 pairs." in output
    )
    rows = [line for line in output.splitlines() if line.endswith("better") and "[+0." in line]
    assert len(rows) == 3 and all(len(line) <= 80 for line in rows)
    assert page.read_text().startswith("<!doctype html>") and "FEVER accuracy, pair by pair" in page.read_text()


def test_what_cannot_be_compared_is_one_line(fake, tmp_path):
    add(fake, "a", 1, 0.5)
    add(fake, "a", 2, 0.5)
    add(fake, "b", 3, 0.5)
    add(fake, "b", 4, 0.5)
    fake.add("c", "all", layer=1, write=False)
    fake.write_plans()
    for other, told in (
        ("b", "share no setting: layer is 1, 2 in the one and 3, 4 in the other"),
        ("c", "no finished"),
    ):
        result = run(fake.root / "a", fake.root / other)
        assert result.exit_code == 2 and told in result.output and len(result.output.strip().splitlines()) == 1
    missing = run(fake.root / "a", fake.root / "a", "--html", tmp_path / "no" / "page.html")
    assert missing.exit_code == 2 and "cannot be written" in missing.output
