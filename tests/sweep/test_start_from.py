"""Stages that start from the weights of an earlier one: what waits for what, and what is trained again."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sweep.planning.expand import build_plan
from sweep.planning.overrides import apply_overrides
from sweep.planning.plan_of import plan_of, plan_sweep
from sweep.records.frame import load_results
from sweep.records.sweep_storage import SweepStorage
from sweep.report.study import load_study
from sweep.running import other_sweeps
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from sweep.running.run_sweep import run_sweep
from sweep.space import ALL, Best, OneOf, Sampling, Space, Stage, checked
from sweep.tracking.layout import run_params, run_tags
from trainables.adapters.training import PackTraining
from trainables.errors import ConfigError
from trainables.trial.identity import training_id

DOCUMENT = Stage(name="document", axes={"seed": ALL}, fixed={"content": "document"})
USE = Stage(name="use", axes={"seed": ALL}, fixed={"content": "template"}, start_from="document")
ON_TOP = Stage(
    name="on_top", axes={}, fixed={"content": "template", "method": "two_memories"}, start_from="document"
)  # fmt: skip


@pytest.fixture(scope="module")
def make_space(tiny_models: dict[str, Path], sample_data: Path) -> Callable[..., Space]:
    def make(*stages: Stage, name: str = "first", **fixed: Any) -> Space:
        return checked(
            Space(
                name=name, title=name, axes={"seed": [0, 1]},
                fixed={
                    "model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 1, "memory_dim": 16,
                    "num_documents": 3, "segment_tokens": 32, "epochs": 2, "lr": 0.01, "claims_per_page": 2, **fixed,
                },
                stages=stages or (DOCUMENT, USE, ON_TOP),
            )
        )  # fmt: skip

    return make


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the epochs trained."""
    found: Counter[str] = Counter()
    train = PackTraining.run_epoch

    def run_epoch(self: PackTraining, epoch: int) -> Any:
        found["epochs"] += 1
        return train(self, epoch)

    monkeypatch.setattr(PackTraining, "run_epoch", run_epoch)
    return found


def run(space: Space, out: Path, **options: Any) -> Any:
    return run_sweep(space, out, executor="local", tracking_uri="http://127.0.0.1:9", baseline=False, **options)


def by_stage(out: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for head in SweepStorage(str(out)).index().values():
        found.setdefault(head.record()["stage"], []).append({**head.record(), "folder": head.folder})
    return found


@pytest.fixture(scope="module")
def finished(make_space: Callable[..., Space], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("started") / "out"
    results = run(make_space(), out)
    assert results.exit_code == 0 and results.counts["done"] == 6
    return out


@pytest.fixture
def storage(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_each_trial_starts_from_the_one_of_its_seed_and_all_say_from_which(finished: Path) -> None:
    found = by_stage(finished)
    parents = {record["identity"]["seed"]: record for record in found["document"]}
    for stage in ("use", "on_top"):
        assert len(found[stage]) == 2
        for record in found[stage]:
            parent = parents[record["identity"]["seed"]]
            assert record["identity"]["start_from"] == training_id(parent["identity"])
            assert record["start"]["trial"] == parent["id"] and record["start"]["folder"] == parent["folder"]
            assert run_tags(record, "s", {})["start_from"] == parent["id"]
            method = ", method=memory" if stage == "on_top" else ""
            assert run_params(record)["start_from"] == f"content=document{method}"
            told = {**record["start"], "fields": dict(reversed(record["start"]["fields"].items()))}
            assert run_params({**record, "start": told}) == run_params(record), "before it is stored as well"
            own, before = (load_file(finished / r["folder"] / "memory.safetensors") for r in (record, parent))
            assert all(own[name].equal(before[name]) for name in own) == (stage == "on_top")
    rows = load_results(finished / "first").set_index("stage")
    assert set(rows.loc["use", "start_from"]) == {"content=document"}, "repetitions have one name"
    assert rows.loc["use", "start_from_key"].nunique() == 2 and rows.loc["document", "start_from"].isna().all()
    trials = load_study(SweepStorage(str(finished)), ["first"]).trials
    assert {t.get("start_from") for t in trials if t.stage == "use"} == {"content=document"}


def test_what_is_there_is_used_and_only_what_is_missing_is_trained(
    storage: Path, make_space: Callable[..., Space], epochs: Counter[str]
) -> None:
    again = run(make_space(), storage)
    assert (again.num_run, epochs["epochs"]) == (0, 0)
    more = Stage(name="more", axes={"weight_decay": [0.1, 0.2]}, fixed={"epochs": 3}, start_from="document")
    other = run(make_space(DOCUMENT, more, name="second"), storage)
    assert other.exit_code == 0 and other.num_run == 4, "the documents are another sweep's"
    assert epochs["epochs"] == 3, "one pack: both seeds and both decays in one pass"
    assert {record["start"]["sweep"] for record in by_stage(storage)["more"]} == {"first"}


def test_a_changed_parent_is_another_child(make_space: Callable[..., Space]) -> None:
    def ids(space: Space) -> list[set[str]]:
        return [{point.id for point in stage.points} for stage in build_plan(space).stages]

    plain, changed = ids(make_space()), ids(apply_overrides(make_space(), ["weight_decay=0.5"]))
    assert all(not one & other for one, other in zip(plain, changed, strict=True))
    parent = Stage(name="document", axes={"seed": ALL}, fixed={"content": "document", "lr": 0.02})
    changed = ids(make_space(parent, USE, ON_TOP))
    assert all(not one & other for one, other in zip(plain, changed, strict=True))
    alone = ids(make_space(DOCUMENT, Stage(name="use", axes={"seed": ALL}, fixed={"content": "template"})))
    assert not alone[1] & plain[1], "starting anew is another trial"


@pytest.mark.parametrize("lost", ["deleted", "not kept"])
def test_lost_weights_are_trained_again_and_nothing_else(
    lost: str, storage: Path, make_space: Callable[..., Space], tmp_path: Path, epochs: Counter[str]
) -> None:
    out = storage
    if lost == "deleted":
        (parent,) = [record for record in by_stage(out)["document"] if record["identity"]["seed"] == 1]
        (out / parent["folder"] / "memory.safetensors").unlink()
    else:
        out = tmp_path / "without"
        run(make_space(replace(DOCUMENT, fixed={"content": "document", "keep_memory": False})), out)
    before, epochs["epochs"] = by_stage(out), 0
    more = Stage(name="more", axes={}, fixed={"epochs": 1}, start_from="document")
    space = make_space(DOCUMENT, more, name="second")
    planned = plan_sweep(space, out, baseline=False)
    again = 1 if lost == "deleted" else 2
    assert planned.plan.num_to_run == 2 + again and sum(planned.plan.trained_again.values()) == again
    assert "others start from its weights" in str(planned)
    results = run(space, out)
    # one that is there starts its child at once, beside the other's training; both lost are trained in one pass
    assert results.exit_code == 0 and epochs["epochs"] == (2 + 1 + 1 if lost == "deleted" else 2 + 1)
    assert len(by_stage(out)["more"]) == 2
    after = {record["id"]: record["metrics"] for record in by_stage(out)["document"]}
    for record in before["document"]:
        assert after[record["id"]] == pytest.approx(record["metrics"]), "what it was asked counts as before"
    epochs["epochs"] = 0
    assert run(space, out).num_run == 0 and epochs["epochs"] == 0


def test_weights_that_would_not_be_kept_are_refused_before_anything_starts(
    finished: Path, make_space: Callable[..., Space], tmp_path: Path
) -> None:
    space = apply_overrides(make_space(), ["keep_memory=false"])
    with pytest.raises(ConfigError) as caught:
        run(space, tmp_path / "none")
    told = "stage use: starts from the weights of stage document, which are not kept (keep_memory=false)"
    assert told in str(caught.value) and "\n" not in str(caught.value) and not list(tmp_path.rglob("record.json"))
    assert plan_sweep(space, finished, baseline=False).plan.num_to_run == 0, "they are there, and nothing is to be done"


def ledger_of(space: Space, folder: Path, retry_failed: bool = False) -> tuple[Ledger, list[str]]:
    storage, said = SweepStorage(str(folder)), []
    index = storage.index()
    plan = plan_of(space, index, {}, storage, space.name, retry_failed=retry_failed)
    packing = Packing(lambda point: 8, 1)
    return Ledger(plan, storage, space.name, index, {}, packing, retry_failed, said.append), said


def work_off(ledger: Ledger, status: Callable[[dict[str, Any]], str]) -> list[tuple[str, int]]:
    """Give every trial handed out a made-up result; return stage and seed of each, in order."""
    order = []
    while (found := ledger.next_pack()) is not None:
        order += end(ledger, *found, status)
    return order


def end(
    ledger: Ledger, pack: Any, begun: dict[str, dict[str, Any]], status: Callable[[dict[str, Any]], str]
) -> list[tuple[str, int]]:
    order = []
    for point in pack.points:
        record = begun[point.id]
        order.append((record["stage"], record["identity"]["seed"]))
        task, ended = ledger.task(point), status(record)
        assert all(Path(file).is_file() for file in task.start)
        assert bool(task.start) == (record["stage"] != "document")
        if ended == "done":
            Path(task.folder).mkdir(parents=True, exist_ok=True)
            (Path(task.folder) / "memory.safetensors").write_bytes(b"weights")
        error = {"class": "data", "message": "a page is broken"} if ended == "failed" else None
        metrics = {"memory/nll": 1.0 + record["identity"]["layer"]}
        files = {"memory.safetensors": {"bytes": 7, "blake2b": "-"}} if ended == "done" else {}
        result = {"id": point.training, "status": ended, "metrics": metrics, "error": error, "files": files}
        ledger.finish(pack.id, result)
    ledger.end_pack(pack.id)
    return order


def test_a_parent_that_another_sweep_is_training_is_waited_for(
    make_space: Callable[..., Space], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(other_sweeps, "ASK_AGAIN_S", 0.0)
    storages = [SweepStorage(str(tmp_path)) for _ in range(2)]
    with storages[0].lock("first"), storages[1].lock("second"):
        ledgers, said = [], []
        for storage, space in zip(
            storages, (make_space(DOCUMENT), make_space(DOCUMENT, USE, name="second")), strict=True
        ):
            plan = plan_of(space, storage.index(), {}, storage, space.name)
            packing = Packing(lambda point: 8, 1)
            ledgers.append(Ledger(plan, storage, space.name, storage.index(), {}, packing, False, said.append))
        one, other = ledgers
        taken = [one.next_pack()]
        assert all(taken) and other.next_pack() is None and not other.exhausted
        assert [line for line in said if "sweep first is running trials that this one needs too" in line]
        for found in filter(None, taken):
            end(one, *found, lambda record: "done")
        assert work_off(other, lambda record: "done") == [("use", 0), ("use", 1)] and other.exhausted
        assert other.outcome()["done"] == 4
    assert {record["start"]["sweep"] for record in by_stage(tmp_path)["use"]} == {"first"}


@pytest.mark.parametrize("ending", ["failed", "diverged"])
def test_a_parent_without_weights_keeps_its_children_back_and_says_so(
    ending: str, make_space: Callable[..., Space], tmp_path: Path
) -> None:
    more = Stage(name="more", axes={}, fixed={"content": "template", "epochs": 1}, start_from="use")
    space = make_space(DOCUMENT, USE, more)
    ledger, said = ledger_of(space, tmp_path)
    order = work_off(ledger, lambda r: ending if (r["stage"], r["identity"]["seed"]) == ("document", 1) else "done")
    assert order == [("document", 0), ("document", 1), ("use", 0), ("more", 0)] and ledger.exhausted
    counts = ledger.outcome()
    assert (counts["done"], counts[ending], counts["missing"]) == (3, 1, 2)
    (line,) = [line for line in said if "cannot go on" in line]
    assert line.startswith("stage use cannot go on: trial") and f"has {ending}" in line
    assert ("--retry-failed" in line) == (ending == "failed")
    assert any("1 of stage use without the weights that they start from" in line for line in ledger.waiting_lines())
    plan = plan_sweep(space, tmp_path, baseline=False)
    assert plan.plan.num_to_run == 0 and sum(plan.plan.blocked.values()) == 2
    assert "blocked     1 trials cannot start: stage more" in str(plan)
    if ending == "failed":
        retried, _ = ledger_of(space, tmp_path, retry_failed=True)
        assert work_off(retried, lambda record: "done") == [("document", 1), ("use", 1), ("more", 1)]


def test_a_stage_starts_from_what_was_chosen(make_space: Callable[..., Space], tmp_path: Path) -> None:
    best = Best(field="layer", stage="document", per=("seed",))
    space = make_space(
        Stage(name="document", axes={"seed": ALL, "layer": [0, 1, 2]}, fixed={"content": "document"}),
        Stage(name="use", axes={"seed": ALL}, take=best, fixed={"content": "template"}, start_from="document"),
        Stage(name="more", axes={"weight_decay": [0.1, 0.2]}, fixed={"content": "template"}, start_from="use"),
    )
    plan = build_plan(space)
    assert [(s.name, s.num_points, s.waits_for) for s in plan.stages] == [
        ("document", 6, None), ("use", 2, "document"), ("more", 4, "document"),
    ]  # fmt: skip
    ledger, said = ledger_of(space, tmp_path)
    order = work_off(ledger, lambda record: "done")
    assert Counter(stage for stage, _ in order) == {"document": 6, "use": 2, "more": 4}
    for record in by_stage(tmp_path)["use"]:
        assert record["identity"]["layer"] == 0 and record["start"]["stage"] == "document"
    assert all(record["start"]["start"]["stage"] == "document" for record in by_stage(tmp_path)["more"])
    assert not [line for line in said if "cannot" in line] and ledger.outcome()["missing"] == 0


def test_values_come_from_the_stage_itself_or_from_there(make_space: Callable[..., Space]) -> None:
    documents = Stage(name="document", axes={"seed": [0], "depth": [0.5, 1.0], "epochs": [2, 5]})
    inherits = Stage(name="a", axes={}, fixed={"content": "template"}, start_from="document")
    stages = {
        "inherits": inherits,
        "agrees": replace(inherits, axes={"layer": [3], "epochs": [5]}),
        "crosses": replace(inherits, fixed={"content": "template", "epochs": 9}),
    }
    expected = {
        "inherits": {(1, 2, 2), (1, 5, 5), (3, 2, 2), (3, 5, 5)},
        "agrees": {(3, 5, 5)},
        "crosses": {(1, 9, 2), (1, 9, 5), (3, 9, 2), (3, 9, 5)},
    }
    for kind, stage in stages.items():
        points = build_plan(make_space(documents, stage)).stage("a").points
        assert all(point.start is not None for point in points)
        found = {(p.spec.layer, p.spec.epochs, p.start.spec.epochs) for p in points if p.start}
        assert found == expected[kind] and len(points) == len(found), kind
        assert all(p.start and p.start.spec.layer == p.spec.layer for p in points)
    grown = Stage(name="grown", axes={"num_documents": [3]}, start_from="first_pages")
    curriculum = make_space(Stage(name="first_pages", axes={}, fixed={"num_documents": 2}), grown)
    (point,) = build_plan(curriculum).stage("grown").points
    assert point.start and (point.start.spec.num_documents, point.spec.num_documents) == (2, 3)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ((USE,), "stage use: starts from 'document', which is no earlier stage"),
        ((DOCUMENT, Stage(name="a", axes={"seed": [7]}, start_from="document")), "no trial of document has seed=7"),
        (
            (DOCUMENT, Stage(name="a", axes={}, fixed={"memory_dim": 32}, start_from="document")),
            "stage a: memory_dim=32: the weights to start from are of memory_dim=16",
        ),
        (
            (DOCUMENT, Stage(name="a", axes={}, fixed={"model": "sample-neox"}, start_from="document")),
            "stage a: model=sample-neox: the weights to start from are of model=",
        ),
        (
            (replace(DOCUMENT, fixed={"method": "pretrained"}), Stage(name="a", axes={}, start_from="document")),
            "stage a: method=memory: cannot start from the weights of a pretrained, only from those of memory",
        ),
        (
            (DOCUMENT, Stage(name="a", axes={}, fixed={"start_from": "0" * 16}, start_from="document")),
            "stage a: starts from document, and states start_from besides",
        ),
        (
            (
                DOCUMENT,
                Stage(
                    name="a", axes={}, start_from="document",
                    sampling=Sampling(fields={"lr": OneOf((0.1, 0.2))}, num_samples=2),
                ),
            ),
            "stage a: starts from document, but it is sampled; both must be grids",
        ),
        (
            (
                DOCUMENT,
                Stage(name="a", axes={"lr": [0.1, 0.2], "seed": ALL}, start_from="document"),
                Stage(name="b", axes={"seed": ALL}, take=Best(field="lr", stage="a", per=("seed",))),
            ),
            "stage b: takes lr from a, which starts from document",
        ),
        (
            (Stage(name="a", axes={}, fixed={"content": "template", "method": "two_memories"}),),
            "or start from a stage that has trained the other kind",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_mistake_is_one_line(stages: tuple[Stage, ...], told: str, make_space: Callable[..., Space]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_plan(make_space(*stages))
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_a_training_can_be_named_by_its_id(
    storage: Path, make_space: Callable[..., Space], epochs: Counter[str], tmp_path: Path
) -> None:
    record = by_stage(storage)["document"][0]
    parent = training_id(record["identity"])
    named = Stage(name="named", axes={"epochs": [1]}, fixed={"start_from": parent, "content": "template"})
    results = run(make_space(named, name="second"), storage)
    assert results.exit_code == 0 and results.num_run == 1 and epochs["epochs"] == 1
    (child,) = by_stage(storage)["named"]
    assert child["start"]["trial"] == record["id"]
    without = run(make_space(named, name="second"), tmp_path / "empty")
    assert without.exit_code == 1 and without.counts["missing"] == 1
    planned = plan_sweep(make_space(named, name="second"), tmp_path / "empty", baseline=False)
    assert f"start_from={parent}: there is no such training in this storage" in str(planned)
