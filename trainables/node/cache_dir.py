"""Where this machine keeps what can be made again: sample models, hidden states."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the node's cache folder: `MEMORY_SWEEP_CACHE`, else `~/.cache/memory-sweep`."""
    named = os.environ.get("MEMORY_SWEEP_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "memory-sweep"
