"""Every experiment's small form runs to its end on the sample world, packs one after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sweep.planning.load import load_space
from sweep.planning.overrides import apply_overrides, small_form
from sweep.planning.plan_of import plan_of
from sweep.records.sweep_storage import SweepStorage
from sweep.running.ledger import Ledger
from sweep.running.pack_queue import Packing
from trainables.adapters.registry import ADAPTERS
from trainables.lm.weights import model_folder, tokenizer_folder
from trainables.pack.process_cache import ProcessCache
from trainables.pack.worker import PackWork, library_versions

SPACES = sorted(p for p in (Path(__file__).parents[2] / "search_spaces").glob("*.py") if p.stem != "__init__")


@pytest.fixture(scope="module")
def cache(untaught: Path) -> Iterator[ProcessCache]:
    """Of a process whose sample models know nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMORY_SWEEP_CACHE", str(untaught))
        for looked_up in (model_folder, tokenizer_folder):
            looked_up.cache_clear()
        yield ProcessCache(torch.device("cpu"), None)
    for looked_up in (model_folder, tokenizer_folder):
        looked_up.cache_clear()


def run_here(
    path: Path, storage: SweepStorage, cache: ProcessCache, settings: Sequence[str] = ()
) -> tuple[Ledger, list[str]]:
    """Run a space's small form without Ray."""
    space = apply_overrides(small_form(load_space(path)), ["max_segments=1", *settings])  # long texts only take longer
    index = storage.index()
    plan = plan_of(space, index, {}, storage, space.name)
    said: list[str] = []
    ledger = Ledger(plan, storage, space.name, index, {}, Packing(lambda point: 8, 1), False, said.append)
    while (found := ledger.next_pack()) is not None:
        pack, _ = found
        work = PackWork({"trials": [ledger.task(p).to_dict() for p in pack.points], "trunk_layers": []}, cache)
        report: dict[str, Any] = {"done": False}
        while not report["done"]:
            report = work.step()
            for result in report["results"]:
                ledger.finish(pack.id, {**result, "versions": library_versions()})
        ledger.end_pack(pack.id)
    return ledger, said


def check_run(path: Path, storage: SweepStorage, cache: ProcessCache, settings: Sequence[str] = ()) -> None:
    """Run a small form twice: all its trials have a result with what was asked, and the second run changes nothing."""
    ledger, said = run_here(path, storage, cache, settings)
    outcome = ledger.outcome()
    assert outcome["done"] > 0 and outcome["missing"] == 0 and outcome["failed"] == 0, (outcome, said)
    records = [head.record() for head in storage.index().values()]
    for record in records:
        asked = record["identity"]["probes"]
        wanted = {
            "fever": "fever/f1_macro", "counterfact": "counterfact/true_rate", "recall": "recall/rouge_l",
            "forgetting": "forgetting/nll",
        }  # fmt: skip
        assert all(wanted[probe] in record["metrics"] for probe in asked if probe != "choices"), record["metrics"]
        if ADAPTERS[record["identity"]["method"]].trains:
            curve = record["curves"]["train/nll"]
            assert len(curve) == record["identity"]["epochs"]
    again, _ = run_here(path, storage, cache, settings)
    assert again.outcome() == outcome


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
@pytest.mark.thorough(beside="test_stages_draws_sets_and_all_weights_run_to_their_end")
def test_the_small_form_runs_to_its_end(path: Path, tmp_path: Path, cache: ProcessCache) -> None:
    check_run(path, SweepStorage(str(tmp_path)), cache)


@pytest.mark.parametrize(
    ("name", "settings"), [("inductive", ()), ("tune_alpha", ()), ("structure", ("layer=2",)), ("full_update", ())]
)
def test_stages_draws_sets_and_all_weights_run_to_their_end(
    name: str, settings: Sequence[str], tmp_path: Path, cache: ProcessCache, tiny_models: dict[str, Path]
) -> None:
    path = next(path for path in SPACES if path.stem == name)
    check_run(path, SweepStorage(str(tmp_path)), cache, [f"model={tiny_models['llama']}", *settings])
