"""Kills the driver again and again while trials that do nothing run; nothing may be lost, nothing run twice.

    python -m benchmarks.kills [TRIALS [KILLS [ours|local [STORAGE]]]]

`ours` (the default) runs them through Ray Tune, `local` in the driver's process.
The kills come after equal shares of the trials, each with SIGKILL. Before each, every record is noted with its file's
number and time; at the end each noted file must still be the same one, so a trial that was run again would show. The
driver's peak of memory is the greatest of all its lives. Then the table is made and the records are scanned once more.
The last line printed is JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from sweep.records.results_table import write_results
from sweep.records.sweep_storage import SweepStorage

LIMIT_S = 3600.0


def records(storage: Path) -> dict[str, tuple[int, int]]:
    """Return the records' files of trials that have been asked, too, by trial: number and time of writing.

    A trial has two records, of its training and of its answers. One that was killed between these is asked again; as
    trials that do nothing keep no weights, it is trained again for that.
    """
    found = {}
    for asking in storage.glob("noop/trains/**/probes/*/record.json"):
        path = asking.parents[2] / "record.json"
        with suppress(FileNotFoundError):
            status = path.stat()
            found[path.parent.name] = (status.st_ino, status.st_mtime_ns)
    return found


def count(storage: Path) -> int:
    """Return how many records there are."""
    return sum("/probes/" not in path for path in SweepStorage(str(storage)).find("noop/trains", "record.json"))


def one_life(trials: int, who: str, storage: Path, until: int) -> tuple[int, float]:
    """Start the driver and kill it when there are so many records; return its exit status and peak memory in bytes."""
    command = [sys.executable, "-m", "benchmarks.noop", who, str(trials), "off", str(storage)]
    peak = 0.0
    with open(storage / "log", "ab") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + LIMIT_S
        while driver.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, float(psutil.Process(driver.pid).memory_info().rss))
            if until < trials and count(storage) >= until:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
            if time.monotonic() > end:
                driver.kill()
                raise RuntimeError(f"no end after {LIMIT_S:g} s; see {storage / 'log'}")
            time.sleep(0.3)
    return driver.returncode, peak


def run(trials: int, kills: int, who: str, folder: Path) -> dict[str, float]:
    """Run the trials through the kills and check what is there.

    Raises:
        RuntimeError: a trial was lost or run twice, or a driver ended otherwise than it should.
    """
    start = time.perf_counter()
    seen: dict[str, tuple[int, int]] = {}
    twice: set[str] = set()
    peaks = []
    for kill in range(1, kills + 2):
        status, peak = one_life(trials, who, folder, until=trials * kill // (kills + 1))
        peaks.append(peak)
        wanted = 0 if kill == kills + 1 else -signal.SIGKILL
        if status != wanted:
            raise RuntimeError(f"life {kill} ended with {status} instead of {wanted}; see {folder / 'log'}")
        now = records(folder)
        twice |= {trial for trial, file in seen.items() if now.get(trial) != file}
        seen = now
        print(f"life {kill}: {len(now)} records, peak {peak / 1e6:.0f} MB", flush=True)
    seconds = time.perf_counter() - start
    scan = time.perf_counter()
    storage = SweepStorage(str(folder))
    index = storage.index()
    scanned_s = time.perf_counter() - scan
    table = time.perf_counter()
    write_results(storage, "noop", index)
    found = {
        "trials": trials,
        "kills": kills,
        "seconds": seconds,
        "lost": trials - len(index),
        "twice": len(twice),
        "first_peak_mb": peaks[0] / 1e6,
        "greatest_peak_mb": max(peaks) / 1e6,
        "scan_s": scanned_s,
        "table_s": time.perf_counter() - table,
    }
    if found["lost"] or found["twice"]:
        raise RuntimeError(f"lost or run twice: {found}")
    return found


def main() -> None:
    """Run what the command line says."""
    given = sys.argv[1:]
    trials, kills = int(given[0]) if given else 300, int(given[1]) if len(given) > 1 else 3
    who = given[2] if len(given) > 2 else "ours"
    with tempfile.TemporaryDirectory(prefix="memory-sweep-kills-") as folder:
        storage = Path(given[3] if len(given) > 3 else folder)
        storage.mkdir(parents=True, exist_ok=True)
        print(json.dumps(run(trials, kills, who, storage)))


if __name__ == "__main__":
    main()
