"""What a pack keeps of its members' metrics and times."""

from __future__ import annotations

import pytest

from trainables.pack.metric_log import MetricLog


def test_seconds_are_shared_by_those_for_whom_they_were_spent() -> None:
    log = MetricLog(["a", "b", "c"])
    log.spend([0, 1, 2], {"train_s": 3.0})
    log.spend([0, 2], {"train_s": 1.0, "measure_s": 4.0})
    times = [log.result(k, {}, 0.0).timings for k in range(3)]
    assert [found["train_s"] for found in times] == pytest.approx([1.5, 1.0, 1.5])
    assert sum(found["train_s"] for found in times) == pytest.approx(4.0), "all that was spent, once"
    assert [found.get("measure_s") for found in times] == [2.0, None, 2.0]
