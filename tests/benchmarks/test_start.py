"""What a start takes: whole commands are timed, and their seconds stand beside the targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import start
from benchmarks.made_up import write_sweep
from benchmarks.sweeps import Timed, run_command
from sweep.records.record import seconds_since_epoch
from sweep.records.sweep_storage import SweepStorage
from trainables.lm.sample.models import ensure_sample_model

BEFORE_S, AFTER_S, NOTHING_S, BARE_S = 5.0, 7.0, 1.5, 9.0


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stand in for the commands: one with a new storage leaves records, one with an old storage nothing."""
    given: list[list[str]] = []

    def run_command(module: str, arguments: list[object], folder: Path) -> Timed:
        given.append([module, *map(str, arguments)])
        if module == "benchmarks.bare_tune":
            return Timed(0.0, BARE_S, "")
        storage = SweepStorage(given[-1][-1])
        is_new = not storage.index()
        if is_new:
            write_sweep(storage, "made_up", 3)
        records = [head.record() for head in storage.index().values()]
        first = min(seconds_since_epoch(record["started_at"]) for record in records)
        last = max(seconds_since_epoch(record["finished_at"]) for record in records)
        if not is_new:
            return Timed(last + 100, NOTHING_S, "")
        return Timed(first - BEFORE_S, BEFORE_S + (last - first) + AFTER_S, "")

    monkeypatch.setattr(start, "run_command", run_command)
    monkeypatch.setattr(start, "ensure_sample_model", lambda name: Path())
    return given


def test_seconds_before_and_after_the_trials_stand_beside_the_target(commands: list[list[str]]) -> None:
    table = start.measure(repeats=2)
    assert [words[1:3] for words in commands[:3]] == [
        ["sample", "--small"],
        ["sample", "--small"],
        ["sample", "--storage"],
    ]
    assert len({words[-1] for words in commands if words[0] == "sweep.run"}) == 4, "what runs again, in its storage"
    assert [words[2] for words in commands if words[0] == "benchmarks.bare_tune"] == ["2", "11", "2", "11"]
    small, nothing = table["small"], table["nothing"]
    assert (small["records"], nothing["records"]) == (3.0, 3.0) and "before" not in nothing
    assert small["before"]["median"] == pytest.approx(BEFORE_S) and small["after"]["max"] == pytest.approx(AFTER_S)
    assert small["seconds"]["median"] == pytest.approx(BEFORE_S + small["trials"]["median"] + AFTER_S)
    told = start.lines(table)
    assert "(target 9), 3 records" in told[0] and "5.0 (5.0 to 5.0) before them" in told[0]
    assert told[2].endswith("nothing to run: 1.5 (1.5 to 1.5) s (target 2), 3 records")
    assert told[3].startswith("plain Ray Tune, 2 trials that only load") and told[3].endswith("9.0 (9.0 to 9.0) s")


@pytest.mark.slow
def test_the_packages_alone_run_their_trials(tmp_path: Path) -> None:
    import mlflow

    run_command("benchmarks.bare_tune", [ensure_sample_model("sample-neox"), 2, tmp_path], tmp_path)
    runs = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").search_runs(["0"])
    assert len(runs) == 2 and all(run.data.metrics["value_0"] > 1000 for run in runs)
