"""Finished trials asked something else: nothing is trained, and the answers are those of a run that asked at once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from sweep import evaluate as command
from sweep.planning.plan_of import plan_sweep
from sweep.records.frame import load_results
from sweep.records.sweep_storage import SweepStorage
from sweep.running.evaluate import AskRequest, ask_trials, evaluation_plan
from sweep.running.run_sweep import run_sweep
from sweep.space import ALL, Space, Stage
from trainables.adapters.training import PackTraining
from trainables.data.corpus import load_corpus
from trainables.data.prompts import choose_examples_for, render_prompt
from trainables.errors import ConfigError, DataError
from trainables.pack.ask import AskRun
from trainables.probes.answer_letter import parse_answer
from trainables.probes.fever.plan import FeverPlan

LATER = "fever:num_shots=2"


@pytest.fixture(scope="module")
def make_space(tiny_models: dict[str, Path], sample_data: Path) -> Callable[..., Space]:
    def make(name: str = "first", probes: tuple[str, ...] = (), **fixed: Any) -> Space:
        return Space(
            name=name,
            title=name,
            axes={"alpha": [0.0, 1.0], "seed": [0, 1]},
            fixed={
                "model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 1, "memory_dim": 16,
                "allocation": "simset2", "num_documents": 3, "segment_tokens": 32, "epochs": 2, "lr": 0.01,
                "claims_per_page": 2, **fixed,
            },
            stages=(Stage(name="all", axes={"alpha": ALL, "seed": ALL}),),
            probes=probes,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def finished(make_space: Callable[..., Space], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with a finished sweep."""
    out = tmp_path_factory.mktemp("finished") / "out"
    assert run(make_space(), out, baseline=False).exit_code == 0
    return out


@pytest.fixture
def storage(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count epochs trained, and members of the packs that are asked."""
    found: Counter[str] = Counter()
    train, finish = PackTraining.run_epoch, AskRun.finish

    def run_epoch(self: PackTraining, epoch: int) -> Any:
        found["epochs"] += 1
        return train(self, epoch)

    def ask(self: AskRun) -> Any:
        found["packs asked"] += 1
        found["members asked"] += len(self.tasks)
        return finish(self)

    monkeypatch.setattr(PackTraining, "run_epoch", run_epoch)
    monkeypatch.setattr(AskRun, "finish", ask)
    return found


def run(space: Space, out: Path, **options: Any) -> Any:
    return run_sweep(space, out, executor="local", tracking_uri="http://127.0.0.1:9", **options)


def answers(out: Path, label: str) -> dict[str, list[dict[str, Any]]]:
    """The answers to an asking, by trial."""
    found = {}
    for head in SweepStorage(str(out)).index().values():
        path = head.record()["answers"].get(label)
        if path:
            found[head.id] = pq.read_table(out / path).to_pylist()
    return found


def test_a_finished_sweep_is_asked_and_nothing_is_trained(
    storage: Path, make_space: Callable[..., Space], counted: Counter[str], tmp_path: Path
) -> None:
    before = load_results(storage / "first")
    (results,) = ask_trials(
        storage / "first", [f"{LATER},seed=0"], executor="local", tracking_uri="http://127.0.0.1:9", baseline=False
    )
    assert results.exit_code == 0 and (results.num_run, results.num_asked) == (0, 4)
    assert counted["epochs"] == 0
    assert counted["packs asked"] == 1 and counted["members asked"] == 4, "one pass, whatever alpha and seed"
    at_once = tmp_path / "fresh"
    assert run(make_space(probes=(f"{LATER},seed=0",)), at_once, baseline=False).exit_code == 0
    for label in ("fever", LATER, f"{LATER},seed=0"):
        assert answers(storage, label) == answers(at_once, label), label
    later, fresh = (load_results(path / "first").set_index("id") for path in (storage, at_once))
    for column in (f"{LATER}/accuracy", f"{LATER}/f1_macro", "fever/accuracy", "memory/nll"):
        assert later[column].to_dict() == pytest.approx(fresh[column].to_dict(), nan_ok=True)
    assert list(later.index) == list(before["id"]), "the same rows"
    assert len(answers(storage, LATER)) == 2 and len(answers(storage, f"{LATER},seed=0")) == 2
    (again,) = ask_trials(storage / "first", [f"{LATER},seed=0"], executor="local", baseline=False)
    assert (again.num_run, again.num_asked) == (0, 0), "the same question is never asked twice"


@pytest.mark.slow
def test_twenty_four_trials_are_asked_two_things_more(
    make_space: Callable[..., Space], counted: Counter[str], tmp_path: Path
) -> None:
    grid = {"alpha": [0.5, 1.0, 2.0, 4.0], "allocation": ["random", "simset2"], "seed": [0, 1, 2]}
    every = (Stage(name="all", axes=dict.fromkeys(grid, ALL), fixed={}),)
    probes = (LATER, "recall:recall_documents=2")

    def grid_of(**options: Any) -> Space:
        space = make_space(epochs=1, **options)
        return replace(space, axes=grid, fixed={k: v for k, v in space.fixed.items() if k not in grid}, stages=every)

    run(grid_of(), tmp_path / "later", baseline=False)
    trained = counted["epochs"]
    (results,) = ask_trials(
        tmp_path / "later", probes, executor="local", tracking_uri="http://127.0.0.1:9", baseline=False
    )
    assert (results.num_run, results.num_asked, counted["epochs"]) == (0, 24, trained)
    run(grid_of(probes=probes), tmp_path / "fresh", baseline=False)
    for probe in ("fever", *probes):
        later, fresh = (answers(tmp_path / place, probe) for place in ("later", "fresh"))
        assert later == fresh and len(later) == 24, probe


def test_answers_are_those_of_plain_transformers(storage: Path, make_space: Callable[..., Space]) -> None:
    """An independent program: the model of `transformers`, a hook that adds the stored memory, `generate`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ask_trials(storage, [LATER], executor="local", tracking_uri="http://127.0.0.1:9", baseline=False)
    fixed = make_space().fixed
    model = AutoModelForCausalLM.from_pretrained(fixed["model"])
    tokenizer = AutoTokenizer.from_pretrained(fixed["model"])
    documents = load_corpus(fixed["data"]).select(3).documents
    head = next(h for h in SweepStorage(str(storage)).index().values() if h.record()["identity"]["alpha"] == 1.0)
    record = head.record()
    weights = load_file(storage / head.folder / "memory.safetensors")

    def add_memory(module: Any, inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        entries = torch.nn.functional.gelu(hidden @ weights["up.weight"].T + weights["up.bias"])
        out = entries @ weights["down.weight"].T + weights["down.bias"]
        out = torch.nn.functional.layer_norm(out, out.shape[-1:], weights["ln.weight"], weights["ln.bias"])
        changed = hidden + out * weights["gate"]
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    model.model.layers[1].register_forward_hook(add_memory)
    rows = pq.read_table(storage / record["answers"][LATER]).to_pylist()
    by_page = {document.title: document for document in documents}
    right = weight = 0
    for row in rows:
        examples = choose_examples_for(row["question"], by_page[row["page"]], 2, record["identity"]["seed"])
        tokens = tokenizer(render_prompt(examples, row["question"]), return_tensors="pt")
        with torch.no_grad():
            written = model.generate(**tokens, do_sample=False, max_new_tokens=5, pad_token_id=0)[0]
        prompt = tokenizer.decode(tokens["input_ids"][0], skip_special_tokens=True)
        text = tokenizer.decode(written, skip_special_tokens=True)[len(prompt) :]
        assert parse_answer(text) == row["parsed"], (text, row)
        right, weight = right + row["weight"] * row["correct"], weight + row["weight"]
    assert rows and record["metrics"][f"{LATER}/accuracy"] == pytest.approx(right / weight)


def test_a_trial_of_another_sweep_is_asked_and_not_trained_again(
    storage: Path, make_space: Callable[..., Space], counted: Counter[str]
) -> None:
    results = run(make_space("second", num_shots=2), storage, baseline=False)
    assert results.exit_code == 0 and (results.num_run, results.num_asked) == (0, 4) and counted["epochs"] == 0
    rows = load_results(storage / "second")
    assert set(rows["num_shots"]) == {2} and rows["fever/accuracy"].notna().all() and len(rows) == 4
    first = load_results(storage / "first").set_index("id")
    assert set(first["num_shots"]) == {1} and first[f"{LATER}/accuracy"].notna().all(), "one training, two rows"
    assert not list((storage / "second").rglob("memory.safetensors"))
    again = run(make_space("second", num_shots=2), storage, baseline=False)
    assert (again.num_run, again.num_asked, again.counts["done"]) == (0, 0, 4)


@pytest.mark.thorough(beside="test_epochs_that_were_not_kept_mean_training_again")
def test_without_weights_the_plan_says_that_it_would_train_again_and_why(
    make_space: Callable[..., Space], tmp_path: Path, counted: Counter[str]
) -> None:
    space = make_space(keep_memory=False)
    run(space, tmp_path, baseline=False)
    trained = counted["epochs"]
    plan = plan_sweep(space, tmp_path, probes=[LATER], baseline=False)
    assert plan.plan.num_to_run == 4 and plan.plan.num_to_ask == 0
    assert "4 trials are trained again: its weights are not stored (keep_memory=false)" in str(plan)
    asked = evaluation_plan(SweepStorage(str(tmp_path)), "first", AskRequest((LATER,), baseline=False))
    assert asked.plan.num_left == 0 and "4 trials cannot be asked" in " ".join(asked.notes)
    assert "keep_memory=false" in " ".join(asked.notes)
    results = run(space, tmp_path, baseline=False, probes=[LATER])
    assert counted["epochs"] > trained and len(answers(tmp_path, LATER)) == 4 and results.exit_code == 0


@pytest.mark.thorough(beside="test_epochs_that_were_not_kept_mean_training_again")
def test_weights_after_chosen_epochs_are_kept_and_asked_later(
    make_space: Callable[..., Space], tmp_path: Path, counted: Counter[str]
) -> None:
    space = make_space(eval_epochs=(0, 1))
    run(space, tmp_path / "out", baseline=False)
    folder = next((tmp_path / "out").rglob("epochs"))
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]
    trained = counted["epochs"]
    ask_trials(tmp_path / "out", [LATER], executor="local", tracking_uri="http://127.0.0.1:9", baseline=False)
    assert counted["epochs"] == trained
    run(make_space(probes=(LATER,), eval_epochs=(0, 1)), tmp_path / "fresh", baseline=False)
    later, fresh = (SweepStorage(str(tmp_path / place)).index() for place in ("out", "fresh"))
    for trial, head in later.items():
        curve, expected = (i[trial].record()["curves"][f"{LATER}/accuracy"] for i in (later, fresh))
        assert [epoch for epoch, _ in curve] == [0, 1, 2] and curve == expected, head.folder
    without = plan_sweep(make_space("other", eval_epochs=(1,), num_shots=0), tmp_path / "out", baseline=False).plan
    assert (without.num_to_run, without.num_to_ask) == (0, 4)
    more = plan_sweep(make_space("other", eval_epochs=(1,)), tmp_path / "finished", baseline=False).plan
    assert more.num_to_run == 4


def test_epochs_that_were_not_kept_mean_training_again(storage: Path, make_space: Callable[..., Space]) -> None:
    plan = plan_sweep(make_space("other", eval_epochs=(1,)), storage, baseline=False).plan
    assert plan.num_to_run == 4 and "after epoch 1 are not stored" in next(iter(plan.trained_again))


@pytest.mark.thorough(beside="test_a_finished_sweep_is_asked_and_nothing_is_trained")
def test_every_plan_has_the_pretrained_model_once_for_each_thing_asked(
    storage: Path, make_space: Callable[..., Space]
) -> None:
    plan = plan_sweep(make_space(), storage).plan
    (stage,) = [stage for stage in plan.stages if stage.name == "pretrained"]
    assert stage.num_points == 2, "one for each seed, since that chooses the examples; none for each alpha"
    assert {point.spec.method for point in stage.points} == {"pretrained"}
    assert plan.trials == {point.id for point in plan.stage("all").points}, "these are no trials of one's own"
    assert [stage.name for stage in plan_sweep(make_space(), storage, baseline=False).plan.stages] == ["all"]
    results = run(make_space(), storage)
    assert results.exit_code == 0 and results.counts["done"] == 6
    rows = load_results(storage / "first")
    assert (rows["method"] == "pretrained").sum() == 2
    again = plan_sweep(make_space("second"), storage).plan
    assert again.num_left == 0, "another sweep has it already"
    (asked,) = evaluation_plan(SweepStorage(str(storage)), "first", AskRequest((LATER,))).plan.stages
    assert [point.trains for point in asked.to_ask] == [False] * 2 + [True] * 4, "so that the rest can be compared"


@pytest.mark.thorough(beside="test_a_finished_sweep_is_asked_and_nothing_is_trained")
def test_the_command_asks_and_says_what_it_did(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    options = [str(storage / "first"), "--probe", LATER]
    planned = CliRunner().invoke(command.app, [*options, "--plan"])
    assert planned.exit_code == 0 and "to ask      4 trials" in planned.output, planned.output
    assert f"{LATER} of 6 trials" in planned.output and "fever of 2 trials" in planned.output
    done = CliRunner().invoke(command.app, [*options, "--executor", "local"])
    assert done.exit_code == 0 and "4 to ask" in done.output and "6 done" in done.output, done.output
    assert len(answers(storage, LATER)) == 6, "the pretrained models of both seeds are asked along"
    for bad, told in (([str(storage)], "--probe: say what to ask"), ([str(storage), "--probe", "fevr"], "fevr")):
        refused = CliRunner().invoke(command.app, bad)
        assert refused.exit_code == 2 and told in refused.output and len(refused.output.splitlines()) == 1


def test_answers_of_an_older_version_count_are_named_and_are_asked_anew_on_request(
    storage: Path, make_space: Callable[..., Space], counted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeverPlan, "version", FeverPlan.version + 1)
    planned = plan_sweep(make_space(), storage, baseline=False)
    assert planned.plan.num_left == 0 and "4 trials were asked by version" in " ".join(planned.notes)
    ask_trials(storage, ["fever"], executor="local", tracking_uri="http://127.0.0.1:9", baseline=False)
    assert counted["epochs"] == 0 and counted["members asked"] == 4
    heads = SweepStorage(str(storage)).index().values()
    assert {head.record()["probe_versions"]["fever"] for head in heads} == {FeverPlan.version}
    assert not plan_sweep(make_space(), storage, baseline=False).notes


def test_data_without_the_records_that_are_asked_are_the_users_mistake_before_anything_starts(
    storage: Path, make_space: Callable[..., Space], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(data: str) -> Any:
        raise DataError(f"{data}: no CounterFact records")

    monkeypatch.setattr("trainables.data.counterfact.load_counterfact", none)
    with pytest.raises(DataError, match="no CounterFact records"):
        ask_trials(storage, ["counterfact"], executor="local", tracking_uri="http://127.0.0.1:9")


def test_what_cannot_be_asked_is_the_users_mistake_before_anything_starts(storage: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness comes with the extra lm-eval")
    before = (storage / "first" / "status.json").read_bytes()
    with pytest.raises(ConfigError, match="lm_eval_tasks: empty"):
        ask_trials(storage, ["lm_eval"], executor="local", tracking_uri="http://127.0.0.1:9")
    assert (storage / "first" / "status.json").read_bytes() == before
