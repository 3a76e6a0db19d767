"""What a run does about broken files before it plans: each is named and set aside, so that it is made again."""

from __future__ import annotations

from sweep.records.files import damaged_files, set_damaged_aside
from sweep.records.manifest import sweep_heads
from sweep.records.storage_id import STORAGE_FILE, storage_file_problem
from sweep.records.store import RecordIndex, Store
from sweep.records.sweep_files import broken_files, set_broken_aside


def mend(store: Store, name: str, index: RecordIndex) -> list[str]:
    """Set aside what is broken of a sweep, records with damaged files among them, and return a line on each file.

    Args:
        store: the storage; the caller holds the sweep's lock.
        name: the sweep.
        index: the storage's records; trials that must run again are taken out.

    Raises:
        DataError: a file that cannot be made again.
        StorageError: one cannot be renamed.
    """
    return [
        *set_broken_aside(store, name),
        *mend_storage_file(store),
        *set_damaged_aside(store, index, sweep_heads(store, name, index)),
    ]


def mend_storage_file(store: Store) -> list[str]:
    """Set aside a broken `storage.json`; its name is found again when it is asked for."""
    problem = storage_file_problem(store)
    if not problem:
        return []
    told = store.set_aside(STORAGE_FILE)
    return [f"{problem}; {told}, made again as {store.storage_id()}"]


def problems_of(store: Store, name: str, index: RecordIndex) -> list[str]:
    """Return a line on each broken file of a sweep; nothing is changed."""
    files = damaged_files(store, sweep_heads(store, name, index))
    lines = [line for found in files.values() for line in found.values()]
    return [*broken_files(store, name).values(), *lines]
