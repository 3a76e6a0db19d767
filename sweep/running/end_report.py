"""The report at the end of a run: made by a process of its own while MLflow is brought up to date, or else here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.report.kept import SweepReport
from sweep.running.interrupts import Interrupts

if TYPE_CHECKING:
    from sweep.report.at_end import DueReport
    from sweep.report.beside import ReportProcess

_SKIPPED = "it was interrupted"


class EndReport:
    """One report, begun and waited for. Whatever is wrong with it, the run ends as it would without.

    Args:
        storage: the storage.
        name: of the sweep.
        index: its records.
        interrupts: the first signal while it is made leaves it out.
        say: is told what takes a while.

    Attributes:
        made: the report, once it is there.
        trouble: why there is none; empty while there may be.
        under_way: whether it is being made by the process.
    """

    def __init__(
        self,
        storage: SweepStorage,
        name: str,
        index: RecordIndex,
        interrupts: Interrupts,
        say: Callable[[str], None],
    ) -> None:
        """Begin nothing yet."""
        self.made: SweepReport | None = None
        self.trouble = ""
        self._storage, self._name, self._index = storage, name, index
        self._interrupts, self._say = interrupts, say
        self._process: ReportProcess | None = None
        self._due: DueReport | None = None
        self.under_way = False

    def get_ready(self) -> None:
        """Have a process import what a report needs, while the run waits for others.

        An object store is written under the sweep's lock, which is this process's; there is no other then.
        """
        from sweep.report.beside import ReportProcess

        if self._process is None and self._storage.is_local:
            try:
                self._process = ReportProcess()
            except OSError:  # no further process may be started here
                self._process = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Make it while the block runs; when that ends, or `wait` is called in it, it is there or left out."""
        try:
            self._guarded(self._begin)
            with self._interrupts.first_to(self._leave_out):
                yield
                self.wait()
        finally:
            self.dismiss()

    def wait(self) -> None:
        """Wait until the report is there, or left out."""
        if not self.under_way:
            return
        assert self._process is not None and self._due is not None
        page = None
        try:
            page = self._process.page()
        except KeyboardInterrupt:
            self.trouble = _SKIPPED
        except Exception as error:
            self.trouble = str(error)
        self.under_way = False
        if page is not None:
            self._guarded(lambda: self._take(page))
        elif not self.trouble:  # the process was killed, or its sources cannot be imported any more: ours are here
            self._guarded(self._make_here)

    def dismiss(self) -> None:
        """Let go of the process."""
        self.under_way = False
        if self._process is not None:
            self._process.close()
        self._process = None

    def _guarded(self, call: Callable[[], None]) -> None:
        """Do something that the first signal ends, and tell what goes wrong."""
        try:
            with self._interrupts.skippable():
                call()
        except KeyboardInterrupt:
            self.trouble = _SKIPPED
        except Exception as error:  # the trials have run: whatever is wrong with the report, the run ends as it would
            self.trouble = f"{type(error).__name__}: {error}"

    def _begin(self) -> None:
        from sweep.report.at_end import due_report

        self._due = due_report(self._storage, self._name, self._index)
        if self._due.kept is not None:
            self.made = self._due.kept
            return
        self._say(f"writing the report on {len(self._due.study.trials):,} trials (Ctrl-C leaves it out)")
        self.get_ready()
        self.under_way = self._process is not None and self._process.begin(self._storage, self._name)
        if not self.under_way:
            self._make_here()

    def _make_here(self) -> None:
        from sweep.report.at_end import write_page

        assert self._due is not None
        self._take(write_page(self._storage, self._name, self._due.study))

    def _take(self, page: str) -> None:
        from sweep.report.at_end import vouched_for

        assert self._due is not None
        self.made = vouched_for(self._storage, self._name, page, self._due.mark)

    def _leave_out(self) -> bool:
        return self.under_way and self._process is not None and self._process.leave_out()
