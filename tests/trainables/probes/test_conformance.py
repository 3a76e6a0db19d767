"""What every probe keeps to, as `trainables.probes.probe.Probe` says. A new one adds its settings here."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from trainables.adapters.adapter import Adapter
from trainables.pack.process_cache import ProcessCache
from trainables.probes.plan import ProbePlan, TextSizes
from trainables.probes.probe import Finding, Probe, answers_bytes, answers_schema
from trainables.probes.registry import PROBES, probe_plans
from trainables.trial.spec import TrialSpec

TASKS = Path(__file__).parents[2] / "data" / "lm_eval"

# For each probe: fields of a trial that asks it, and for each field of its plan another value, which asks otherwise.
SETTINGS: dict[str, dict[str, Any]] = {
    "fever": {"num_shots": 1},
    "counterfact": {"counterfact_records": 4, "num_answers": 2, "temperature": 1.5},
    "recall": {"recall_tokens": 12},
    "forgetting": {"heldout_documents": 3, "heldout_claims": 2},
    "choices": {"questions_per_document": 3},
    "lm_eval": {"lm_eval_tasks": ("even_numbers",), "lm_eval_folder": str(TASKS)},
    "recital": {},
}
OTHERWISE: dict[str, dict[str, Any]] = {
    "fever": {"num_shots": 0, "seed": 3, "notes_labels": True, "claims_per_page": 1},
    "counterfact": {
        "data": "elsewhere", "counterfact_records": 2, "num_answers": 3,
        "answer_tokens": 2, "temperature": 0.5, "seed": 3, "template_facts": 2,
    },
    "recall": {"recall_documents": 2, "recall_title": False, "recall_words": 4, "recall_tokens": 8},
    "forgetting": {
        "data": "elsewhere", "detokenize": True, "allow_missing_pages": True, "segment_tokens": 16,
        "heldout_documents": 2, "heldout_claims": 1, "num_shots": 0, "seed": 3, "notes_labels": True,
        "general_text": __file__,
    },
    "lm_eval": {
        "lm_eval_tasks": ("even_numbers", "written_numbers"), "lm_eval_folder": str(TASKS.parents[2] / "infra"),
        "lm_eval_limit": 2, "lm_eval_shots": 1,
    },
    "choices": {
        "data": "elsewhere", "allow_missing_pages": True, "choices_by": "likelihood", "questions_per_document": 2,
        "num_shots": 0, "seed": 3,
    },
    "recital": {"segment_tokens": 4},
}  # fmt: skip
CASES = [pytest.param(name, id=name) for name in SETTINGS]
SIZES = TextSizes(document_tokens=300, claims=12)
PLACES = {
    "fever": ("num_shots", "claims_per_page"),
    "counterfact": ("counterfact_records",),
    "recital": (),
    "recall": ("recall_documents", "recall_title", "recall_words", "recall_tokens"),
    "lm_eval": ("lm_eval_limit",),
    "choices": ("questions_per_document", "num_shots"),
    "forgetting": ("segment_tokens", "heldout_documents", "heldout_claims", "num_shots"),
}

Build = Callable[..., Adapter]
Trial = Callable[..., TrialSpec]


def test_every_probe_there_is_takes_part() -> None:
    assert set(SETTINGS) == set(OTHERWISE) == set(PROBES)


@pytest.fixture
def spec(small_trial: Trial, sample_data: Path, own_questions: Path) -> Callable[..., TrialSpec]:
    def make(name: str, **values: Any) -> TrialSpec:
        if name == "lm_eval":
            pytest.importorskip("lm_eval", reason="lm-evaluation-harness comes with the extra lm-eval")
        if name == "choices":
            values["data"] = f"{sample_data},{own_questions}"
        return small_trial(**{"layer": 1, "probes": (name,), **SETTINGS[name], **values})

    return make


@pytest.fixture
def ready(spec: Any, process_cache: ProcessCache) -> Callable[..., Probe]:
    """Return a maker of probes about the documents of the small trial."""

    def make(name: str, **changes: Any) -> Probe:
        trial = spec(name)
        (plan,) = probe_plans(vars(trial))
        documents = process_cache.texts(trial).documents
        probe = plan.load().make(replace(plan, **changes), documents, process_cache.tokenizer(trial))
        assert probe is not None
        return probe

    return make


@pytest.fixture
def members(build: Build, spec: Any) -> Callable[..., Adapter]:
    """Return a maker of untrained memories, whose answers differ by their seeds."""

    def make(name: str, *seeds: int) -> Adapter:
        return build(*(spec(name, seed=seed) for seed in seeds))

    return make


def plain(findings: list[Finding]) -> list[tuple[dict[str, float], list[dict[str, Any]]]]:
    return [(dict(found.metrics), [dict(row) for row in found.answers]) for found in findings]


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    """Compare what probes say: numbers within a tolerance, all else exactly."""
    if isinstance(expected, dict):
        found, expected = [[*each.items()] for each in (found, expected)]
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, tolerance)
    else:
        assert found == (pytest.approx(expected, abs=tolerance) if isinstance(expected, float) else expected)


def check(plan: ProbePlan, finding: Finding) -> None:
    """Check names and bounds of metrics, and that answers are in the columns stated and come back from their file."""
    assert set(finding.metrics) <= set(plan.metrics)
    for name, value in finding.metrics.items():
        low, high = plan.metrics[name]
        assert math.isfinite(value) and low <= value <= high, name
    rows = [dict(row) for row in finding.answers]
    assert all(list(row) == list(plan.answers) for row in rows)
    assert pa.Table.from_pylist(rows, schema=answers_schema(plan)).to_pylist() == rows
    table = pq.read_table(io.BytesIO(answers_bytes(plan, rows)))
    assert table.to_pylist() == rows and table.schema.equals(answers_schema(plan))


def test_the_registry_is_read_without_torch() -> None:
    code = (
        "import trainables.probes.registry, sys; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", CASES)
def test_the_identity_is_what_is_asked(name: str, spec: Any) -> None:
    (plan,), (again,) = probe_plans(vars(spec(name))), probe_plans(vars(spec(name)))
    assert plan.name == name and plan.identity() == again.identity() == json.loads(json.dumps(plan.identity()))
    assert {f.name for f in fields(plan)} == set(OTHERWISE[name])
    others = [replace(plan, **{field: value}).identity() for field, value in OTHERWISE[name].items()]
    assert all(one != other for at, one in enumerate(others) for other in [plan.identity(), *others[:at]])


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_grows_with_what_is_asked(name: str, spec: Any) -> None:
    (plan,) = probe_plans(vars(spec(name)))
    few, many = (vars(plan.reading(SIZES, count)) for count in (4, 8))
    assert sum(few.values()) > 0 and all(0 <= few[part] <= many[part] for part in few)
    for field in PLACES[name]:
        less = vars(replace(plan, **{field: OTHERWISE[name][field]}).reading(SIZES, 4))
        assert sum(less.values()) < sum(few.values()), field


@pytest.mark.parametrize("name", CASES)
def test_asking_twice_gives_the_same_and_changes_nothing(name: str, ready: Any, members: Any) -> None:
    adapter, random_state = members(name, 0, 1), torch.get_rng_state()
    before = [adapter.state(k).weights for k in range(2)]
    first, second = plain(ready(name).ask(adapter)), plain(ready(name).ask(adapter))
    assert first == second and len(first) == 2
    assert torch.equal(torch.get_rng_state(), random_state)
    for k, weights in enumerate(before):
        assert all(torch.equal(adapter.state(k).weights[part], value) for part, value in weights.items())


@pytest.mark.parametrize("name", CASES)
def test_each_member_answers_as_it_does_alone(name: str, ready: Any, members: Any, process_cache: ProcessCache) -> None:
    probe = ready(name)
    together = plain(probe.ask(members(name, 0, 1, 2)))
    assert len({json.dumps(found) for found in together}) > 1, "the members must differ"
    alone = [plain(probe.ask(members(name, seed)))[0] for seed in (0, 1, 2)]
    # a GPU multiplies matrices of other sizes in another order
    assert_same(together, alone, 0.0 if process_cache.device.type == "cpu" else 1e-4)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", ["memory", "pretrained"])
def test_findings_are_of_the_form_that_the_plan_states(
    name: str, method: str, ready: Any, build: Build, spec: Any
) -> None:
    probe, adapter = ready(name), build(spec(name, method=method))
    (found,) = probe.ask(adapter)
    check(probe.plan, found)
    assert found.metrics and found.answers


@pytest.mark.parametrize("name", CASES)
@pytest.mark.thorough(only=("forgetting", "choices"))
def test_a_member_whose_weights_are_not_numbers_leaves_the_others_alone(name: str, ready: Any, members: Any) -> None:
    probe, adapter = ready(name), members(name, 0, 1)
    calm = plain(probe.ask(adapter))[1]
    with torch.no_grad():
        for value in adapter.bank.member_parameters(0).values():
            value.fill_(float("nan"))
    lost, kept = probe.ask(adapter)
    check(probe.plan, lost)
    assert plain([kept])[0] == calm


@pytest.mark.parametrize("name", CASES)
def test_what_was_announced_is_read_first(name: str, ready: Any, members: Any) -> None:
    probe, adapter = ready(name), members(name, 0)
    rounds: dict[str, list[list[tuple[int, ...]]]] = {"tokens": [], "nll": []}
    next_tokens, text_nll = adapter.next_tokens, adapter.text_nll

    def seen(trees: Any, documents: Any, nodes: Any) -> np.ndarray:
        rounds["tokens"].append([tuple(tree.tokens) for tree in trees])
        return next_tokens(trees, documents, nodes)

    def measured(texts: Any) -> np.ndarray:
        rounds["nll"].append([tuple(text.tree.tokens) for text in texts])
        return text_nll(texts)

    adapter.next_tokens, adapter.text_nll = seen, measured
    probe.ask(adapter)
    first = [tree for kind in rounds.values() if kind for tree in kind[0]]
    assert first == [tuple(tree.tokens) for tree in probe.prompts]


@pytest.mark.parametrize("name", CASES)
def test_no_documents_are_no_error(name: str, spec: Any, process_cache: ProcessCache, members: Any) -> None:
    trial = spec(name)
    (plan,) = probe_plans(vars(trial))
    probe = plan.load().make(plan, (), process_cache.tokenizer(trial))
    if probe is not None:  # what it asks is not about the documents
        (found,) = probe.ask(members(name, 0))
        check(plan, found)
