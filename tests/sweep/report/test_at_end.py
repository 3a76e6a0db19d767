"""The report at the end of a run: written once for the same records, never in the way of the run."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

import sweep.report.at_end as at_end
from sweep.records.sweep_storage import SweepStorage
from sweep.running.closing import Closing
from sweep.running.interrupts import handled_signals
from sweep.running.outcome_text import answer_lines

pytestmark = pytest.mark.usefixtures("unpainted")


def add(fake, **fields):
    fake.add("s", "all", **{"num_documents": 10, "metrics": {"memory/nll": 1.0}, **fields})
    fake.write_plans()
    return SweepStorage(str(fake.root))


@pytest.fixture
def storage(fake) -> SweepStorage:
    fake.add("s", "all", method="pretrained", num_documents=10, accuracy=0.2)
    return add(fake, layer=1, accuracy=0.9)


def made(storage: SweepStorage) -> tuple[at_end.SweepReport, list[str]]:
    said: list[str] = []
    return at_end.report_of_sweep(storage, "s", storage.index(), said.append), said


def test_it_is_written_again_only_when_its_records_have_changed(fake, storage):
    first, said = made(storage)
    assert len(said) == 1 and "2 trials" in said[0]
    assert next(iter(first.conclusions.values()))[0].startswith("Yes, the one trial compared is better")
    assert made(storage) == (first, [])
    add(fake, layer=2, accuracy=0.1)
    second, said = made(storage)
    assert len(said) == 1 and next(iter(second.conclusions.values()))[0].startswith("Yes, in 1 of 2 trials")
    (fake.root / "s" / "report" / "report.html").unlink()
    assert made(storage)[1], "a page that is gone is made again"
    (fake.root / "s" / "report" / "conclusions.json").write_text("{")
    assert made(storage)[1] and made(storage) == (second, [])


def closing(storage: SweepStorage, interrupts) -> Closing:
    voice = SimpleNamespace(say=lambda line: None)
    return Closing(storage, "s", storage.index(), SimpleNamespace(report=True), None, interrupts, voice, 0.0)


def test_a_mistake_of_the_report_does_not_end_the_run(storage, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(at_end, "build_report", broken)
    with handled_signals() as interrupts:
        assert closing(storage, interrupts).report("") == (None, "ZeroDivisionError: by accident")


def test_the_first_signal_leaves_the_report_out_and_later_ones_disturb_the_end_as_little_as_before(
    storage, monkeypatch
):
    def slow(*args):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr(at_end, "build_report", slow)
    with handled_signals() as interrupts:
        with interrupts.graceful(lambda reason: None, lambda: None):
            pass
        assert closing(storage, interrupts).report("") == (None, "it was interrupted")
        assert not storage.exists("s/report/report.html")
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


def test_an_interrupted_run_writes_none(storage):
    with handled_signals() as interrupts:
        assert closing(storage, interrupts).report("interrupted")[0] is None
    assert not storage.exists("s/report/report.html")


def test_the_end_of_a_run_prints_two_sentences_and_the_page_or_the_command():
    told = {"Does it help?": ("Yes.", "By 3.", "Models: a."), "Which layer?": ("2.",)}
    there = SimpleNamespace(paths={"folder": "out/s", "report": "out/s/report.html"}, conclusions=told)
    assert answer_lines(there) == ["answer:   Yes.", "          By 3.", "report:   out/s/report.html"]
    absent = SimpleNamespace(paths={"folder": "out/s"}, conclusions={}, report_trouble="")
    assert [line.split()[-3:] for line in answer_lines(absent)] == [["-m", "sweep.report", "out/s"]]
    absent.report_trouble = "ValueError: x"
    assert answer_lines(absent)[0] == "note: no report was written: ValueError: x"
