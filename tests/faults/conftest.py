"""A small sweep as a command of its own, to be broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.sweeps import Sweep, write_space


@pytest.fixture
def sweep(tmp_path: Path, tiny_models: dict[str, Path], sample_data: Path) -> Sweep:
    """A small sweep of eight trials of a tiny model, in a folder of its own; nothing has run yet."""
    write_space(tmp_path / "small.py", tiny_models["llama"], sample_data)
    return Sweep(tmp_path)
