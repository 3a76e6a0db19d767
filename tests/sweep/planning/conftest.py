"""Points that differ in one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweep.planning.points import Point, PointMaker
from trainables.data import hub
from trainables.trial.making import make_spec


@pytest.fixture
def two_points(
    other_values: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], list[Point]]:
    """Make two points that differ in the field named; the hub's files are stated, since no hub is asked here."""
    file = hub.RepoFile("train/0000.parquet", 1, "a1")
    listed = hub.HubFiles("fever/fever", "c" * 40, (file,), (file,), (file,))
    monkeypatch.setattr(hub, "hub_files", lambda name: listed)
    return lambda name: [
        PointMaker().point(make_spec(values)) for values in (other_values(like=name), other_values(name))
    ]
