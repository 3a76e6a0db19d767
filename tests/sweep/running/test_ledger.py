"""The ledger alone: stages open group by group, choices stay, failures stop a hopeless sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep.planning.overrides import apply_overrides
from sweep.planning.plan_of import costed_plan, plan_of
from sweep.planning.show import plan_text
from sweep.records.manifest import manifest_stages
from sweep.records.results_table import results_table
from sweep.records.steering import STOP, new_wish
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import CHOICES, read_sweep_file
from sweep.records.sweep_storage import SweepStorage
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.space import ALL, LARGEST, OTHERS, Best, OneOf, Sampling, Space, Stage, Uniform, checked

BEST = Best(field="layer", stage="select", per=("model",))
SPACE = checked(
    Space(
        name="staged",
        title="staged",
        axes={"model": ["sample-llama", "sample-neox"], "layer": [1, 3], "alpha": [0, 1.0], "num_documents": [2, 4]},
        fixed={"allocation": "partitioned"},
        stages=(
            Stage(name="select", axes={"model": ALL, "layer": ALL, "num_documents": LARGEST}, fixed={"alpha": 0}),
            Stage(name="most", axes={"model": ALL, "alpha": ALL, "num_documents": LARGEST}, take=BEST),
            Stage(name="fewer", axes={"model": ALL, "alpha": ALL, "num_documents": OTHERS}, take=BEST),
        ),
    )
)


def open_ledger(folder: Path, size: int = 1, **options: Any) -> tuple[Ledger, list[str]]:
    storage, said = SweepStorage(str(folder)), []
    index = storage.index()
    choices = read_sweep_file(storage, "staged", CHOICES) or {}
    plan = plan_of(SPACE, index, choices, storage, "staged", retry_failed=options.get("retry_failed", False))
    ledger = Ledger(
        plan,
        storage,
        "staged",
        index,
        choices,
        Packing(lambda point: size, 1),
        options.get("retry_failed", False),
        said.append,
    )
    return ledger, said


def take(ledger: Ledger) -> list[tuple[str, dict]]:
    """Everything that is ready now, one (pack, begun record) per trial."""
    found = []
    while (pack := ledger.next_pack()) is not None:
        found += [(pack[0].id, begun) for begun in pack[1].values()]
    return found


def give(ledger: Ledger, pack: str, begun: dict, status: str = "done", **metrics: float) -> None:
    error = {"class": "data", "message": "broken", "traceback": "..."} if status == "failed" else None
    ledger.finish(pack, {"id": begun["id"], "status": status, "metrics": metrics, "error": error})
    ledger.end_pack(pack)


def test_a_model_goes_on_while_another_still_selects(tmp_path):
    ledger, said = open_ledger(tmp_path)
    first = take(ledger)
    assert len(first) == 4 and not ledger.exhausted
    for pack, begun in first:
        if begun["model"]["name"] == "sample-llama":
            give(ledger, pack, begun, **{"memory/nll": float(begun["identity"]["layer"])})
    opened = take(ledger)
    assert {begun["model"]["name"] for _, begun in opened} == {"sample-llama"}
    assert {begun["identity"]["layer"] for _, begun in opened} == {1}
    assert len(opened) == 3  # alpha 1 at four documents, both alphas at two; alpha 0 at four is the chosen trial
    assert any("sample-llama is 1" in line for line in said)


def finish_all(ledger: Ledger, best: int) -> None:
    while ready := take(ledger):
        for pack, begun in ready:
            give(ledger, pack, begun, **{"memory/nll": abs(begun["identity"]["layer"] - best) + 1.0})


def test_a_recorded_choice_is_not_changed_by_records_that_come_later(tmp_path):
    ledger, _ = open_ledger(tmp_path)
    finish_all(ledger, best=3)
    assert ledger.exhausted and ledger.outcome()["missing"] == 0
    storage = SweepStorage(str(tmp_path))
    choices = read_sweep_file(storage, "staged", CHOICES)
    for head in storage.index().values():
        record = head.record()
        if record["identity"]["layer"] == 1:
            record["metrics"]["memory/nll"] = 0.0
            storage.write_record(record, head.folder)
    again, said = open_ledger(tmp_path)
    assert take(again) == [] and again.exhausted
    assert read_sweep_file(storage, "staged", CHOICES) == choices
    assert any("stays 3" in line for line in said)


def test_failed_trials_wait_until_they_are_to_be_retried(tmp_path):
    ledger, said = open_ledger(tmp_path)
    for pack, begun in take(ledger):
        give(ledger, pack, begun, "failed" if begun["identity"]["layer"] == 1 else "done", **{"memory/nll": 1.0})
    assert {begun["identity"]["layer"] for _, begun in take(ledger)} == {3}
    assert take(open_ledger(tmp_path)[0])
    retried, _ = open_ledger(tmp_path, retry_failed=True)
    assert {b["identity"]["layer"] for _, b in take(retried)} >= {1}


def test_the_same_failure_from_the_start_stops_the_sweep(tmp_path):
    ledger, _ = open_ledger(tmp_path)
    for pack, begun in take(ledger)[:3]:
        give(ledger, pack, begun, "failed")
    assert "failed alike" in ledger.stopping and ledger.exhausted and ledger.next_pack() is None
    assert Path(ledger.stop_file.path).is_file()


def test_one_success_keeps_it_going(tmp_path):
    ledger, _ = open_ledger(tmp_path)
    ready = take(ledger)
    give(ledger, *ready[0], **{"memory/nll": 1.0})
    for pack, begun in ready[1:]:
        give(ledger, pack, begun, "failed")
    assert not ledger.stopping


def test_a_result_that_comes_twice_is_recorded_once(tmp_path):
    ledger, _ = open_ledger(tmp_path)
    pack, begun = take(ledger)[0]
    assert ledger.finish(pack, {"id": begun["id"], "status": "done", "metrics": {"memory/nll": 1.0}})
    assert ledger.finish(pack, {"id": begun["id"], "status": "done", "metrics": {"memory/nll": 9.0}}) == []


@pytest.mark.parametrize("size", [1, 3, 50])
def test_every_trial_is_handed_out_once_whatever_the_pack_size(tmp_path, size):
    ledger, _ = open_ledger(tmp_path, size)
    seen: list[str] = []
    while ready := take(ledger):
        seen += [begun["id"] for _, begun in ready]
        for pack, begun in ready:
            ledger.finish(pack, {"id": begun["id"], "status": "done", "metrics": {"memory/nll": 1.0}})
        for pack in {pack for pack, _ in ready}:
            ledger.end_pack(pack)
    assert len(seen) == len(set(seen)) == 10


def test_the_storages_name_is_read_once_however_often_the_sweeps_plan_is_written(tmp_path, monkeypatch):
    asked, real = [], SweepStorage.storage_id
    monkeypatch.setattr(SweepStorage, "storage_id", lambda storage: asked.append(storage.uri) or real(storage))
    ledger, _ = open_ledger(tmp_path)
    finish_all(ledger, best=3)
    ledger.backlog.stages.write()
    assert len(asked) == 1
    assert read_sweep_file(SweepStorage(str(tmp_path)), "staged", MANIFEST)["storage"] == real(
        SweepStorage(str(tmp_path))
    )


def test_a_narrower_run_later_keeps_earlier_trials_in_the_sweeps_table(tmp_path):
    ledger, _ = open_ledger(tmp_path)
    finish_all(ledger, best=3)
    storage, before = SweepStorage(str(tmp_path)), dict(manifest_stages(SweepStorage(str(tmp_path)), "staged"))
    narrow = apply_overrides(SPACE, ["model=sample-neox"])
    index, choices = storage.index(), read_sweep_file(storage, "staged", CHOICES)
    plan = plan_of(narrow, index, choices, storage, "staged", until_stage="most")
    Ledger(plan, storage, "staged", index, choices, Packing(lambda point: 1, 1), False, print)
    after = dict(manifest_stages(storage, "staged"))
    assert {name: set(ids) for name, ids in after.items()} == {name: set(ids) for name, ids in before.items()}
    assert results_table(storage, "staged", storage.index()).num_rows == 10


def test_a_model_that_runs_whole_is_said_once(tmp_path):
    ledger, said = open_ledger(tmp_path)
    for pack, begun in take(ledger):
        counts = {"whole_model": 1} if begun["model"]["name"] == "sample-llama" else {}
        metrics = {"memory/nll": 1.0}
        ledger.finish(pack, {"id": begun["id"], "status": "done", "metrics": metrics, "counts": counts})
    assert [line for line in said if "whole model" in line] == [
        "sample-llama: its blocks do not run alone, so the whole model runs for every text: right, and slower"
    ]


def test_failed_trials_are_counted_apart_from_done_ones(tmp_path):
    ledger, said = open_ledger(tmp_path)
    for number, (pack, begun) in enumerate(take(ledger)):
        give(ledger, pack, begun, "failed" if number < 2 else "done", **{"memory/nll": 1.0})
    storage = SweepStorage(str(tmp_path))
    select = plan_of(SPACE, storage.index(), {}, storage, "staged").stage("select")
    assert (select.done, select.failed, select.num_to_run) == (2, 2, 0)
    again = plan_of(SPACE, storage.index(), {}, storage, "staged", retry_failed=True).stage("select")
    assert (again.done, again.failed, again.num_to_run) == (2, 0, 2)
    assert any("none of 2 trials" in line and "--retry-failed" in line for line in said)
    shown = plan_text(costed_plan(SPACE, storage, "staged"))
    assert "2 trials; they are run again with --retry-failed" in shown


def test_one_layer_is_chosen_for_all_seeds(tmp_path):
    space = apply_overrides(SPACE, ["model=sample-llama", "seed=0,1"])
    storage = SweepStorage(str(tmp_path))
    plan = plan_of(space, storage.index(), {}, storage, "staged")
    assert len(plan.questions) == 1 and len(plan.questions[0].candidates) == 4
    said: list[str] = []
    ledger = Ledger(plan, storage, "staged", storage.index(), {}, Packing(lambda point: 1, 1), False, said.append)
    nll = {(1, 0): 1.0, (1, 1): 4.0, (3, 0): 2.0, (3, 1): 2.0}
    for pack, begun in take(ledger):
        give(ledger, pack, begun, **{"memory/nll": nll[begun["identity"]["layer"], begun["identity"]["seed"]]})
    assert "chosen: layer for model=sample-llama is 3 (memory/nll 2.0000, next 1 (2.5000))" in said
    following = [begun["identity"] for _, begun in take(ledger)]
    assert {stated["layer"] for stated in following} == {3} and {stated["seed"] for stated in following} == {0, 1}


@pytest.mark.parametrize(
    ("spread", "fields", "drawn", "planned", "why"),
    [
        (OneOf((0.1, 0.2, 0.3, 0.2)), {}, 3, 3, ""),
        (OneOf((0.1, 0.2, 0.3)), {"allocation": "none"}, 1, 3, "all the values there are have been tried, or make no"),
        (Uniform(0.1, 0.9), {"allocation": "none"}, 1, 12, "40 draws in a row gave trials that are there already"),
        (OneOf(tuple(n / 100 for n in range(1, 15))), {}, 12, 12, ""),
    ],
)
def test_a_sampled_stage_ends_when_nothing_is_left_to_draw(tmp_path, spread, fields, drawn, planned, why):
    space = checked(
        Space(
            name="s", title="", axes={},
            fixed={"model": "sample-llama", "layer": 3, "allocation": "partitioned", **fields},
            stages=(Stage(name="tune", axes={}, sampling=Sampling(fields={"alpha": spread}, num_samples=12)),),
        )
    )  # fmt: skip
    storage, said = SweepStorage(str(tmp_path)), []
    plan = plan_of(space, storage.index(), {}, storage, "staged")
    assert plan.num_to_run == planned
    assert bool(plan.shortages) == (planned < 12) and all(
        "num_samples=12, but alpha" in line for line in plan.shortages
    )
    ledger = Ledger(plan, storage, "staged", storage.index(), {}, Packing(lambda point: 1, 1), False, said.append)
    while (pack := ledger.next_pack()) is not None:
        for begun in list(pack[1].values()):
            give(ledger, pack[0].id, begun, **{"train/nll": 1.0})
    assert ledger.exhausted
    counts = ledger.outcome()
    assert (counts["done"], counts["missing"]) == (drawn, 0)
    assert (why in " ".join(said)) and bool(said) == bool(why)


def test_trials_that_share_a_training_are_one_job_and_each_keeps_its_own_answers(tmp_path):
    shots = checked(
        Space(
            name="shots",
            title="shots",
            axes={"num_shots": [0, 1, 3]},
            fixed={"model": "sample-llama", "layer": 1, "num_documents": 2},
            stages=(Stage(name="all", axes={"num_shots": ALL}),),
        )
    )
    storage = SweepStorage(str(tmp_path))
    index = storage.index()
    plan = plan_of(shots, index, {}, storage, "shots")
    assert (plan.num_to_run, plan.num_to_ask) == (1, 2)
    ledger = Ledger(plan, storage, "shots", index, {}, Packing(lambda point: 8, 1), False, print)
    pack, begun = ledger.next_pack()
    assert len(pack.points) == 1 and len(begun) == 3 and ledger.next_pack() is None
    task = ledger.task(pack.points[0])
    labels = {asking.settings["num_shots"]: asking.label for asking in task.askings}
    assert labels == {0: "fever", 1: "fever:num_shots=1", 3: "fever:num_shots=3"}, "as the first of them sees it"
    found = {f"{label}/accuracy": shots / 10 for shots, label in labels.items()}
    made = ledger.finish(pack.id, {"id": task.id, "status": "done", "metrics": {"memory/nll": 1.0, **found}})
    assert {r["identity"]["num_shots"]: r["metrics"]["fever/accuracy"] for r in made} == {0: 0.0, 1: 0.1, 3: 0.3}
    ledger.end_pack(pack.id)
    again = storage.index()
    assert again.keys() == begun.keys(), "the plan says which trials there are"
    assert {r.record()["metrics"]["fever/accuracy"] for r in again.values()} == {0.0, 0.1, 0.3}


def test_a_stopped_trial_whose_pack_is_cut_off_is_recorded_though_the_sweep_stops(tmp_path):
    ledger, _ = open_ledger(tmp_path)
    (pack, begun), *rest = take(ledger)
    ledger.steer(ledger.steering.having(new_wish(STOP, trial=begun["id"])))
    ledger.stop("interrupted")
    (record,) = ledger.end_pack(pack, {"host": "here"})
    assert (record["id"], record["status"], record["host"]) == (begun["id"], "stopped", "here")
    assert rest and all(ledger.end_pack(other) == [] for other, _ in rest), "others wait for a later run"
