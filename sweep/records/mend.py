"""What a run does about broken files before it plans: each is named and set aside, so that it is made again."""

from __future__ import annotations

from sweep.records.manifest import sweep_heads
from sweep.records.record_files import damaged_files, set_damaged_aside
from sweep.records.storage_id import STORAGE_FILE, storage_file_problem
from sweep.records.sweep_files import broken_files, set_broken_aside
from sweep.records.sweep_storage import RecordIndex, SweepStorage


def mend(storage: SweepStorage, name: str, index: RecordIndex) -> list[str]:
    """Set aside what is broken of a sweep, records with damaged files among them, and return a line on each file.

    Args:
        storage: the storage; the caller holds the sweep's lock.
        name: the sweep.
        index: the storage's records; trials that must run again are taken out.

    Raises:
        DataError: a file that cannot be made again.
        StorageError: one cannot be renamed.
    """
    return [
        *set_broken_aside(storage, name),
        *mend_storage_file(storage),
        *set_damaged_aside(storage, index, sweep_heads(storage, name, index)),
    ]


def mend_storage_file(storage: SweepStorage) -> list[str]:
    """Set aside a broken `storage.json`; its name is found again when it is asked for."""
    problem = storage_file_problem(storage)
    if not problem:
        return []
    told = storage.set_aside(STORAGE_FILE)
    return [f"{problem}; {told}, made again as {storage.storage_id()}"]


def problems_of(storage: SweepStorage, name: str, index: RecordIndex) -> list[str]:
    """Return a line on each broken file of a sweep; nothing is changed."""
    files = damaged_files(storage, sweep_heads(storage, name, index))
    lines = [line for found in files.values() for line in found.values()]
    return [*broken_files(storage, name).values(), *lines]
