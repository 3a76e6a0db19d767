"""The report of a sweep as the last run left it, read without what makes one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.records.sweep_storage import SweepStorage

REPORT_FOLDER, PAGE_FILE, CONCLUSIONS = "report", "report.html", "conclusions.json"


@dataclass(frozen=True)
class SweepReport:
    """A report that is there.

    Attributes:
        page: where `report.html` lies.
        conclusions: the sentences that answer each question, by the question, the main one first.
        mark: what it was made from.
    """

    page: str
    conclusions: Mapping[str, Sequence[str]]
    mark: str = ""


def kept_report(storage: SweepStorage, name: str) -> SweepReport | None:
    """Return a sweep's report; None where none lies there whole, or none that a run has made."""
    folder = f"{name}/{REPORT_FOLDER}"
    try:
        found: Any = json.loads(storage.read(f"{folder}/{CONCLUSIONS}"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("conclusions"), dict):
        return None
    if not found.get("mark") or not storage.exists(f"{folder}/{PAGE_FILE}"):
        return None
    return SweepReport(storage.full(f"{folder}/{PAGE_FILE}"), found["conclusions"], str(found["mark"]))
