"""What the parts of a record look like."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.records.record_shape import _CHECKS


@pytest.mark.parametrize("curve", [[], [[0, 1.0]], [[1, 2], [2, None], [2.5, 3.0]]])
def test_a_curve_is_a_list_of_pairs_of_numbers_of_which_the_second_may_be_missing(curve: Any) -> None:
    assert _CHECKS["curves"]({"train/nll": curve})


@pytest.mark.parametrize(
    "curve",
    [None, {}, "", (), [1, 2], [[1]], [[1, 2, 3]], [[]], [[None, 1.0]], [["1", 1.0]], [[1, "2"]], [[True, 1.0]],
     [[1, False]], [[1, [2]]], [(1, 2.0)], [[1, 2.0], None]],
)  # fmt: skip
def test_nothing_else_is_one(curve: Any) -> None:
    assert not _CHECKS["curves"]({"train/nll": [[1, 1.0]], "train/loss": curve})
