"""What an earlier stage decides, from records; and that a recorded choice is never silently changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.planning.choices import (
    ChoiceQuestion,
    NoCandidate,
    decide,
    make_question,
    metric_mode,
    reconcile,
    settled,
    tie_text,
)
from sweep.planning.points import PointMaker
from sweep.space import Best

BEST = Best(field="layer", stage="choose", per=("model",))


def question(layers: list[int], best: Best = BEST, **values: Any) -> ChoiceQuestion:
    base = {"model": "sample-llama", **values}
    points = PointMaker().expand(base, {"layer": tuple(layers)})
    return make_question(best, {"model": "sample-llama"}, tuple(points))


def records(asked: ChoiceQuestion, metrics: list[Any], name: str = "memory/nll") -> dict[str, dict[str, Any]]:
    """Records of the candidates; a string is the status of one that has no metric."""
    return {
        point.id: {"status": value, "metrics": {}}
        if isinstance(value, str)
        else {"status": "done", "metrics": {} if value is None else {name: value}}
        for point, value in zip(asked.candidates, metrics, strict=True)
    }


def test_the_lowest_error_wins_and_runners_up_are_kept() -> None:
    asked = question([1, 3, 5])
    choice = decide(asked, records(asked, [2.0, 1.0, 1.5]), "now")
    assert choice is not None
    assert (choice["value"], choice["metric"], choice["by"], choice["mode"]) == (3, 1.0, "memory/nll", "min")
    assert [(r["value"], r["metric"]) for r in choice["runners_up"]] == [(5, 1.5), (1, 2.0)]
    assert choice["group"] == {"model": "sample-llama"} and choice["field"] == "layer" and choice["stage"] == "choose"
    assert choice["candidates"] == [point.id for point in asked.candidates] and choice["decided_at"] == "now"
    assert json.loads(json.dumps(choice)) == choice


@pytest.mark.parametrize(("dtype", "tied"), [("bfloat16", [5, 7]), ("float32", [])])
def test_runners_up_within_the_noise_of_bfloat16_are_a_tie(dtype: str, tied: list[int]) -> None:
    asked = question([1, 3, 5, 7, 4], dtype=dtype)
    choice = decide(asked, records(asked, [2.0, 1.0, 1.0012, 1.00129, 1.00131]), "now")
    assert choice is not None and choice["value"] == 3 and choice["tied"] == tied
    assert tie_text(choice["tied"]) == (
        "a tie with 5, 7: closer than the 0.0013 that bfloat16 may be off" if tied else ""
    )
    other = question(
        [1, 3], Best(field="layer", stage="choose", per=("model",), by="fever/accuracy", mode="max"), dtype=dtype
    )
    by_accuracy = decide(other, records(other, [0.5, 0.5001], "fever/accuracy"), "now")
    assert by_accuracy is not None and by_accuracy["tied"] == []


def seeded(layers: list[int], seeds: list[int]) -> ChoiceQuestion:
    points = PointMaker().expand({"model": "sample-llama"}, {"layer": tuple(layers), "seed": tuple(seeds)})
    return make_question(BEST, {"model": "sample-llama"}, tuple(points))


def test_the_mean_over_seeds_decides() -> None:
    asked = seeded([1, 3], [0, 1, 2])
    assert asked.values == (1, 3) and len(asked.candidates) == 6
    choice = decide(asked, records(asked, [1.0, 1.0, 5.5, 2.0, 2.0, 2.0]), "now")
    assert choice is not None and (choice["value"], choice["metric"]) == (3, 2.0), "layer 1 is best for two of three"
    assert choice["runners_up"][0]["metric"] == 2.5 and choice["runners_up"][0]["metrics"] == [1.0, 1.0, 5.5]
    assert choice["candidates"] == [point.id for point in asked.candidates] and len(choice["ids"]) == 3
    assert decide(asked, records(seeded([1, 3], [0, 1]), [1.0] * 4), "now") is None, "a seed has no record yet"


def test_a_value_of_which_a_seed_failed_is_left_out() -> None:
    asked = seeded([1, 3], [0, 1])
    choice = decide(asked, records(asked, [0.5, "failed", 2.0, 3.0]), "now")
    assert choice is not None and choice["value"] == 3
    assert [(out["value"], out["reason"], out["id"]) for out in choice["left_out"]] == [
        (1, "failed", asked.candidates[1].id)
    ]
    with pytest.raises(NoCandidate, match="none of 4 trials .*1: failed, 3: diverged.*--retry-failed"):
        decide(asked, records(asked, [0.5, "failed", 2.0, "diverged"]), "now")


def test_a_choice_over_several_seeds_is_another_than_one_of_a_single_seed() -> None:
    keys = [seeded([1, 3], seeds).key for seeds in ([0], [1], [0, 1], [1, 0], [0, 1, 2])]
    assert keys[0] == question([1, 3]).key == "0224718676b8a0ab" and keys[2] == keys[3] and len(set(keys)) == 4


def test_nothing_is_decided_before_every_candidate_has_a_record() -> None:
    asked = question([1, 3])
    assert decide(asked, records(question([1]), [1.0]), "now") is None


def test_failed_diverged_and_unmeasured_candidates_are_left_out_by_name() -> None:
    asked = question([0, 1, 2, 3, 4])
    choice = decide(asked, records(asked, ["failed", "diverged", None, float("nan"), 9.0]), "now")
    assert choice is not None and choice["value"] == 4 and choice["runners_up"] == []
    assert [(out["value"], out["reason"]) for out in choice["left_out"]] == [
        (0, "failed"), (1, "diverged"), (2, "no memory/nll"), (3, "no memory/nll")
    ]  # fmt: skip


def test_without_any_usable_candidate_the_group_cannot_go_on() -> None:
    asked = question([1, 3])
    with pytest.raises(NoCandidate, match=r"layer for model=sample-llama: none of 2 trials .*1: failed, 3: diverged"):
        decide(asked, records(asked, ["failed", "diverged"]), "now")


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0]), min_size=1, max_size=8), st.sampled_from(["min", "max"]))
def test_ties_go_to_the_lower_layer(metrics: list[float], mode: Any) -> None:
    asked = question(list(range(len(metrics))), Best(field="layer", stage="s", per=(), by="m/x", mode=mode))
    choice = decide(asked, records(asked, metrics, "m/x"), "now")
    assert choice is not None
    assert choice["value"] == metrics.index(min(metrics) if mode == "min" else max(metrics))


def test_the_same_question_has_the_same_key_whatever_is_tried() -> None:
    key = question([1, 3]).key
    assert question([2]).key == key and question([1, 3], stage="x", keep_memory=False).key == key
    assert question([1, 3], seed=1).key != key and question([1, 3], num_documents=3).key != key
    by_accuracy = Best(field="layer", stage="choose", per=("model",), by="fever/accuracy", mode="max")
    assert question([1, 3], by_accuracy).key != key


def chosen(asked: ChoiceQuestion, metrics: list[Any], when: str) -> dict[str, Any]:
    choice = decide(asked, records(asked, metrics), when)
    assert choice is not None
    return choice


def test_a_first_choice_is_used() -> None:
    asked = question([1, 3])
    fresh = chosen(asked, [1.0, 2.0], "now")
    assert reconcile(asked, None, fresh) == (fresh, None)


def test_a_recorded_choice_stays_and_a_difference_is_said() -> None:
    asked = question([1, 3])
    recorded, fresh = chosen(asked, [1.0, 2.0], "before"), chosen(asked, [1.0, 0.5], "now")
    assert reconcile(asked, recorded, {**recorded, "decided_at": "now"}) == (recorded, None)
    used, warning = reconcile(asked, recorded, fresh)
    assert used == recorded and warning is not None
    assert "stays 1" in warning and "it would be 3 (0.5)" in warning and "\n" not in warning


def test_a_recorded_choice_that_is_no_candidate_any_more_gives_way_aloud() -> None:
    recorded = chosen(question([1, 3]), [1.0, 2.0], "before")
    asked = question([5])
    fresh = chosen(asked, [1.5], "now")
    assert settled(question([1, 3]), {recorded["key"]: recorded}) == 1
    assert settled(asked, {recorded["key"]: recorded}) is None
    used, warning = reconcile(asked, recorded, fresh)
    assert used == fresh and warning is not None and "is not among its candidates" in warning


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("memory/nll", "min"), ("train/loss", "min"), ("fever/unparsed", "min"), ("memory/leakage_simset1", "min"),
        ("fever/accuracy", "max"), ("fever/f1_macro", "max"), ("counterfact/true_rate", "max"),
    ],
)  # fmt: skip
def test_a_metrics_name_says_which_way_is_better(metric: str, mode: str) -> None:
    assert metric_mode(metric) == mode
