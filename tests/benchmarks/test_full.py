"""Packs that are kept full: `tune_alpha` in far fewer packs and passes, and each trial as it is alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import full
from benchmarks.common import NotTheSame
from benchmarks.full import check_alone, lines, models_of, run, tune_alpha
from sweep.running import sampled as sampled_module


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return models_of(tmp_path_factory.mktemp("models"))


@pytest.mark.thorough(
    beside="tests/sweep/running/test_joining.py::test_a_quarter_of_a_sampled_stage_is_under_way_and_who_is_over_makes_place_for_a_draw"
)
def test_sampled_trials_share_passes_and_are_as_they_are_alone(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled_module, "INFORMED", 3)
    space = tune_alpha(models[:1], samples=12, documents=2, epochs=8, depths=[0.5, 1.0])
    alone, _ = run(space, tmp_path / "alone", 1)
    packs, records = run(space, tmp_path / "packs", None)
    assert alone["trials"] == packs["trials"] == 14, "two layers, twelve draws"
    assert (alone["packs"], alone["sampled_packs"]) == (14, 12) and packs["packs"] - packs["sampled_packs"] == 1
    assert packs["sampled_packs"] <= 2, "of four at a time; where all end at once, another one begins"
    assert packs["occupancy"] == alone["occupancy"] == 1, "nothing is run for who has left"
    assert packs["full_while_awaited"] >= 0.95 and not alone["full_while_awaited"]
    sampled = packs["trial_epochs"] - 2 * 8
    assert packs["pack_epochs"] <= 8 + 0.6 * sampled, "both layers share a pass"
    assert packs["training_passes"] == packs["pack_epochs"]
    assert alone["training_passes"] == alone["trial_epochs"], "a step an epoch for each trial"
    assert check_alone(tmp_path / "again", records, None) == 12


def test_a_trial_that_depends_on_its_pack_is_refused(models: list[str], tmp_path: Path) -> None:
    space = tune_alpha(models[:1], samples=4, documents=2, epochs=6, depths=[0.5, 1.0])
    _, records = run(space, tmp_path / "out", None)
    drawn = next(record for record in records.values() if record["stage"] == "tune")
    drawn["curves"]["train/nll"][-1][1] += 0.01
    with pytest.raises(NotTheSame, match=drawn["id"]):
        check_alone(tmp_path / "again", records, None)


@pytest.mark.slow
def test_the_84_trials_of_tune_alpha_take_a_few_packs(models: list[str], tmp_path: Path) -> None:
    space = tune_alpha(models, samples=32, documents=2, epochs=25)
    alone, _ = run(space, tmp_path / "alone", 1)
    packs, records = run(space, tmp_path / "packs", None)
    assert alone["trials"] == packs["trials"] == alone["packs"] == 84
    assert packs["sampled_packs"] <= 4 and packs["packs"] == 2 + packs["sampled_packs"], (
        "ten layers of a model are a pack"
    )
    per_epoch = [found["training_passes"] / found["trial_epochs"] for found in (alone, packs)]
    assert per_epoch[0] == 1 and per_epoch[1] < 0.15
    assert packs["occupancy"] == 1 and packs["full_while_awaited"] >= 0.95
    assert check_alone(tmp_path / "again", records, 16) == 16


def test_the_table_says_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    once: dict[str, Any] = {
        "trials": 84, "statuses": {"done": 84}, "packs": 24, "sampled_packs": 4, "training_passes": 900,
        "passes": 3000, "trial_epochs": 2000, "occupancy": 0.99, "full": 0.8, "full_while_awaited": 0.97, "cpu_s": 10.0,
        "cpu_ms_per_trial_epoch": 5.0,
    }  # fmt: skip
    monkeypatch.setattr(full, "models_of", lambda folder: ["sample-llama"])
    monkeypatch.setattr(full, "tune_alpha", lambda *_: None)
    monkeypatch.setattr(full, "check_alone", lambda *_: 4)
    times = iter((20.0, 10.0, 30.0, 10.0))
    monkeypatch.setattr(full, "run", lambda *_: ({**once, "cpu_s": next(times)}, {}))
    told = "\n".join(lines(full.compare(1, 1, 1, 2)))
    assert "84 trials (84 done) in 24 packs, 4 of them sampled" in told and "99.0 % of the places" in told
    assert "97.0 % full while others are to join them, 80.0 % to their ends" in told
    assert "2.50 (2.00 to 3.00) times less in all" in told and "4 trials have the losses" in told
