"""`sweep.run` with packs that fail by a plan, whatever executes them."""

from __future__ import annotations

import os
import sys
from typing import Any

import trainables.pack.worker
from tests.sweep.running.faults import FaultyTrainable, FaultyWork


def main() -> None:
    """Put the faulty work in the place of the real one, and run."""
    from sweep.running.ray_environment import set_environment

    set_environment(None)
    from sweep.running import ray_tune

    real = ray_tune.RayTune.__init__

    def init(self: Any, settings: Any, resources: Any, address: str | None = None) -> None:
        real(self, settings, resources, address, FaultyTrainable)

    ray_tune.RayTune.__init__ = init  # type: ignore[method-assign]
    trainables.pack.worker.PackWork = FaultyWork  # type: ignore[misc]
    from sweep.run import app

    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    app()


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    main()
