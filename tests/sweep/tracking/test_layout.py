"""How a trial looks in MLflow, and the live feed into a real SQLite store."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sweep.records.sweep_storage import SweepStorage
from sweep.tracking import live_feed
from sweep.tracking.address import resolve_tracking
from sweep.tracking.client import Runs, TrackingError
from sweep.tracking.layout import (
    COLOURS,
    complete_mark,
    data_set,
    epoch_values,
    metric_values,
    not_finite,
    run_params,
    run_tags,
    totals,
)
from sweep.tracking.live_feed import LiveFeed
from trainables.node.addresses import shown


def test_params_are_named_as_in_the_notes_and_are_plain_numbers(begun) -> None:
    params = run_params(begun(num_clusters=50, norm_and_gate=False))
    expected = {
        "selected_docs": "1000",
        "num_clusters": "50",
        "hook_layer": "23",
        "lm_size": "llama2-7b",
        "memory_allocation": "simset2",
        "mem_seed": "0",
        "alpha": "0.2",
        "memory_dim": "4096",
        "epochs": "3",
        "lr": "0.001",
        "norm_and_gate": "0",
        "shots": "1",
        "hook_depth": "0.75",
        "data": "sample",
    }
    assert expected.items() <= params.items() and len(params) < 40 and "" not in params.values()


def test_a_trial_states_no_param_that_it_has_no_use_for(begun) -> None:
    asked = run_params(begun(probes=("fever", "counterfact")))
    assert asked.keys() - run_params(begun()).keys() == {
        "counterfact_records", "num_answers", "answer_tokens", "temperature"
    }  # fmt: skip
    pretrained = run_params(begun(method="pretrained"))
    assert not pretrained.keys() & {"alpha", "memory_allocation", "hook_layer", "hook_depth", "lr", "memory_dim"}
    assert {"lm_size": "llama2-7b", "method": "pretrained", "selected_docs": "1000"}.items() <= pretrained.items()
    assert run_params(begun(alpha=0.0, allocation="none"))["alpha"] == "0"


def test_tags_tell_the_sweep_the_stage_and_where_it_ran(finished) -> None:
    error = {"class": "Bug", "message": "m" * 9000, "traceback": ""}
    record = finished(result={"status": "failed", "error": error, "metrics": {"memory/nll": float("nan")}})
    tags = run_tags(record, "storage-1", {"demo": "layers", "second": "inductive"})
    expected = {
        "kind": "trial",
        "storage": "storage-1",
        "sweep": "demo",
        "trial_id": record["id"],
        "pack": "pack-1",
        "status": "failed",
        "in_demo": "layers",
        "in_second": "inductive",
        "not_finite": "memory/nll",
    }
    assert expected.items() <= tags.items() and tags["host"] and tags["code_version"]
    assert tags["error"].startswith("Bug: mmm") and max(map(len, tags.values())) <= 5000


def test_curves_go_by_epoch_and_finals_to_one_fixed_step(finished) -> None:
    curves = {"train/loss": [[1, 3.0], [2, None]], "memory/nll": [[1, 2.0], [3, 1.5]]}
    record = finished(result={"metrics": {"memory/nll": 1.25, "fever/f1_macro": 0.5}, "curves": curves})
    points = {(p.name, p.step): p.value for p in metric_values(record)}
    assert points == {
        ("train/loss", 1): 3.0,
        ("memory/nll", 1): 2.0,
        ("memory/nll", 3): 1.25,
        ("fever/f1_macro", 0): 0.5,
        ("cost/train_s", 0): 30.0,
        ("cost/total_s", 0): 30.0,
        ("cost/flops", 0): 1e12,
    }
    assert not_finite(record) == {"train/loss"}


def test_a_metric_with_a_single_value_is_a_bar_and_equal_ones_are_left_out(finished) -> None:
    curves = {"fever/accuracy": [[3, 0.5]], "fever/f1_micro": [[3, 0.5]], "train/loss": [[1, 3.0]]}
    record = finished(result={"metrics": {"fever/accuracy": 0.5, "fever/f1_micro": 0.5}, "curves": curves})
    steps = {value.name: value.step for value in metric_values(record)}
    assert steps["fever/accuracy"] == steps["train/loss"] == 0 and "fever/f1_micro" not in steps


def test_colour_source_and_commit_are_where_mlflow_looks_for_them(begun, finished) -> None:
    record = begun(allocation="simset2")
    record["versions"]["commit"] = "0123456789ab-dirty"
    tags = run_tags(record, "s", {})
    assert tags["mlflow.runColor"] == COLOURS["simset2"] and tags["mlflow.source.name"] == "sweep.run demo"
    assert tags["mlflow.source.git.commit"] == "0123456789ab" and tags["mlflow.source.type"] == "LOCAL"


def test_the_data_set_is_named_and_marked_by_its_content(finished) -> None:
    record = finished()
    record["data"] = {"given": "/lab/fever/,/lab/own", "key": "fever+own@" + "f" * 64}
    data = data_set(record)
    assert (data.name, data.digest) == ("fever+own", "f" * 36) and '"n_trunc": 9' in data.profile


def test_epoch_values_that_are_not_finite_are_left_out() -> None:
    points = epoch_values(2, {"train/loss": float("nan"), "train/nll": float("inf"), "train/leak": 0.5}, 7)
    assert [(p.name, p.step, p.value, p.time_ms) for p in points] == [("train/leak", 2, 0.5, 7)]


def test_the_option_beats_the_environment_beats_the_default(storage, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    default = resolve_tracking(storage)
    assert default.uri == f"sqlite:///{storage.uri}/mlflow.db" and default.experiment == "memory-sweep"
    assert default.artifacts == Path(storage.uri, "mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000")
    served = resolve_tracking(storage, experiment="mine")
    assert (served.uri, served.experiment, served.artifacts) == ("http://lab:5000", "mine", None)
    assert resolve_tracking(storage, "http://x:1").uri == "http://x:1"


def test_beside_an_object_store_the_database_is_in_the_working_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking(SweepStorage("memory://bucket/out")).uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_passwords_are_not_shown() -> None:
    assert shown("https://me:secret@lab:5000/mlflow") == "https://…@lab:5000/mlflow"
    assert shown("cannot reach postgresql://u:p%40ss@db/x at all") == "cannot reach postgresql://…@db/x at all"
    assert shown("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_totals_count_trials_and_hours(finished) -> None:
    sums = totals([finished(), finished(seed=1, result={"status": "diverged"})])
    assert (sums["sweep/done"], sums["sweep/diverged"], sums["sweep/trial_hours"]) == (1, 1, 60 / 3600)


def test_the_feed_sends_every_epoch_once_and_completes_the_run(storage, tracking, begun, finished, wait_until) -> None:
    record = finished()
    feed = LiveFeed(storage, "demo", tracking, interval_s=0.05)
    feed.start_trial(begun())
    for _ in range(2):  # a trial that goes on from its checkpoint repeats epochs
        for epoch in (1, 2):
            at = {name: dict(map(tuple, curve))[epoch] for name, curve in record["curves"].items()}
            feed.epoch(record["id"], epoch, at)
        time.sleep(0.2)
    wait_until(lambda: bool(feed._trials) and all(live.run for live in feed._trials.values()))
    feed.finish(record)
    report = feed.close(60)
    assert (report.complete, report.left, report.trouble) == (1, 0, "")
    runs = Runs(tracking, storage.storage_id())
    (head,) = runs.find("demo")
    assert head.complete == complete_mark(record) and not head.running
    run = runs._client.get_run(head.run)
    assert run.info.status == "FINISHED" and run.data.params == run_params(record)
    assert run.data.metrics["memory/nll"] == 1.25 and run.data.tags["in_demo"] == "inductive"
    history = runs._client.get_metric_history(head.run, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(1, 3.0), (2, 2.0), (3, 1.5)]


def test_a_single_value_waits_until_the_record_says_whether_it_is_a_curve(
    storage, tracking, begun, finished, wait_until
) -> None:
    record = finished(result={"curves": {"train/loss": [[1, 3.0], [2, 2.0]], "fever/accuracy": [[3, 0.5]]}})
    feed, runs = LiveFeed(storage, "demo", tracking, interval_s=0.05), Runs(tracking, storage.storage_id())
    feed.start_trial(begun())
    for epoch, metrics in ((1, {"train/loss": 3.0}), (2, {"train/loss": 2.0}), (3, {"fever/accuracy": 0.5})):
        feed.epoch(record["id"], epoch, metrics)
    wait_until(lambda: any(runs._client.get_run(head.run).data.metrics for head in runs.find()))
    (head,) = runs.find()
    assert set(runs._client.get_run(head.run).data.metrics) == {"train/loss"}
    feed.finish(record)
    assert feed.close(60).complete == 1
    history = runs._client.get_metric_history(head.run, "fever/accuracy")
    assert [(m.step, m.value) for m in history] == [(0, 0.5)]
    (data,) = runs._client.get_run(head.run).inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("sample", "v1")


def test_unfinished_trials_end_as_killed_and_begin_anew_next_time(
    storage, tracking, begun, finished, wait_until
) -> None:
    feed, runs = LiveFeed(storage, "demo", tracking, interval_s=0.05), Runs(tracking, storage.storage_id())
    feed.start_trial(begun())
    wait_until(lambda: bool(runs.find()))
    assert feed.close(60).left == 1
    (first,) = runs.find()
    assert not first.running and not first.complete
    feed = LiveFeed(storage, "demo", tracking, interval_s=0.05)
    feed.start_trial(begun())
    feed.finish(finished())
    wait_until(lambda: not feed._trials and feed._queue.empty())
    assert feed.close(60).complete == 1
    (second,) = runs.find()
    assert second.run != first.run and second.complete


def test_at_the_end_no_further_run_is_opened(storage, tracking, begun, finished, monkeypatch, wait_until) -> None:
    feed, runs = LiveFeed(storage, "demo", tracking, interval_s=0.05), Runs(tracking, storage.storage_id())
    feed.start_trial(begun())
    wait_until(lambda: bool(runs.find()))
    send = feed._send
    monkeypatch.setattr(feed, "_send", lambda: send() if feed._closing.is_set() else None)
    time.sleep(0.2)  # for a round that has begun
    feed.finish(finished())
    feed.start_trial(begun(seed=1))
    feed.finish(finished(seed=1))
    feed.start_trial(begun(seed=2))
    report = feed.close(60)
    (head,) = runs.find()
    assert (report.complete, report.left) == (1, 2) and head.complete == complete_mark(finished())


def test_a_trial_that_is_over_before_it_has_a_run_gets_a_whole_one(
    storage, tracking, begun, finished, monkeypatch, wait_until
) -> None:
    feed, runs = LiveFeed(storage, "demo", tracking, interval_s=0.5), Runs(tracking, storage.storage_id())
    monkeypatch.setattr(Runs, "create", lambda *args: pytest.fail("it is not opened first"))
    feed.start_trial(begun())
    feed.finish(finished())
    wait_until(lambda: not feed._trials and feed._complete == 1)
    (head,) = runs.find()
    assert head.complete == complete_mark(finished()) and not head.running and feed._held == 0
    assert feed.close(60).trouble == ""


def test_a_run_left_running_by_a_killed_driver_is_ended_by_the_next(storage, tracking, begun, wait_until) -> None:
    runs = Runs(tracking, storage.storage_id())
    remnant = runs.create(begun(), {})
    elsewhere = Runs(tracking, "another-storage").create(begun(), {})
    feed = LiveFeed(storage, "demo", tracking, interval_s=0.05)
    feed.start_trial(begun(seed=1))
    wait_until(lambda: any(live.run for live in feed._trials.values()))
    feed.close(60)
    status = {run: runs._client.get_run(run).info.status for run in (remnant, elsewhere)}
    assert status == {remnant: "KILLED", elsewhere: "RUNNING"}


def test_a_record_at_odds_with_what_was_sent_is_left_to_publish(storage, tracking, begun, finished, wait_until) -> None:
    feed, runs = LiveFeed(storage, "demo", tracking, interval_s=0.05), Runs(tracking, storage.storage_id())
    feed.start_trial(begun())
    feed.epoch(begun()["id"], 1, {"train/loss": 2.9})
    wait_until(lambda: bool(runs.find()))
    feed.finish(finished())
    assert feed.close(60).left == 1
    (head,) = runs.find()
    assert not head.complete and not head.running


def test_too_many_values_for_the_memory_are_left_to_publish(storage, begun, monkeypatch) -> None:
    feed = LiveFeed(storage, "demo", resolve_tracking(storage, "http://127.0.0.1:9"), interval_s=0.05, capacity=20)
    feed.start_trial(begun())
    for epoch in range(200):
        feed.epoch(begun()["id"], epoch, {"a": 1.0, "b": 2.0})
    report = feed.close(30)
    assert report.complete == 0 and report.left >= 1 and feed._held <= 20


def test_with_the_server_away_few_finished_trials_are_held(storage, begun, finished, monkeypatch, wait_until) -> None:
    monkeypatch.setattr(live_feed, "MOST_WAITING", 5)
    feed = LiveFeed(storage, "demo", resolve_tracking(storage, "http://127.0.0.1:9"), interval_s=0.05)
    for seed in range(30):
        feed.start_trial(begun(seed=seed))
        feed.epoch(begun(seed=seed)["id"], 1, {"train/loss": 3.0})
        feed.finish(finished(seed=seed))
    wait_until(lambda: feed._queue.empty() and len(feed._trials) == 5)
    assert len(feed._left) == 25
    feed.start_trial(begun(seed=29))  # one of those that are left already
    assert feed._waiting == 5 and feed.close(5).left == 30


def test_what_troubles_the_feed_is_told_without_passwords(storage, begun, wait_until) -> None:
    feed = LiveFeed(storage, "demo", resolve_tracking(storage, "http://me:secret@127.0.0.1:9"), interval_s=0.05)
    feed.start_trial(begun())
    wait_until(lambda: bool(feed.trouble))
    assert "secret" not in feed.close(5).trouble


def test_a_deleted_experiment_is_told_in_one_line(tracking) -> None:
    runs = Runs(tracking, "s")
    runs._client.delete_experiment(runs.experiment_id)
    with pytest.raises(TrackingError, match="experiment='memory-sweep'"):
        Runs(tracking, "s")
