"""One pack of trials: frozen language model, memories, data and evaluation.

Nothing here knows of sweeps, stages or trackers. Importing this package imports nothing heavy.

The names in `__all__` are stable: within a major version they keep their arguments, what they return and what they
raise; new arguments come with defaults. Everything else may change with any version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainables.adapters.memory.io import SavedMemory, load_memory
    from trainables.lm.reference import attach_memory

__all__ = ["SavedMemory", "attach_memory", "load_memory"]
_ELSEWHERE = {
    "SavedMemory": "trainables.adapters.memory.io",
    "attach_memory": "trainables.lm.reference",
    "load_memory": "trainables.adapters.memory.io",
}


def __getattr__(name: str) -> Any:
    """Import what a name of `__all__` stands for (PEP 562)."""
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_ELSEWHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the names that can be imported, looked up already or not."""
    return sorted({*globals(), *__all__})
