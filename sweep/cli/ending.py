"""How the process of a command ends."""

from __future__ import annotations

import atexit
import gc


def end_without_search() -> None:
    """Have this process look for no garbage when it ends.

    Python would search everything there is several times, 0.6 s of processor time with MLflow alone imported, and then
    give all of it back anyway. For commands only: a program that calls this package ends as it likes.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
