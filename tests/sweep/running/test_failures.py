"""What follows from a failure, on the policy and the ledger alone: no process runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.running.failures import ALIKE, BUDGET, FailurePolicy
from sweep.running.ledger import Ledger
from tests.rows import OpenRow
from tests.sweep.running.test_ledger import open_ledger, take
from trainables.errors import Failure


def failure(kind: str = "device", message: str = "CUDA error: an illegal memory access", **where: str) -> Failure:
    return Failure(kind, message, **{"host": "here", "node": "n1", **where})


@pytest.mark.parametrize("kind", ["device", "process", "io", "bug"])
def test_a_trial_is_tried_as_often_as_its_budget_says(kind: str) -> None:
    policy = FailurePolicy()
    verdicts = [policy.judge(["a"], failure(kind)) for _ in range(BUDGET[kind])]
    assert verdicts[:-1] == ["again"] * (BUDGET[kind] - 1)
    assert verdicts[-1] == ("result" if kind == "bug" else "later")


def test_deaths_with_progress_in_between_do_not_count() -> None:
    policy = FailurePolicy()
    for first in (1, 30, 58, 76, 94, 111, 130, 150):
        policy.epoch("a", first)
        policy.epoch("a", first + 5)
        assert policy.judge(["a"], failure("process", "its process died")) == "again"
    verdicts = []
    for _ in range(BUDGET["process"] - 1):  # the last of those before was the first that counts
        policy.epoch("a", 150)  # from the same checkpoint every time
        verdicts.append(policy.judge(["a"], failure("process", "its process died")))
    assert verdicts[-1] == "later" and set(verdicts[:-1]) == {"again"} and not policy.stop


def test_a_lost_node_is_never_counted() -> None:
    policy = FailurePolicy()
    assert {policy.judge(["a"], failure("preemption", "its node went away")) for _ in range(30)} == {"again"}
    assert not policy.stop and not policy.left_out


def test_packs_that_fail_alike_in_a_row_stop_the_sweep_at_any_time() -> None:
    policy = FailurePolicy()
    for trial in range(20):
        policy.succeed("n1", f"GPU {trial % 4}")
    for number in range(ALIKE):
        assert not policy.stop
        policy.judge([f"t{number}"], failure(message=f"CUDA error at 0x{number:x}f, step {number}"))
    assert "the last 3 packs all failed alike" in policy.stop and "CUDA error" in policy.stop


def test_a_success_or_another_cause_in_between_ends_the_row() -> None:
    policy = FailurePolicy()
    for number in range(12):
        policy.judge([f"t{number}"], failure(message="one" if number % 2 else "other"))
    for number in range(12):
        policy.judge([f"s{number}"], failure())
        policy.succeed("n1", "cpu")
    assert not policy.stop


def test_one_bad_trial_that_is_tried_in_smaller_and_smaller_packs_does_not_stop_the_sweep() -> None:
    policy = FailurePolicy()
    trials = list("abcdefgh")
    verdicts = []
    while len(trials) > 1 or not verdicts or verdicts[-1] != "result":
        verdicts.append(policy.judge(trials, failure("bug", "ValueError: of trial a")))
        if verdicts[-1] == "halves":
            trials = trials[: len(trials) // 2]
    assert verdicts == ["again", "halves", "halves", "halves", "result"] and not policy.stop


def test_a_node_that_only_fails_is_left_out_and_named_while_others_work() -> None:
    policy = FailurePolicy()
    for number in range(ALIKE):
        policy.judge([f"t{number}"], failure(host="broken", node="n2"), elsewhere=True)
    assert set(policy.left_out) == {"n2"} and "node broken is left out" in policy.left_out["n2"] and not policy.stop
    assert policy.avoid(["fresh"]) == {"n2"}
    for number in range(ALIKE):
        policy.judge([f"u{number}"], failure(), elsewhere=False)
    assert policy.stop and set(policy.left_out) == {"n2"}


def test_a_broken_gpu_among_good_ones_ends_the_sweep_by_its_name() -> None:
    policy = FailurePolicy()
    for number in range(ALIKE):
        policy.judge([f"t{number}"], failure(device="GPU 3"))
        policy.succeed("n1", "GPU 1")
    assert "GPU 3 here" in policy.stop


def test_a_trial_is_tried_on_another_node() -> None:
    policy = FailurePolicy()
    policy.judge(["a", "b"], failure(node="n2"), elsewhere=True)
    assert policy.avoid(["b"]) == {"n2"} and policy.avoid(["c"]) == frozenset()


def test_results_of_trials_stop_a_sweep_only_while_nothing_else_came() -> None:
    policy = FailurePolicy()
    for number in range(ALIKE):
        policy.note_result(f"p{number}", failure("data", "model.safetensors: missing"))
    assert "the first 3 packs all failed alike" in policy.stop
    policy = FailurePolicy()
    policy.succeed("n1", "cpu")
    for number in range(10):
        policy.note_result(f"p{number}", failure("data", "model.safetensors: missing"))
    assert not policy.stop


@pytest.mark.parametrize(("working", "stops"), [("GPU 1", True), ("GPU 3", False)])
def test_the_ledger_tells_the_policy_which_device_made_a_result(tmp_path: Path, working: str, stops: bool) -> None:
    ledger, _ = open_ledger(tmp_path)
    (first, _), (second, _), (third, _), (good, begun) = take(ledger)
    for pack in (first, second):
        ledger.fail_pack(pack, failure(device="GPU 3"))
    told = {"node": "n1", "device": working, "metrics": {"memory/nll": 1.0}}
    ledger.finish(good, {"id": begun["id"], "status": "done", **told})
    ledger.fail_pack(third, failure(device="GPU 3"))
    assert ("GPU 3 here: 3 packs in a row" in ledger.stopping) == stops


def records(ledger: Ledger) -> dict[str, Any]:
    return {head.id: head.record() for head in ledger.storage.index().values()}


def test_a_failed_pack_is_queued_again_and_nothing_is_recorded(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path, size=2)
    pack, _ = take(ledger)[0]
    assert ledger.fail_pack(pack, failure()) == [] and not ledger.exhausted
    ((again, _),) = {(pack, None) for pack, _ in take(ledger)}
    assert again == pack and not records(ledger)


def test_a_pack_that_ran_out_of_memory_comes_back_in_halves(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path, size=4)
    give(ledger, 3, "data")
    packs = [pack for pack, _ in take(ledger)]
    (pair, *_) = [pack for pack in packs if packs.count(pack) == 2]
    killed = failure("memory", "out of memory: its process was ended by the kernel")
    assert ledger.fail_pack(pair, killed) == []
    halves = [pack for pack, _ in take(ledger)]
    assert len(set(halves)) == 2 and pair not in halves
    assert ledger.fail_pack(halves[0], killed) == [], "once more, by itself"
    assert [pack for pack, _ in take(ledger)] == [halves[0]]
    (record,) = ledger.fail_pack(halves[0], killed)
    assert record["error"]["class"] == "memory" and "out of memory" in record["error"]["message"]


def test_what_is_given_up_for_now_is_missing_and_the_next_run_tries_it_without_retry_failed(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ready = take(ledger)
    for pack, begun in ready[1:]:
        ledger.finish(pack, {"id": begun["id"], "status": "done", "metrics": {"memory/nll": 1.0}})
        ledger.end_pack(pack)
    pack, begun = ready[0]
    for _ in range(BUDGET["process"]):
        ledger.fail_pack(pack, failure("process", "its process died"))
        take(ledger)
    assert begun["id"] not in records(ledger) and ledger.outcome()["missing"] >= 1 and ledger.outcome()["failed"] == 0
    assert ledger.waiting_lines() == ["1 without a result (process: its process died); the same command tries again"]
    assert begun["id"] in {again["id"] for _, again in take(open_ledger(tmp_path)[0])}


def give(ledger: Ledger, layer_of_failed: int, kind: str) -> None:
    """Finish the first stage: one layer fails, the other is 1.0."""
    ready = take(ledger)
    for pack, begun in ready:
        failed = begun["identity"]["layer"] == layer_of_failed
        error = {"class": kind, "message": "went wrong", "traceback": ""}
        result = {"status": "failed", "error": error} if failed else {"status": "done", "metrics": {"memory/nll": 1.0}}
        ledger.finish(pack, {"id": begun["id"], **result})
    for pack in dict.fromkeys(pack for pack, _ in ready):
        ledger.end_pack(pack)


@pytest.mark.parametrize("kind", ["bug", "preemption", "io"])
def test_no_choice_while_a_candidate_lacks_a_result_for_no_reason_of_its_own(
    tmp_path: Path, kind: str, row: OpenRow
) -> None:
    row(f"a candidate fails for no reason of its own ({kind})", 1, "nothing is chosen, and that is said")
    ledger, said = open_ledger(tmp_path)
    give(ledger, 3, kind)
    assert take(ledger) == [] and ledger.exhausted and not ledger.backlog.choosing.choices
    assert any("not decided while candidates" in line and f"3: failed ({kind}: went wrong)" in line for line in said)
    assert take(open_ledger(tmp_path)[0]) == []


def test_failed_candidates_are_named_and_a_retried_one_reopens_the_choice(tmp_path: Path, row: OpenRow) -> None:
    row("a candidate that failed is brought back", 1, "the choice named it and is made anew")
    ledger, said = open_ledger(tmp_path)
    give(ledger, 3, "memory")
    chosen = [line for line in said if line.startswith("chosen:")]
    assert len(chosen) == 2 and all("left out: 3, failed (memory: went wrong)" in line for line in chosen)
    assert {choice["value"] for choice in ledger.backlog.choosing.choices.values()} == {1}

    again, said = open_ledger(tmp_path, retry_failed=True)
    retried = take(again)
    assert {begun["identity"]["layer"] for _, begun in retried} == {3}, "nothing goes on with the old choice"
    for pack, begun in retried:
        again.finish(pack, {"id": begun["id"], "status": "done", "metrics": {"memory/nll": 0.5}})
        again.end_pack(pack)
    assert {begun["identity"]["layer"] for _, begun in take(again)} == {3}
    choices = read_sweep_file(SweepStorage(str(tmp_path)), "staged", CHOICES)
    assert {(choice["value"], choice["before"]["value"]) for choice in choices.values()} == {(3, 1)}
    assert any("decided anew, 3 had no result and has one now; it was 1" in line for line in said)


def test_checkpoints_of_failed_trials_stay_and_those_of_recorded_ones_go(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ready = take(ledger)
    for number, (pack, begun) in enumerate(ready):
        ledger.storage.write(ledger.backlog.records.checkpoint(begun["id"]), b"weights")
        error = {"class": "memory", "message": "no room", "traceback": ""} if number == 0 else None
        status = "failed" if number == 0 else "done"
        ledger.finish(pack, {"id": begun["id"], "status": status, "metrics": {"memory/nll": 1.0}, "error": error})
    ids = [begun["id"] for _, begun in ready]
    kept = ledger.storage.files("staged/checkpoints")
    assert kept == [f"{ids[0]}.safetensors"]
    ledger.storage.write(ledger.backlog.records.checkpoint(ids[1]), b"written anew by a process that was stopped early")
    ledger.storage.write("staged/stop", b"interrupted")
    open_ledger(tmp_path)
    assert ledger.storage.files("staged/checkpoints") == kept and not ledger.storage.exists("staged/stop")
