"""The report of one sweep at the end of a run of it, made again only where its records have changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.records.record import record_hash
from sweep.records.store import RecordIndex, Store
from sweep.report.build import REPORT_FOLDER, build_report, written
from sweep.report.render import CONCLUSIONS
from sweep.report.study import Study, load_study


@dataclass(frozen=True)
class SweepReport:
    """A report that is there.

    Attributes:
        page: where `report.html` lies.
        conclusions: the sentences that answer each question, by the question, the main one first.
    """

    page: str
    conclusions: Mapping[str, Sequence[str]]


def report_of_sweep(store: Store, name: str, index: RecordIndex, say: Callable[[str], None]) -> SweepReport:
    """Return a sweep's report, written now unless the one that is there was made from the same records.

    Args:
        store: the storage.
        name: of the sweep.
        index: its records.
        say: is told what takes a while.

    Raises:
        OSError: it cannot be written.
    """
    study = load_study(store, [name], index)
    mark, folder = _mark(study, index), f"{name}/{REPORT_FOLDER}"
    kept = _kept(store, folder)
    page = store.full(f"{folder}/report.html")
    if kept is None or kept.get("mark") != mark or not store.exists(f"{folder}/report.html"):
        say(f"writing the report on {len(study.trials):,} trials (Ctrl-C leaves it out)")
        with written(study, build_report(study)) as (_, page):
            kept = json.loads(store.read(f"{folder}/{CONCLUSIONS}")) | {"mark": mark}
        store.write_json(f"{folder}/{CONCLUSIONS}", kept)
    return SweepReport(page, kept["conclusions"])


def _kept(store: Store, folder: str) -> dict[str, Any] | None:
    try:
        found = json.loads(store.read(f"{folder}/{CONCLUSIONS}"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("conclusions"), dict) else None


def _mark(study: Study, index: RecordIndex) -> str:
    """Return what changes with any record that the report is about, or a baseline of it."""
    parts = sorted(record_hash(index[trial.id].record()) for trial in study.everyone)
    parts += [sweep.name for sweep in study.sweeps] + [str(study.missing)]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()
