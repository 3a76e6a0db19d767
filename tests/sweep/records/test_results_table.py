"""The sweep's table: one row per trial, rebuilt from records."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest

from sweep.records.manifest import manifest_stages
from sweep.records.results_table import results_table, write_results
from sweep.records.sweep_storage import SweepStorage


@pytest.fixture
def manifest(storage: SweepStorage):
    def write(name: str, **stages: list[str]) -> None:
        storage.write_json(f"{name}/plan.json", {"stages": [{"name": n, "ids": ids} for n, ids in stages.items()]})

    return write


def test_one_row_per_trial_in_the_manifests_order_reused_ones_too(storage, finished, save, manifest) -> None:
    own, shared, reused = finished(seed=1), finished(seed=2), finished("other", seed=3)
    for record in (own, shared, reused):
        save(record)
    manifest("demo", layers=[reused["id"], shared["id"]], inductive=[shared["id"], own["id"], "f" * 16])
    rows = results_table(storage, "demo", storage.index()).to_pylist()
    assert [(r["id"], r["sweep"], r["stage"], r["stages"]) for r in rows] == [
        (reused["id"], "other", "layers", "layers"),
        (shared["id"], "demo", "layers", "layers+inductive"),
        (own["id"], "demo", "inductive", "inductive"),
    ]


def test_a_row_holds_identity_metrics_counts_and_timings(storage, finished, save, manifest) -> None:
    error = {"class": "Diverged", "message": "loss is NaN", "traceback": ""}
    done, bad = finished(), finished(seed=1, result={"status": "diverged", "metrics": {}, "error": error})
    save(done)
    save(bad)
    manifest("demo", inductive=[done["id"], bad["id"]])
    row, other = results_table(storage, "demo", storage.index()).to_pylist()
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


def test_the_file_reads_back_and_is_the_same_when_built_again(storage, finished, save, manifest) -> None:
    record = finished()
    save(record)
    manifest("demo", inductive=[record["id"]])
    path = write_results(storage, "demo", storage.index())
    first = storage.read(path)
    assert (
        path == "demo/results.parquet"
        and write_results(storage, "demo", storage.index())
        and storage.read(path) == first
    )
    assert pq.read_table(io.BytesIO(first)).equals(results_table(storage, "demo", storage.index()))


def test_without_a_manifest_the_sweeps_own_records_are_its_trials(storage, finished, save) -> None:
    record = finished()
    save(record)
    save(finished("other", seed=1))
    assert [row["stage"] for row in results_table(storage, "demo", storage.index()).to_pylist()] == ["inductive"]
    assert manifest_stages(storage, "demo") == []


def test_stages_without_known_trials_and_empty_sweeps_give_empty_tables(storage, manifest) -> None:
    storage.write_json("demo/plan.json", {"stages": [{"name": "layers", "ids": []}, {"name": "late", "ids": None}]})
    assert manifest_stages(storage, "demo") == [("layers", []), ("late", [])]
    table = results_table(storage, "demo", storage.index())
    assert table.num_rows == 0 and "alpha" in table.column_names
