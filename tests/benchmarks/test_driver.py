"""The driver's measures at tiny size; trials that do nothing leave a record each."""

from __future__ import annotations

import os

import pytest

from benchmarks.driver import lines, measure, noop, space_of
from sweep.planning.expand import build_plan


@pytest.mark.thorough(beside="test_the_large_space_has_no_equivalent_points")
def test_the_measures_that_need_no_ray_run_at_tiny_size(capsys):
    before = os.environ.get("MLFLOW_TRACKING_URI")
    table = measure(trials=0, records=30, points=400, plain_records=2)
    assert os.environ.get("MLFLOW_TRACKING_URI") == before, "other code would fill the rival's database"
    assert table["fluent"]["records"] == 2 and "ours" not in table
    assert all(table[part]["cpu_seconds"] > 0 for part in ("plan", "results", "publish", "publish_again", "report"))
    text = "\n".join(lines(table))
    assert "plan of 400 points" in text and "x ours a record" in text


def test_the_large_space_has_no_equivalent_points():
    plan = build_plan(space_of(1000), (), {})
    assert plan.grid_points == len(plan.grid) == 1000


@pytest.mark.slow
def test_trials_that_do_nothing_leave_a_record_each(tmp_path):
    found = noop("ours", 4, "off", tmp_path / "ours")
    assert found["ms_per_trial"] > 0 and found["peak_bytes"] > 1e8
    assert noop("plain", 2, "off", tmp_path / "plain")["trials"] == 2
