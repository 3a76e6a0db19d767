"""What the suites of both seams share: a process's cache, the fields of a small trial, the toys, and their members."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from trainables.adapters.adapter import Adapter, PackTexts
from trainables.adapters.registry import ADAPTERS, adapter_plan
from trainables.data.corpus import load_corpus
from trainables.data.prompts import HEADER
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import prepare_process
from trainables.probes.registry import PROBES
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec


def _load(file: str) -> ModuleType:
    path = Path(__file__).parent / file
    spec = importlib.util.spec_from_file_location(f"toy_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def toys() -> None:
    """Register the toy adapter and the toy probe, as another package would its own."""
    ADAPTERS.add(_load("adapters/shift.py").ShiftPlan)
    PROBES.add(_load("probes/recital.py").RecitalPlan)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the conformance suites on a GPU too, with `-m gpu`."""
    if metafunc.module.__name__.endswith("test_conformance") and "process_cache" in metafunc.fixturenames:
        devices = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
        metafunc.parametrize("process_cache", devices, indirect=True, scope="session")


@pytest.fixture(scope="session")
def process_cache(request: pytest.FixtureRequest) -> ProcessCache:
    device = torch.device(getattr(request, "param", "cpu"))
    if device.type == "cuda":
        prepare_process(device, threads=1)  # deterministic, as in a worker
    return ProcessCache(device, 10**9)


@pytest.fixture(scope="session")
def small_trial(tiny_models: dict[str, Path], sample_data: Path) -> Callable[..., TrialSpec]:
    """Return a maker of small canonical trials."""
    usual = {
        "model": str(tiny_models["llama"]),
        "data": str(sample_data),
        "num_documents": 4,
        "segment_tokens": 48,
        "claims_per_page": 2,
        "epochs": 3,
        "warmup_steps": 2,
        "memory_dim": 32,
        "checkpoint_every_s": 0,
    }

    def make(**values: Any) -> TrialSpec:
        return canonical(make_spec({**usual, **values}))

    return make


@pytest.fixture(scope="session")
def build(process_cache: ProcessCache) -> Callable[..., Adapter]:
    """Return a maker of adapters: the members of a pack, as a run makes them."""

    def make(*specs: TrialSpec) -> Adapter:
        texts = process_cache.texts(specs[0])
        plans = [adapter_plan(vars(spec)) for spec in specs]
        shared = PackTexts(texts.train, texts.segments, len(texts.documents))
        return plans[0].load()(plans, process_cache.parts(specs[0]), shared)

    return make


@pytest.fixture(scope="session")
def own_questions(sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample world's claims as questions of one's own, in FEVER's template, by the titles of their pages."""
    folder, labels = tmp_path_factory.mktemp("own"), ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")
    rows = [
        {"id": f"{split}-{page.title}-{claim.id}", "document": page.title, "question": claim.text, "split": split,
         "choices": labels, "answer": claim.label}
        for page in load_corpus(str(sample_data)).pages
        for split, claims in (("train", page.train_claims), ("test", page.claims))
        for claim in claims
    ]  # fmt: skip
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    letter = {
        "header": HEADER, "question": "Claim: {{ question }}\nA:", "answer": " ({{ letter }})", "separator": "\n",
    }  # fmt: skip
    (folder / "template.json").write_text(json.dumps({"letter": letter}))
    return folder
