"""The report of one sweep at the end of a run of it, made again only where its records have changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

from sweep.records.record import record_hash
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.report.build import build_report, written
from sweep.report.kept import CONCLUSIONS, REPORT_FOLDER, SweepReport, kept_report
from sweep.report.study import Study, load_study


def report_of_sweep(storage: SweepStorage, name: str, index: RecordIndex, say: Callable[[str], None]) -> SweepReport:
    """Return a sweep's report, written now unless the one that is there was made from the same records.

    Args:
        storage: the storage.
        name: of the sweep.
        index: its records.
        say: is told what takes a while.

    Raises:
        OSError: it cannot be written.
    """
    study = load_study(storage, [name], index)
    mark, folder, kept = _mark(study, index), f"{name}/{REPORT_FOLDER}", kept_report(storage, name)
    if kept is not None and kept.mark == mark:
        return kept
    say(f"writing the report on {len(study.trials):,} trials (Ctrl-C leaves it out)")
    with written(study, build_report(study)) as (_, page):
        told = json.loads(storage.read(f"{folder}/{CONCLUSIONS}"))
    storage.write_json(f"{folder}/{CONCLUSIONS}", told | {"mark": mark})
    return SweepReport(page, told["conclusions"], mark)


def _mark(study: Study, index: RecordIndex) -> str:
    """Return what changes with any record that the report is about, or a baseline of it."""
    parts = sorted(record_hash(index[trial.id].record()) for trial in study.everyone)
    parts += [sweep.name for sweep in study.sweeps] + [str(study.missing)]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
