"""The failure classes; the retry policy is keyed on them.

A message is one line: what is wrong, where, what to do. Only a bug ever shows a traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SweepError(Exception):
    """Root of all errors this project raises on purpose."""

    kind = "bug"


class ConfigError(SweepError):
    """The user's mistake: a field, its value, the rule it breaks and the remedy. Nothing is started."""

    kind = "config"


class DataError(SweepError):
    """A data or model file that is missing or broken; the message starts with `path:` or `path:line:`."""

    kind = "data"


class OutOfMemory(SweepError):
    """The device or the host ran out of memory even with the smallest micro-batch and a pack of one."""

    kind = "memory"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `", did you mean 'x'?"` for the closest known name, or an empty string."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {found[0]!r}?" if found else ""


def failure_kind(error: BaseException) -> str:
    """Classify any exception: config, data, memory or bug.

    CUDA's out-of-memory error is recognised by its class name, so that torch need not be imported.
    """
    if isinstance(error, SweepError):
        return error.kind
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "memory"
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        return "memory"
    return "bug"
