"""MLflow made from records: nothing missing, nothing twice."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sweep.tracking.publish
from sweep.publish import app
from sweep.report.findings import publish_compared
from sweep.tracking.client import Runs, TrackingError
from sweep.tracking.describe import GAP
from sweep.tracking.layout import complete_mark, metric_values, run_params, whole_run
from sweep.tracking.live_feed import LiveFeed
from sweep.tracking.publish import Extras
from sweep.tracking.publish import publish as bring_up
from sweep.tracking.run_content import ChangedAnswer, ComparisonResult
from sweep.tracking.saved_views import TAG, decode

NOTE = "mlflow.note.content"


@pytest.fixture
def sweep_of_three(storage, finished, save):
    """Three trials of `demo`: one done, one diverged, one failed; with plan and choices."""
    error = {"class": "Bug", "message": "boom", "traceback": "..."}
    records = [
        finished(seed=0),
        finished(seed=1, result={"status": "diverged", "metrics": {"memory/nll": float("nan")}}),
        finished(seed=2, result={"status": "failed", "metrics": {}, "curves": {}, "error": error}),
    ]
    for record in records:
        save(record)
    stages = [{"name": "inductive", "ids": [record["id"] for record in records]}]
    storage.write_json("demo/plan.json", {"space": "demo", "stages": stages})
    storage.write_json("demo/choices.json", {"layer": 23})
    return records


@pytest.fixture
def runs(storage, tracking) -> Runs:
    return Runs(tracking, storage.storage_id())


def everything(runs: Runs) -> dict:
    """All that MLflow holds, metric histories included."""
    held = {}
    for head in runs.find():
        run = runs._client.get_run(head.run)
        history = {
            name: sorted((m.step, m.value, m.timestamp) for m in runs._client.get_metric_history(head.run, name))
            for name in run.data.metrics
        }
        held[head.run] = (run.info.status, run.info.run_name, run.data.params, run.data.tags, history)
    return held


def test_every_record_gets_one_whole_run_and_the_sweep_another(storage, tracking, runs, sweep_of_three) -> None:
    counts = publish_compared(storage, ["demo"], tracking)
    assert counts["created"] == 4 and sum(counts.values()) == 4
    heads = {head.trial: head for head in runs.find()}
    assert set(heads) == {"", *(record["id"] for record in sweep_of_three)}
    for record, status in zip(sweep_of_three, ("FINISHED", "FINISHED", "FAILED"), strict=True):
        run = runs._client.get_run(heads[record["id"]].run)
        assert (run.info.status, run.data.tags["status"]) == (status, record["status"])
        assert run.data.params == run_params(record)
        assert run.info.start_time == 1767323045000 and run.info.end_time == 1767323105000
        points = Counter((p.name, p.step, p.value) for p in metric_values(record))
        stored = Counter(
            (name, m.step, m.value)
            for name in run.data.metrics
            for m in runs._client.get_metric_history(run.info.run_id, name)
        )
        assert stored == points
    own = runs._client.get_run(heads[""].run)
    assert own.info.run_name == "sweep demo" and own.data.metrics["sweep/failed"] == 1
    assert own.data.params["space"] == "demo" and "| inductive | 3 | 1 | 0 | 1 | 1 | 0 |" in own.data.tags[
        NOTE
    ].replace(GAP, "")
    files = {file.path for file in runs._client.list_artifacts(own.info.run_id)}
    assert files == {"plan.json", "choices.json", "results.parquet", "figures"}
    for record in sweep_of_three:
        note = heads[record["id"]].tags[NOTE]
        assert f"runs/{own.info.run_id})" in note and record["id"] in note
    assert "Bug: boom" in heads[sweep_of_three[2]["id"]].tags[NOTE]
    assert Path(storage.uri, "mlartifacts").is_dir()


def test_a_repeat_changes_nothing(storage, tracking, runs, sweep_of_three) -> None:
    publish_compared(storage, ["demo"], tracking)
    before = everything(runs)
    counts = publish_compared(storage, ["demo"], tracking)
    assert counts["unchanged"] == 4 and sum(counts.values()) == 4
    assert everything(runs) == before


def test_what_the_feed_completed_is_left_alone(storage, tracking, runs, sweep_of_three, begun, wait_until) -> None:
    feed = LiveFeed(storage, "demo", tracking, interval_s=0.05)
    for record in sweep_of_three:
        feed.start_trial(begun(seed=record["seed"]))
        feed.finish(record)
    wait_until(lambda: feed._complete == 3)
    assert feed.close(60).complete == 3
    before = everything(runs)
    counts = publish_compared(storage, ["demo"], tracking)
    assert (counts["updated"], counts["created"]) == (3, 1)  # sent names and descriptions
    after = everything(runs)
    for run, (status, _, params, tags, history) in before.items():
        assert (after[run][0], after[run][2], after[run][4]) == (status, params, history)
        own = {tag: text for tag, text in tags.items() if tag != "mlflow.runName"}
        assert own.items() <= after[run][3].items()
    assert publish_compared(storage, ["demo"], tracking)["unchanged"] == 4


def test_remnants_and_duplicates_give_way_to_one_whole_run(storage, tracking, runs, sweep_of_three, begun) -> None:
    first, second, third = sweep_of_three
    half = runs.create(begun(seed=0), {})  # a driver killed in the middle
    runs.log(half, metric_values(first)[:2])
    runs.build(second, {})
    runs.build(second, {})
    runs.create(begun(seed=9), {})  # killed, and never finished since
    counts = publish_compared(storage, ["demo"], tracking)
    assert (counts["completed"], counts["removed"], counts["ended"]) == (1, 1, 1)
    marks = Counter(head.complete for head in runs.find() if head.trial)
    assert marks == Counter([*map(complete_mark, (first, second, third)), ""])
    assert not any(head.running for head in runs.find())
    again = publish_compared(storage, ["demo"], tracking)
    assert again["unchanged"] == sum(again.values()) == 4


def test_a_record_made_anew_replaces_its_run(storage, tracking, runs, sweep_of_three, finished, save) -> None:
    publish_compared(storage, ["demo"], tracking)
    save(finished(seed=2))  # the failed one, tried again
    counts = publish_compared(storage, ["demo"], tracking)
    assert (counts["completed"], counts["unchanged"]) == (2, 2)  # the trial and the sweep's own
    assert sorted(h.tags["status"] for h in runs.find() if h.trial) == ["diverged", "done", "done"]


def test_a_trial_that_two_sweeps_use_has_one_run_tagged_as_both(storage, tracking, runs, sweep_of_three) -> None:
    publish_compared(storage, ["demo"], tracking)
    shared = sweep_of_three[0]["id"]
    storage.write_json("second/plan.json", {"stages": [{"name": "layers", "ids": [shared]}]})
    counts = publish_compared(storage, ["second"], tracking)
    assert (counts["updated"], counts["created"]) == (1, 1)
    (head,) = runs.find(trial=shared)
    assert (head.tags["in_demo"], head.tags["in_second"], head.sweep) == ("inductive", "layers", "demo")
    assert publish_compared(storage, ["demo", "second"], tracking)["unchanged"] == 5


def test_progress_counts_every_record_once(storage, tracking, sweep_of_three) -> None:
    done = []
    publish_compared(storage, ["demo"], tracking, lambda number, total: done.append((number, total)))
    assert done == [(1, 3), (2, 3), (3, 3)]


def test_a_publish_killed_in_the_middle_is_made_up_for(storage, tracking, runs, sweep_of_three, monkeypatch) -> None:
    end, ended = Runs.end, []

    def once(self, *args):
        if ended:
            raise KeyboardInterrupt
        ended.append(end(self, *args))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Runs, "end", once)
        patch.setattr(sweep.tracking.publish, "CONNECTIONS", 1)
        publish_compared(storage, ["demo"], tracking)
    counts = publish_compared(storage, ["demo"], tracking)
    assert counts["unchanged"] == 1 and counts["completed"] + counts["created"] == 3, counts
    assert publish_compared(storage, ["demo"], tracking)["unchanged"] == 4


@pytest.mark.slow
def test_a_locked_database_is_told_in_one_line(storage, tracking, runs, sweep_of_three) -> None:
    holder = sqlite3.connect(tracking.uri.removeprefix("sqlite:///"))
    holder.execute("begin immediate")
    with pytest.raises(TrackingError, match="database is locked.*nothing is lost, publish when it answers"):
        publish_compared(storage, ["demo"], tracking)
    holder.close()


def test_a_run_ended_as_killed_is_not_whole_whatever_its_mark(storage, tracking, runs, sweep_of_three) -> None:
    record = sweep_of_three[0]
    whole = whole_run(record, runs.storage, {})
    half = runs.create_named(whole.name, whole.tags, whole.started_ms)  # a publish killed in the middle
    assert publish_compared(storage, ["demo"], tracking)["completed"] == 1
    half = runs.create_named(whole.name, whole.tags, whole.started_ms)
    runs.end(half, "KILLED")
    assert publish_compared(storage, ["demo"], tracking)["removed"] == 1


def test_a_server_that_does_not_answer_is_told_in_one_line(storage, sweep_of_three, tracking) -> None:
    from sweep.tracking.address import resolve_tracking

    with pytest.raises(TrackingError, match=r"^MLflow at http://127.0.0.1:9: .*publish when it answers"):
        publish_compared(storage, ["demo"], resolve_tracking(storage, "http://127.0.0.1:9"))


def test_the_door_writes_the_table_and_says_what_changed(storage, tracking, sweep_of_three) -> None:
    result = CliRunner().invoke(app, [f"{storage.uri}/demo"])
    assert result.exit_code == 0 and "4 created" in result.output and "sweep.ui" in result.output
    assert storage.exists("demo/results.parquet")
    assert "4 unchanged" in CliRunner().invoke(app, [storage.uri]).output


def test_the_door_refuses_what_is_no_sweep_and_what_is_running(storage, tracking, sweep_of_three, tmp_path) -> None:
    assert CliRunner().invoke(app, [str(tmp_path / "nothing")]).exit_code == 2
    with storage.lock("demo"):
        assert CliRunner().invoke(app, [storage.uri]).exit_code == 2


def test_comparisons_become_metrics_and_tags_and_follow_a_new_baseline(storage, tracking, runs, sweep_of_three) -> None:
    trial = sweep_of_three[0]["id"]
    values = {"vs_pretrained/accuracy": 0.1, "vs_pretrained/accuracy_low": 0.02, "vs_pretrained/accuracy_high": 0.2}
    first = Extras(
        {trial: ComparisonResult(values, {"verdict": "better"}, "Of 9 claims 2 newly right, 0 newly wrong.")}
    )
    bring_up(storage, ["demo"], tracking, storage.index(), extras=first)
    (head,) = runs.find(trial=trial)
    held = runs._client.get_run(head.run).data
    assert values.items() <= held.metrics.items() and held.tags["verdict"] == "better"
    assert "2 newly right" in held.tags[NOTE]
    (own,) = [run for run in runs.find("demo") if not run.trial]
    assert "+0.100 [+0.020, +0.200]" in own.tags[NOTE] and "1 better" in own.tags[NOTE]
    assert bring_up(storage, ["demo"], tracking, storage.index(), extras=first)["unchanged"] == 4
    second = Extras(
        {trial: ComparisonResult({**values, "vs_pretrained/accuracy": 0.0}, {"verdict": "no difference found"})}
    )
    counts = bring_up(storage, ["demo"], tracking, storage.index(), extras=second)
    assert (counts["updated"], counts["completed"], counts["unchanged"]) == (1, 1, 2)
    (head,) = runs.find(trial=trial)
    held = runs._client.get_run(head.run)
    assert held.data.metrics["vs_pretrained/accuracy"] == 0.0 and held.data.tags["verdict"] == "no difference found"
    assert held.info.end_time == 1767323105000
    assert [run.run for run in runs.find("demo") if not run.trial] == [own.run]


def test_answers_that_changed_stand_in_the_description_and_as_a_file(storage, tracking, runs, sweep_of_three) -> None:
    first, second, _ = (record["id"] for record in sweep_of_three)
    changed = (
        ChangedAnswer("Ada | Bo\nmet.", "supports", "refutes", "supports", True),
        ChangedAnswer("Cy.", "a", "a", "b", False),
    )
    finding = ComparisonResult(
        {"vs_pretrained/accuracy": 0.1}, {"verdict": "better"}, "Of 9 claims 2 newly right.", changed
    )
    tables = {first: lambda: b"claim,truth\nAda,supports\n", second: lambda: b"never asked for"}
    extras = Extras({first: finding}, changed=tables)
    bring_up(storage, ["demo"], tracking, storage.index(), extras=extras)
    heads = {head.trial: head for head in runs.find("demo")}
    note = heads[first].tags[NOTE].replace(GAP, "")
    assert "+ | Ada \\| Bo met. | supports | refutes | supports |" in note and "− | Cy. | a | a | b |" in note
    assert "`changed_answers.csv` in the tab *Artifacts*" in note
    path = runs._client.download_artifacts(heads[first].run, "changed_answers.csv")
    assert Path(path).read_bytes() == tables[first]()
    assert not runs._client.list_artifacts(heads[second].run)  # diverged: not among the best
    assert bring_up(storage, ["demo"], tracking, storage.index(), extras=extras)["unchanged"] == 4


def test_the_sweeps_run_names_its_data_once_as_its_trials_do(storage, tracking, runs, sweep_of_three) -> None:
    publish_compared(storage, ["demo"], tracking)
    (own,) = [run for run in runs.find("demo") if not run.trial]
    (trial,) = runs.find(trial=sweep_of_three[0]["id"])
    inputs = [runs._client.get_run(run).inputs.dataset_inputs for run in (own.run, trial.run)]
    assert [(one.dataset.name, one.dataset.digest) for one in inputs[0]] == [
        (one.dataset.name, one.dataset.digest) for one in inputs[1]
    ]
    assert inputs[0][0].dataset.digest == "v1"


def test_views_are_written_once_and_go_with_a_question(storage, tracking, runs, sweep_of_three, finished, save) -> None:
    save(finished(seed=0, alpha=0.4, allocation="random"))
    ids = [head.id for head in storage.index().values()]
    storage.write_json("demo/plan.json", {"space": "demo", "stages": [{"name": "inductive", "ids": ids}]})
    publish_compared(storage, ["demo"], tracking)
    before = {tag: value for tag, value in runs.experiment_tags().items() if tag.startswith(TAG)}
    names = {decode(value)[0] for value in before.values()}
    assert names == {"demo: all trials", "demo: alpha x allocation", "demo: failed and diverged"}
    publish_compared(storage, ["demo"], tracking)
    assert {tag: value for tag, value in runs.experiment_tags().items() if tag.startswith(TAG)} == before
    storage.write_json("demo/plan.json", {"space": "demo", "stages": [{"name": "inductive", "ids": [ids[0]]}]})
    publish_compared(storage, ["demo"], tracking)
    after = {decode(value)[0] for tag, value in runs.experiment_tags().items() if tag.startswith(TAG)}
    assert after == {"demo: all trials", "demo: failed and diverged"}


def test_a_report_in_the_sweeps_folder_becomes_an_artifact(storage, tracking, runs, sweep_of_three) -> None:
    publish_compared(storage, ["demo"], tracking)
    storage.write("demo/report/report.html", b"<p>report</p>")
    assert publish_compared(storage, ["demo"], tracking)["completed"] == 1
    (own,) = [run for run in runs.find("demo") if not run.trial]
    assert [file.path for file in runs._client.list_artifacts(own.run, "report")] == ["report/report.html"]


def test_a_report_that_is_written_meanwhile_is_waited_for_when_the_trials_are_there(
    storage, tracking, runs, sweep_of_three, monkeypatch
) -> None:
    there, drawn = [], []
    monkeypatch.setattr("sweep.report.findings._pictures", lambda evidence: drawn.append(evidence) or [])

    def wait() -> None:
        there.append([head for head in runs.find("demo") if head.complete])
        assert len(drawn) == 1, "what can be drawn is drawn before"
        storage.write("demo/report/report.html", b"<p>report</p>")

    publish_compared(storage, ["demo"], tracking, report=wait)
    assert len(there) == 1 and {head.trial for head in there[0]} == {record["id"] for record in sweep_of_three}
    (own,) = [run for run in runs.find("demo") if not run.trial]
    assert [file.path for file in runs._client.list_artifacts(own.run, "report")] == ["report/report.html"]
    assert publish_compared(storage, ["demo"], tracking)["unchanged"] == 4 and len(drawn) == 1


def test_registering_takes_one_sweep_and_a_trial_that_has_a_memory(storage, tracking, sweep_of_three) -> None:
    several = CliRunner().invoke(app, [storage.uri, "--register", "best"])
    assert several.exit_code == 2 and "takes one sweep" in several.stderr
    none = CliRunner().invoke(app, [f"{storage.uri}/demo", "--register", "best"])
    assert none.exit_code == 2 and "trained memory" in none.stderr


def test_clones_link_to_the_runs_that_they_are_clones_of_at_once(storage, tracking, runs, finished, save) -> None:
    source = finished(seed=0)
    told = {"added_by": "ada@desk", "added_at": "2026-01-02T03:04:05+00:00", "added_as": "clone --set seed=1"}
    clone = {**finished(seed=1), "labels": {**told, "cloned_from": source["id"]}}
    of_clone = {**finished(seed=2), "labels": {**told, "cloned_from": clone["id"]}}
    for record in (of_clone, clone, source):
        save(record)
    publish_compared(storage, ["demo"], tracking)
    heads = {head.trial: head for head in runs.find()}
    for record, parent in ((clone, source), (of_clone, clone)):
        note = heads[record["id"]].tags[NOTE]
        assert f"A clone of trial [{parent['id']}](#/experiments/" in note
        assert f"/runs/{heads[parent['id']].run}), added to the sweep by ada@desk, 2026-01-02 03:04 UTC" in note
        assert heads[record["id"]].tags["label.cloned_from"] == parent["id"]
        assert heads[record["id"]].tags["label.added_by"] == "ada@desk"
    assert "A clone of" not in heads[source["id"]].tags[NOTE]
    assert publish_compared(storage, ["demo"], tracking)["updated"] == 0, "a repeat changes nothing"
