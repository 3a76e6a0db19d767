"""Points that differ in one field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sweep.planning.points import Point, PointMaker
from trainables.trial.spec import make_spec


@pytest.fixture
def two_points(other_values: Callable[..., dict[str, Any]]) -> Callable[[str], list[Point]]:
    """Make two points that differ in the field named."""
    return lambda name: [PointMaker().point(make_spec(other_values(each))) for each in (None, name)]
