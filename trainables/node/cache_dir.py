"""Where this machine keeps what can be made again: sample models, hidden states; and how its users spell a path."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the node's cache folder: `MEMORY_SWEEP_CACHE`, else `~/.cache/memory-sweep`."""
    named = os.environ.get("MEMORY_SWEEP_CACHE")
    return user_path(named) if named else Path.home() / ".cache" / "memory-sweep"


def user_path(text: str | os.PathLike[str]) -> Path:
    """Return a path with `~` spelled out; unlike `Path.expanduser`, a home that nobody has is left as it stands."""
    return Path(os.path.expanduser(text))
