"""Tell a storage from one sweep in it, by an address that a person types."""

from __future__ import annotations

from sweep.records.store import Store
from trainables.errors import ConfigError


def split_location(location: str) -> tuple[Store, str | None]:
    """Tell `STORAGE` from `STORAGE/NAME`: a sweep's folder holds `plan.json` or `trains`.

    Raises:
        ConfigError: there is nothing of a sweep at the place.
    """
    store = Store(location.rstrip("/") or "/")
    if store.files.exists("plan.json") or store.files.exists("trains"):
        parent, _, name = store.uri.rstrip("/").rpartition("/")
        return Store(parent or "/"), name
    if store.sweeps():
        return store, None
    raise ConfigError(f"{location}: no sweep there (no plan.json, no trains); give STORAGE or STORAGE/NAME")
