"""The sweep's table: one row per trial, rebuilt from records."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from sweep.records.manifest import manifest_stages
from sweep.records.store import Store
from sweep.records.table import results_table, write_results


@pytest.fixture
def manifest(store: Store):
    def write(name: str, **stages: list[str]) -> None:
        store.write_json(f"{name}/plan.json", {"stages": [{"name": n, "ids": ids} for n, ids in stages.items()]})

    return write


def test_one_row_per_trial_in_the_manifests_order_reused_ones_too(store, finished, save, manifest) -> None:
    own, shared, reused = finished(seed=1), finished(seed=2), finished("other", seed=3)
    for record in (own, shared, reused):
        save(record)
    manifest("demo", layers=[reused["id"], shared["id"]], inductive=[shared["id"], own["id"], "f" * 16])
    rows = results_table(store, "demo", store.index()).to_pylist()
    assert [(r["id"], r["sweep"], r["stage"], r["stages"]) for r in rows] == [
        (reused["id"], "other", "layers", "layers"),
        (shared["id"], "demo", "layers", "layers+inductive"),
        (own["id"], "demo", "inductive", "inductive"),
    ]


def test_a_row_holds_identity_metrics_counts_and_timings(store, finished, save, manifest) -> None:
    error = {"class": "Diverged", "message": "loss is NaN", "traceback": ""}
    done, bad = finished(), finished(seed=1, result={"status": "diverged", "metrics": {}, "error": error})
    save(done)
    save(bad)
    manifest("demo", inductive=[done["id"], bad["id"]])
    row, other = results_table(store, "demo", store.index()).to_pylist()
    assert (row["model"], row["layer"], row["depth"], row["groups"]) == ("llama2-7b", 23, 0.75, 1000)
    assert (row["allocation"], row["alpha"], row["norm_and_gate"]) == ("simset2", 0.2, True)
    assert (row["probes"], row["num_clusters"]) == (["fever"], None)
    assert (row["memory/nll"], row["count/n_top"], row["time/train_s"], row["flops"]) == (
        1.25,
        10,
        30.0,
        1e12,
    )
    assert (row["data"], row["data_key"]) == ("sample", "sample@v1") and "meta-llama" in row["model_key"]
    assert (other["status"], other["memory/nll"], other["error"]) == (
        "diverged",
        None,
        "Diverged: loss is NaN",
    )


def test_the_file_reads_back_and_is_the_same_when_built_again(store, finished, save, manifest) -> None:
    record = finished()
    save(record)
    manifest("demo", inductive=[record["id"]])
    path = write_results(store, "demo", store.index())
    first = store.read(path)
    assert path == "demo/results.parquet" and write_results(store, "demo", store.index()) and store.read(path) == first
    assert pq.read_table(io.BytesIO(first)).equals(results_table(store, "demo", store.index()))


def test_without_a_manifest_the_sweeps_own_records_are_its_trials(store, finished, save) -> None:
    record = finished()
    save(record)
    save(finished("other", seed=1))
    assert [row["stage"] for row in results_table(store, "demo", store.index()).to_pylist()] == ["inductive"]
    assert manifest_stages(store, "demo") == []


def test_stages_without_known_trials_and_empty_sweeps_give_empty_tables(store, manifest) -> None:
    store.write_json("demo/plan.json", {"stages": [{"name": "layers", "ids": []}, {"name": "late", "ids": None}]})
    assert manifest_stages(store, "demo") == [("layers", []), ("late", [])]
    table = results_table(store, "demo", store.index())
    assert table.num_rows == 0 and "alpha" in table.column_names
