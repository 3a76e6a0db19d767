"""Whole sweeps as commands: the plain program runs the same trials as ours, and stages cost less than the grid."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import whole
from benchmarks.common import NotTheSame, own_data
from benchmarks.plain import TrialTimes
from benchmarks.sweeps import SPACES, planned, run_command, set_arguments
from sweep.planning.expand import build_plan
from sweep.planning.load import load_space
from trainables.errors import ConfigError, DataError

ONE = TrialTimes(0, 1, 1, 1, [3.0, 2.0], 1.9, ["a", None], [0.5, 0.4])


def test_sweeps_are_compared_trial_by_trial():
    ours = {"t1": ONE, "t2": replace(ONE, letters=["b", "b"])}
    whole.check_sweeps(ours, dict(ours))
    with pytest.raises(NotTheSame, match="1 trials, 2 in ours"):
        whole.check_sweeps(ours, {"t1": ONE})
    with pytest.raises(NotTheSame, match="trial t2.*answers differ"):
        whole.check_sweeps(ours, {"t1": ONE, "t2": ONE})
    with pytest.raises(NotTheSame, match="trial t1.*leakage"):
        whole.check_sweeps(ours, {**ours, "t1": replace(ONE, leakage=[0.5, 0.3])})


def test_the_24_trials_share_a_model_and_a_layer():
    plan = build_plan(load_space(SPACES / "one_layer.py"))
    (stage,) = plan.stages
    assert len(stage.points) == 24 and len({point.pack_key for point in stage.points}) == 1


def test_the_full_grid_is_the_grid_that_the_staged_plan_is_measured_against(tmp_path):
    staged, grid = (planned(SPACES / name, {}, tmp_path) for name in ("staged.py", "full_grid.py"))
    assert grid["trials_to_run"] == staged["unique_points"] > staged["trials_to_run"]
    assert grid["estimate"]["staged_flops"] == pytest.approx(staged["estimate"]["full_grid_flops"])
    found = whole._on_paper(staged)
    assert found["staged_trials"] == staged["trials_to_run"] and found["flop_ratio"] > 2


def test_a_refused_command_says_why(tmp_path):
    arguments = [SPACES / "one_trial.py", *set_arguments({"mem_sed": [1, 2]}), "--plan"]
    with pytest.raises(ConfigError, match="mem_seed"):
        run_command("sweep.run", arguments, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_plain_ray_tune_gives_the_same_trials(tiny_models, sample_data):
    settings = {
        "model": str(tiny_models["gpt_neox"]),
        "data": str(sample_data),
        "num_documents": 3,
        "epochs": 2,
        "memory_dim": 16,
        "claims_per_page": 2,
        "alpha": [0.2, 2.0],
        "allocation": ["random", "simset2"],
    }
    found = whole.compare(settings, repeats=1)
    assert found["trials"] == 4 and found["claims"] > 2
    assert all(found["seconds"][name][end]["min"] > 1 for name in ("ours", "plain") for end in whole.ENDS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_stages_run_fewer_trials_than_the_grid_with_the_same_results(tiny_models):
    found = whole.staged_against_grid(
        {
            "model": str(tiny_models["llama"]),
            "depth": [0.5, 1.0],
            "alpha": [0, 1.0],
            "allocation": ["simset1"],
            "memory_dim": 16,
            "claims_per_page": 1,
        }
    )
    assert found["trials"] == {"staged": 5, "grid": 8}
    assert found["study"]["grid_points"] == 2400 and found["study"]["flop_ratio"] > 3


def test_the_text_says_all_ratios():
    one = {"median": 2.0, "min": 1.5, "max": 2.5}
    paper = {"grid_points": 64, "unique_points": 56, "staged_trials": 17, "flop_ratio": 3.1, "trial_ratio": 3.3}
    ends = {"last_s": one, "exit_s": one}
    table = {
        "whole": {
            "model": "m",
            "trials": 24,
            "claims": 30,
            "answered": 700,
            "ratios": ends,
            "seconds": {"ours": ends, "plain": ends},
            "worker_seconds": {"ours": {"train_s": 1.0}, "plain": {}},
        },
        "stages": {
            "study": paper,
            "small": paper,
            "small_with_choices": paper,
            "trials": {"staged": 17, "grid": 56},
            "ratios": {"compute_s": 3.0, "trials_s": 2.5, "last_s": 2.0, "exit_s": 1.9},
        },
    }
    shown = "\n".join(whole.lines(table))
    assert "plain to the last result" in shown and "2.00 (1.50 to 2.50) x ours" in shown
    assert "56 trials against 17: 3.00 x the seconds of computing" in shown


def test_data_are_found_from_another_folder_too(sample_data, monkeypatch):
    monkeypatch.chdir(sample_data.parent)
    assert own_data(sample_data.name) == str(sample_data.resolve())
    assert own_data("hub") == "hub"
    with pytest.raises(DataError, match="no such folder"):
        own_data("nosuch")
