"""The report at the end of a run: written once for the same records, never in the way of the run."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import sweep.report.at_end as at_end
from sweep.records.sweep_storage import SweepStorage
from sweep.report.beside import ReportProcess
from sweep.report.kept import SweepReport
from sweep.running.closing import Closing
from sweep.running.end_report import EndReport
from sweep.running.interrupts import Interrupts, handled_signals
from sweep.running.outcome_text import answer_lines
from sweep.tracking.address import resolve_tracking

pytestmark = pytest.mark.usefixtures("report_process")


def add(fake, **fields):
    fake.add("s", "all", **{"num_documents": 10, "metrics": {"memory/nll": 1.0}, **fields})
    fake.write_plans()
    return SweepStorage(str(fake.root))


@pytest.fixture
def storage(fake) -> SweepStorage:
    fake.add("s", "all", method="pretrained", num_documents=10, accuracy=0.2)
    return add(fake, layer=1, accuracy=0.9)


class FakeProcess:
    """Makes the report in this process, with what a test has put in its place, as the real one does beside it."""

    begun = 0

    def begin(self, storage: SweepStorage, name: str) -> bool:
        type(self).begun += 1
        self._sweep = storage, name
        return True

    def page(self) -> str | None:
        return at_end.write_page(*self._sweep)

    def leave_out(self) -> bool:
        return False

    def close(self) -> None:
        pass


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> type[FakeProcess]:
    """The process, replaced by one that starts none."""
    own = type("Own", (FakeProcess,), {})
    monkeypatch.setattr("sweep.report.beside.ReportProcess", own)
    return own


def report_of(storage: SweepStorage, interrupts: Interrupts, said: list[str] | None = None) -> EndReport:
    """Make the report at the end of a run."""
    say = (said if said is not None else []).append
    report = EndReport(storage, "s", storage.index(), interrupts, say)
    with report.beside():
        pass
    return report


def made(storage: SweepStorage) -> tuple[SweepReport, list[str]]:
    said: list[str] = []
    with handled_signals() as interrupts:
        report = report_of(storage, interrupts, said)
    assert report.made is not None and not report.trouble
    return report.made, said


def test_it_is_written_again_only_when_its_records_have_changed(fake, storage, beside):
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
    assert beside.begun == 4


def test_a_process_of_its_own_writes_what_this_one_would(storage, monkeypatch):
    def drawn_here(*args):
        raise AssertionError("the report is made beside the run")

    monkeypatch.setattr(at_end, "write_page", drawn_here)
    beside, _ = made(storage)
    files = written_files(storage)
    monkeypatch.undo()
    at_end.write_page(storage, "s")
    here = at_end.vouched_for(storage, "s", beside.page, beside.mark)
    assert here == beside and written_files(storage) == files
    assert len([name for name in files if name.endswith((".svg", ".png"))]) > 2


def written_files(storage: SweepStorage) -> dict[str, str]:
    """Return the report's files, without the time that it was made at."""
    folder = Path(storage.full("s/report"))
    found = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
    return {name: re.sub(r"Made [-0-9]+ [0-9:]+ UTC", "", data.decode("latin-1")) for name, data in found.items()}


def test_what_is_written_beside_it_goes_on_meanwhile_and_waits_for_it(storage):
    with handled_signals() as interrupts:
        report = EndReport(storage, "s", storage.index(), interrupts, lambda line: None)
        report.get_ready()
        with report.beside():
            assert report.under_way and report.made is None, "the block runs before the report is there"
            report.wait()
            assert report.made is not None and storage.exists("s/report/report.html")


def test_where_the_process_ends_without_a_word_the_report_is_made_here(storage, monkeypatch):
    monkeypatch.setattr("sweep.report.beside._START", "import sys; sys.stdin.readline()")
    assert made(storage)[0].conclusions
    monkeypatch.setattr("sweep.report.beside.sys.executable", str(Path(storage.full("no_such_python"))))
    Path(storage.full("s/report/report.html")).unlink()
    assert made(storage)[0].conclusions


@pytest.mark.parametrize("begun", [False, True])
def test_the_process_does_not_outlive_its_driver(begun, monkeypatch):
    """A driver that is killed closes the pipe, as whoever lets go of it does."""
    wait = (
        "from sweep.report import beside; beside._answer = lambda **asked: __import__('time').sleep(60); beside.serve()"
    )
    monkeypatch.setattr("sweep.report.beside._START", wait)
    process = ReportProcess()
    try:
        if begun:
            assert process.begin(SweepStorage("/nowhere"), "s")
        process._to.close()
        assert process._process.wait(timeout=50) == int(begun)
    finally:
        process.close()


def test_a_mistake_of_the_report_does_not_end_the_run(storage, monkeypatch, beside):
    def broken(*args):
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr(at_end, "load_study", broken)
    with handled_signals() as interrupts:
        assert report_of(storage, interrupts).trouble == "ZeroDivisionError: by accident"


def test_a_mistake_in_the_process_is_told_by_its_class_and_words(fake, storage):
    (fake.root / "s" / "report").write_text("a file where the folder is to be")
    with handled_signals() as interrupts:
        trouble = report_of(storage, interrupts).trouble
    assert trouble.startswith(("FileExistsError: ", "NotADirectoryError: ")), trouble


def test_the_first_signal_leaves_the_report_out_and_later_ones_disturb_the_end_as_little_as_before(
    storage, monkeypatch
):
    monkeypatch.setattr("sweep.report.beside._START", "import sys, time; sys.stdin.readline(); time.sleep(60)")
    with handled_signals() as interrupts:
        with interrupts.graceful(lambda reason: None, lambda: None):
            pass
        report, went_on = EndReport(storage, "s", storage.index(), interrupts, lambda line: None), False
        with report.beside():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            went_on = True
        assert went_on and (report.made, report.trouble) == (None, "it was interrupted")
        assert not storage.exists("s/report/report.html")
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


def test_a_signal_leaves_out_a_report_that_is_made_here(storage, monkeypatch):
    def slow(*args):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

    monkeypatch.setattr("sweep.report.beside.sys.executable", str(Path(storage.full("no_such_python"))))
    monkeypatch.setattr(at_end, "build_report", slow)
    with handled_signals() as interrupts:
        with interrupts.graceful(lambda reason: None, lambda: None):
            pass
        assert report_of(storage, interrupts).trouble == "it was interrupted"


def test_a_signal_that_comes_when_the_report_is_there_does_what_it_did_before(storage, beside):
    with handled_signals() as interrupts, pytest.raises(KeyboardInterrupt):
        report = EndReport(storage, "s", storage.index(), interrupts, lambda line: None)
        with report.beside():
            report.wait()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert report.made is not None


def test_an_interrupted_run_writes_none_and_one_without_a_report_starts_no_process(storage, monkeypatch, tmp_path):
    def started():
        raise AssertionError("a process")

    monkeypatch.setattr("sweep.report.beside.ReportProcess", started)
    tracking = resolve_tracking(storage, f"sqlite:///{tmp_path}/m.db", None)
    for stopped, wanted, trouble in (("interrupted", True, "the run was interrupted"), ("", False, "")):
        with handled_signals() as interrupts:
            voice, options = SimpleNamespace(say=lambda line: None), SimpleNamespace(report=wanted)
            closing = Closing(storage, "s", storage.index(), options, tracking, interrupts, voice, 0.0)
            if not wanted:
                closing.expect_report()
            assert closing._make_all(stopped, True) == (None, trouble, "")
    assert not storage.exists("s/report/report.html")


def test_the_end_of_a_run_prints_two_sentences_and_the_page_or_the_command():
    told = {"Does it help?": ("Yes.", "By 3.", "Models: a."), "Which layer?": ("2.",)}
    there = SimpleNamespace(paths={"folder": "out/s", "report": "out/s/report.html"}, conclusions=told)
    assert answer_lines(there) == ["answer:   Yes.", "          By 3.", "report:   out/s/report.html"]
    absent = SimpleNamespace(paths={"folder": "out/s"}, conclusions={}, report_trouble="")
    assert [line.split()[-3:] for line in answer_lines(absent)] == [["-m", "sweep.report", "out/s"]]
    absent.report_trouble = "ValueError: x"
    assert answer_lines(absent)[0] == "note: no report was written: ValueError: x"
