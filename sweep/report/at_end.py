"""The report of one sweep at the end of a run of it, made again only where its records have changed since."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from sweep.records.record import record_hash
from sweep.records.sweep_storage import RecordIndex, SweepStorage
from sweep.report.build import build_report, written
from sweep.report.kept import CONCLUSIONS, REPORT_FOLDER, SweepReport, kept_report
from sweep.report.study import Study, load_study


@dataclass(frozen=True)
class DueReport:
    """A report that is there, or what one is to be made of.

    Attributes:
        study: the records that it is about.
        mark: what changes with any of them.
        kept: the one that is there, if it was made from the same.
    """

    study: Study
    mark: str
    kept: SweepReport | None


def due_report(storage: SweepStorage, name: str, index: RecordIndex) -> DueReport:
    """Look whether a sweep's report is there as its records say."""
    study = load_study(storage, [name], index)
    mark, kept = _mark(study, index), kept_report(storage, name)
    return DueReport(study, mark, kept if kept is not None and kept.mark == mark else None)


def write_page(storage: SweepStorage, name: str, study: Study | None = None) -> str:
    """Write a sweep's report and return where its page lies; it counts once it is `vouched_for`.

    Args:
        storage: the storage.
        name: of the sweep.
        study: its records, where they have been read already.

    Raises:
        OSError: it cannot be written.
    """
    study = load_study(storage, [name]) if study is None else study
    with written(study, build_report(study)) as (_, page):
        return page


def vouched_for(storage: SweepStorage, name: str, page: str, mark: str) -> SweepReport:
    """Note of a report that has just been written what it was made from, and return it.

    Raises:
        OSError: it cannot be noted.
    """
    path = f"{name}/{REPORT_FOLDER}/{CONCLUSIONS}"
    told = json.loads(storage.read(path))
    storage.write_json(path, told | {"mark": mark})
    return SweepReport(page, told["conclusions"], mark)


def _mark(study: Study, index: RecordIndex) -> str:
    """Return what changes with any record that the report is about, or a baseline of it."""
    parts = sorted(record_hash(index[trial.id].record()) for trial in study.everyone)
    parts += [sweep.name for sweep in study.sweeps] + [str(study.missing)]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
