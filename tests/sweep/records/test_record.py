"""Records: what goes into one, what is refused, and their stable bytes."""

from __future__ import annotations

import math

import pytest

from sweep.records.record import (
    PassedOver,
    check_record,
    complete_record,
    parse_record,
    plain,
    record_bytes,
    record_hash,
    seconds_since_epoch,
    timestamp,
)
from trainables.errors import DataError
from trainables.trial.identity import trial_id


def test_a_record_holds_the_trial_its_result_and_the_versions(finished) -> None:
    record = finished(seed=7)
    assert record["id"] == trial_id(record["identity"])
    assert (record["seed"], record["stage"], record["sweep"], record["pack"]) == (
        7,
        "inductive",
        "demo",
        "pack-1",
    )
    assert record["model"]["name"] == "llama2-7b" and record["data"] == {
        "key": "sample@v1",
        "given": "sample",
    }
    assert {"memory-sweep", "python", "torch", "ray", "mlflow"} <= set(record["versions"])
    assert parse_record(record_bytes(record), "here") == record


def test_numbers_that_are_not_finite_become_null(finished) -> None:
    record = finished(
        result={
            "status": "diverged",
            "metrics": {"memory/nll": math.nan},
            "curves": {"train/loss": [[1, 2.0], [2, math.inf]]},
        }
    )
    assert record["metrics"] == {"memory/nll": None} and record["curves"]["train/loss"] == [
        [1, 2.0],
        [2, None],
    ]
    assert b"NaN" not in record_bytes(record) and b"Infinity" not in record_bytes(record)


def test_numpy_scalars_become_plain_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    assert plain({"a": numpy.float32(0.5), "b": (numpy.int64(3), True, None, "x")}) == {
        "a": 0.5,
        "b": [3, True, None, "x"],
    }


def test_the_workers_host_and_versions_count(begun) -> None:
    record = complete_record(begun(), {"status": "done", "host": "node-7", "versions": {"torch": "9.9"}})
    assert record["host"] == "node-7" and record["versions"]["torch"] == "9.9" and record["versions"]["python"]


def test_a_result_of_another_trial_is_refused(begun) -> None:
    with pytest.raises(DataError, match="trial ffff"):
        complete_record(begun(), {"id": "ffff", "status": "done"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"status": "running"}, "status"),
        ({"metrics": None}, "metrics"),
        ({"id": "0" * 16}, "does not follow"),
    ],
)
def test_what_is_not_a_whole_record_is_refused(finished, change: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_record({**finished(), **change})


def test_another_version_is_told_from_damage(finished) -> None:
    with pytest.raises(PassedOver, match="another version"):
        check_record({**finished(), "format": 4})


def test_the_hash_follows_the_content(finished) -> None:
    record = finished()
    assert record_hash(record) == record_hash(parse_record(record_bytes(record), "here"))
    assert record_hash({**record, "status": "failed"}) != record_hash(record)


def test_moments_survive_their_spelling() -> None:
    assert seconds_since_epoch(timestamp(1767323045.125)) == 1767323045.125
