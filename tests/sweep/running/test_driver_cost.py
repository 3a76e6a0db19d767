"""What a trial costs the driver: as much the thousandth time as the first, and few files."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks.noop import run_ours
from trainables.node.places import FolderPlace

ROOT = str(Path(__file__).parents[3])


def counted(trials: int, folder: Path) -> Counter[str]:
    """Run so many trials that do nothing and count the calls of functions of ours, and the files that are written."""
    counts: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(ROOT):
            counts["calls"] += 1
            counts["files"] += frame.f_code is FolderPlace._put.__code__

    sys.setprofile(note)
    try:
        run_ours(trials, False, str(folder), in_process=True)
    finally:
        sys.setprofile(None)
    return counts


def test_a_trial_costs_no_more_the_more_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sweep.running.exchange.STATE_EVERY_S", 1e9)
    few, some, many = (counted(trials, tmp_path / str(trials)) for trials in (10, 30, 50))
    assert many["files"] - some["files"] == some["files"] - few["files"] == 20 * 3  # training, asking, claim
    assert many["calls"] - some["calls"] == pytest.approx(some["calls"] - few["calls"], rel=0.02)
