"""A report made by a process of its own, beside what its run has to write at the end: MLflow's runs, on one core.

The process is a fresh one, not a fork: a driver has threads of Ray's and of gRPC's. It is told by a line where the
sweep lies, answers by one, and ends when nobody can tell it anything any more, so that none outlives its run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from sweep.records.sweep_storage import SweepStorage
from trainables.errors import SweepError

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from sweep.report.beside import serve; serve()"
"""With the path of the driver, so that it imports what the driver does."""


class ReportFailed(SweepError):
    """Making the report went wrong in the process; the message says how."""


class ReportProcess:
    """A process that gets ready to make one report, and makes it when it is told to."""

    def __init__(self) -> None:
        """Start it; a Ctrl-C of the terminal is its driver's to hear.

        Raises:
            OSError: it cannot be started.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps([str(place) for place in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._left_out = False

    def begin(self, storage: SweepStorage, name: str) -> bool:
        """Have it make the report of a sweep; False where it has ended already."""
        try:
            print(json.dumps({"storage": storage.uri, "name": name}), file=self._to, flush=True)
        except OSError:
            return False
        return True

    def page(self) -> str | None:
        """Wait for the report and return where its page lies; None where the process ended without a word.

        Raises:
            KeyboardInterrupt: it was left out.
            ReportFailed: it cannot be made.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            told = json.loads(line)
            if told["error"]:
                raise ReportFailed(told["error"])
            return str(told["page"])
        if self._left_out:
            raise KeyboardInterrupt
        return None

    def leave_out(self) -> bool:
        """End it where it stands; False where it is over already. A signal's handler may call this."""
        if self._process.poll() is not None:
            return False
        self._left_out = True
        self._process.kill()
        return True

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):  # what it has not read
                    stream.close()
        self._process.wait()

    @property
    def _to(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin


def serve() -> None:
    """Be the process: import, wait for a line, make the report, answer."""
    answer_to = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    import scipy.stats  # noqa: F401  what nearly every report needs, while there is time
    import statsmodels.stats.multitest  # noqa: F401

    import sweep.report.at_end  # noqa: F401

    asked = sys.stdin.readline()
    if not asked:
        return
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    print(json.dumps(_answer(**json.loads(asked))), file=answer_to, flush=True)


def _answer(storage: str, name: str) -> dict[str, Any]:
    from sweep.report.at_end import write_page

    try:
        return {"page": write_page(SweepStorage(storage), name), "error": ""}
    except Exception as error:
        return {"page": "", "error": f"{type(error).__name__}: {error}"}


def _end_with_the_driver() -> None:
    sys.stdin.read()
    os._exit(1)
