"""lm-evaluation-harness on members, against the library itself on a plain model with the memory in a hook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.errors import ConfigError, DataError
from trainables.pack.process_cache import ProcessCache
from trainables.pack.trial_check import check_trials
from trainables.probes.lm_eval.plan import LmEvalPlan
from trainables.probes.lm_eval.probe import LmEvalProbe, task_manager
from trainables.probes.registry import probe_plans

pytest.importorskip("lm_eval", reason="lm-evaluation-harness comes with the extra lm-eval")

TASKS = Path(__file__).parents[3] / "data" / "lm_eval"
BOTH = ("even_numbers", "written_numbers")


def settings(**values: Any) -> dict[str, Any]:
    usual = {"lm_eval_tasks": BOTH, "lm_eval_folder": str(TASKS), "lm_eval_limit": None, "lm_eval_shots": None}
    return usual | values


@pytest.mark.parametrize("sets", [{}, {"mode": "hard", "allocation": "partitioned"}], ids=["free", "hard"])
def test_the_library_finds_the_same_on_a_plain_model(
    sets: dict[str, Any], small_trial: Any, build: Any, process_cache: ProcessCache, plain_program: Any
) -> None:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    values = {"layer": 1, "probes": ("lm_eval",), "lr": 0.03, "warmup_steps": 0, **settings(lm_eval_shots=2), **sets}
    specs = [small_trial(**values, seed=seed) for seed in (0, 1)]
    adapter = build(*specs)
    for epoch in range(2):
        adapter.train_epoch(epoch)
    (plan,) = probe_plans(vars(specs[0]))
    probe = plan.load().make(plan, (), process_cache.tokenizer(specs[0]))
    state = torch.get_rng_state()
    found = probe.ask(adapter)
    assert torch.equal(torch.get_rng_state(), state) and probe.counts == {"lm_eval_tasks": 2}
    assert process_cache.tokenizer(specs[0]).pad_token is None, "the shared tokenizer stays as it was"
    for member, spec in enumerate(specs):
        program = plain_program(spec, adapter, member)  # free text: every entry, whatever the mode
        tasks = TaskManager(include_path=str(TASKS), include_defaults=False).load(list(BOTH))
        for task in tasks["tasks"].values():
            task.set_config(key="num_fewshot", value=2)
            task.set_fewshot_seed(seed=1234)
        lm = HFLM(pretrained=program.model, tokenizer=program.tokenizer, batch_size=1)
        plain = evaluate(lm=lm, task_dict=tasks, bootstrap_iters=0)
        results = {name: plain["results"][name] for name in BOTH}
        assert found[member].metrics == {
            "even_numbers_acc": results["even_numbers"]["acc,none"],
            "even_numbers_acc_norm": results["even_numbers"]["acc_norm,none"],
            "written_numbers_exact_match": results["written_numbers"]["exact_match,none"],
        }
        samples = {(name, s["doc_id"]): s for name in BOTH for s in plain["samples"][name]}
        assert len(samples) == len(found[member].answers) == 10
        for row in found[member].answers:
            own, other = json.loads(row["sample"]), samples[row["task"], row["doc_id"]]
            assert own["arguments"] == json.loads(json.dumps(other["arguments"])) and own["doc"] == other["doc"]
            assert row["prompt"].count("Answer:") == 3, "two examples and the question"
            if row["task"] == "even_numbers":
                likely = [value for value, _ in own["filtered_resps"]]
                assert likely == pytest.approx([value for value, _ in other["filtered_resps"]], abs=2e-3)
            else:
                assert own["filtered_resps"] == other["filtered_resps"]
            assert json.loads(row["scores"]) == {name: float(other[name]) for name in other["metrics"]}
    rows = [[row["sample"] for row in one.answers] for one in found]
    assert rows[0] != rows[1], "the members must differ"


def test_so_many_examples_and_shots_as_asked_for(small_trial: Any, build: Any, process_cache: ProcessCache) -> None:
    spec = small_trial(layer=1, probes=("lm_eval",), **settings(lm_eval_limit=2))
    (plan,) = probe_plans(vars(spec))
    probe = plan.load().make(plan, (), process_cache.tokenizer(spec))
    (found,) = probe.ask(build(spec))
    assert sorted((row["task"], row["doc_id"]) for row in found.answers) == [(t, n) for t in BOTH for n in (0, 1)]
    assert all(row["prompt"].count("Answer:") == 1 for row in found.answers), "what the task says: none"


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"lm_eval_tasks": ()}, ConfigError, "lm_eval_tasks: empty"),
        ({"lm_eval_folder": "/nowhere"}, DataError, "/nowhere: no such folder"),
        ({"lm_eval_folder": str(TASKS.parent / "formats")}, DataError, "holds no \\*.yaml"),
    ],
)
def test_a_mistake_is_one_line(values: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        task_manager(LmEvalPlan(**settings(**values)))
    assert "\n" not in str(caught.value)


def test_a_task_that_is_not_there_is_refused_before_anything_starts(
    small_trial: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lm_eval.tasks

    whole = lm_eval.tasks.TaskManager
    small = tmp_path / "task.yaml"
    small.write_text("task: known\ncustom_dataset: none\n")
    monkeypatch.setattr(  # the library's own list takes half a minute to read
        lm_eval.tasks, "TaskManager", lambda include_path, include_defaults: whole(
            include_path=[include_path, str(tmp_path)], include_defaults=False
        ),
    )  # fmt: skip
    spec = small_trial(layer=1, probes=("lm_eval",), **settings(lm_eval_tasks=("even_number",)))
    with pytest.raises(ConfigError, match="lm_eval_tasks='even_number': .* no such task, nor has .* 'even_numbers'"):
        check_trials([(spec, ProcessCache(torch.device("cpu"), None).card(spec))])
    spec = small_trial(layer=1, probes=("lm_eval",))
    with pytest.raises(ConfigError, match="lm_eval_tasks: empty"):
        check_trials([(spec, ProcessCache(torch.device("cpu"), None).card(spec))])


def test_a_task_that_cannot_be_loaded_is_a_mistake_in_the_data(tmp_path: Path, neox_tokenizer: Any) -> None:
    (tmp_path / "bad.yaml").write_text(
        "task: bad\ndataset_path: json\ndataset_kwargs: {data_files: {test: /no.jsonl}}\n"
    )
    plan = LmEvalPlan(**settings(lm_eval_tasks=("bad",), lm_eval_folder=str(tmp_path)))
    with pytest.raises(DataError, match="lm_eval_tasks=bad: cannot be loaded"):
        LmEvalProbe.make(plan, (), neox_tokenizer)


@pytest.mark.thorough(beside="test_a_mistake_is_one_line")
def test_where_it_is_not_installed_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['lm_eval'] = None\n"
        "from trainables.probes.lm_eval.plan import LmEvalPlan\n"
        "NAMES = ('lm_eval_folder', 'lm_eval_limit', 'lm_eval_shots')\n"
        "try:\n    LmEvalPlan(lm_eval_tasks=('x',), **dict.fromkeys(NAMES)).check()\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("ConfigError") and "pip install 'memory-sweep[lm-eval]'" in ran.stdout


def test_a_folder_is_known_by_all_its_files(tmp_path: Path) -> None:
    def key() -> Any:
        return LmEvalPlan(**settings(lm_eval_folder=str(tmp_path))).identity()["lm_eval_folder"]

    (tmp_path / "a.yaml").write_text("task: a\n")
    first = key()
    (tmp_path / "data.jsonl").write_text("{}\n")
    assert key() != first
