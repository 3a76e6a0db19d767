"""What the exchange says of packs that are under way: no process runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from sweep.running import exchange
from sweep.running.display import Display
from sweep.running.exchange import SILENT_S, PackExchange
from sweep.running.progress import SweepProgress
from tests.sweep.running.test_ledger import open_ledger

REPORT = {"progress": {}, "results": [], "versions": {}, "host": "far", "pid": 321, "node": "n1", "device": "cpu"}


class NoFeed:
    """Stands in for MLflow's feed."""

    trouble = ""

    def start_trial(self, begun: Any) -> None:
        """Do nothing."""


def test_a_pack_that_reports_nothing_is_named_once_a_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(exchange.time, "monotonic", lambda: now[0])
    shown = io.StringIO()
    ledger, _ = open_ledger(tmp_path)
    packs = PackExchange(ledger, NoFeed(), Display(SweepProgress("s"), shown, every_s=1e9), {})  # type: ignore[arg-type]

    def notes_after(seconds: float) -> list[str]:
        now[0] += seconds
        packs.show_progress()
        packs.show_progress()
        told = [line for line in shown.getvalue().splitlines() if line.startswith("note: ")]
        shown.seek(0)
        shown.truncate()
        return told

    first, second = packs.next_pack(), packs.next_pack()
    assert first is not None and second is not None
    packs.report(first.id, {**REPORT, "epoch": 1})
    assert notes_after(SILENT_S - 1) == []
    hanging, waiting = notes_after(2)
    assert f"pack {first.id[:8]}, on far, process 321" in hanging and "no process yet" in waiting
    packs.report(first.id, {**REPORT, "epoch": 2})
    assert notes_after(SILENT_S - 1) == [], "the other has been named, this one was heard of"
    assert [first.id[:8] in line for line in notes_after(2)] == [True]
    packs.close(first.id)
    packs.close(second.id)
    assert notes_after(10 * SILENT_S) == []
