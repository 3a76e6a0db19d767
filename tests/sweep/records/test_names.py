"""Two different models are never called alike, in tables or elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sweep.records.names import ModelNames, display_names, moved_branches
from sweep.records.record import Origin, begin_record, complete_record
from sweep.records.results_table import write_results
from sweep.records.sweep_storage import SweepStorage
from sweep.tracking.layout import run_params
from sweep.tracking.run_names import Naming, values_of
from trainables.lm.card import ModelCard
from trainables.trial.canonical import canonical
from trainables.trial.identity import identity
from trainables.trial.spec import TrialSpec


def card_of(name: str, key: str, source: str, **values: Any) -> ModelCard:
    return ModelCard(name, key, source, values.pop("revision", "main"), "llama", 4, 8, 16, 2, 2, 4, 9, True, **values)


A = card_of("checkpoint-500", "llama:aaaa", "/runs/runA/checkpoint-500")
B = card_of("checkpoint-500", "llama:bbbb", "/runs/runB/checkpoint-500")


def keep(storage: SweepStorage, card: ModelCard, named: ModelCard) -> dict[str, Any]:
    spec = canonical(TrialSpec(model=card.source, layer=1), card)
    begun = begin_record(spec, identity(spec, card, "sample@v1"), named, Origin("s", "grid", "p"))
    record = complete_record(begun, {"status": "done", "metrics": {}, "curves": {}, "counts": {}, "timings": {}})
    storage.write_record(record, storage.trial_folder("s", spec, named.name, record["id"]))
    return record


def model(name: str, key: str, **values: Any) -> dict[str, Any]:
    return {"name": name, "key": key, "given": "", "revision": "main", **values}


@pytest.mark.parametrize(
    ("models", "names"),
    [
        ([model("a", "x:1"), model("a", "x:1"), model("b", "x:2")], ["a", "a", "b"]),
        ([model("c", "x:1", path="/r/A/c"), model("c", "x:2", path="/r/B/c")], ["A/c", "B/c"]),
        ([model("c", "x:1", path="/r/A/z/c"), model("c", "x:2", path="/r/B/z/c")], ["A/z/c", "B/z/c"]),
        ([model("c", "x:1", path="/r/c"), model("c", "x:2", path="/r/c")], ["c@1", "c@2"]),
        ([model("c", "x:1", given="r/A/c"), model("c", "x:2", given="r/B/c")], ["A/c", "B/c"]),
        ([model("p", "o/p@1", revision="step1"), model("p", "o/p@2", revision="step2")], ["p@step1", "p@step2"]),
        ([model("p", "o/p@1"), model("p", "q/p@1")], ["p@o/p@1", "p@q/p@1"]),
    ],
)
def test_names_are_told_apart_by_what_differs(models: list[dict[str, Any]], names: list[str]) -> None:
    found = display_names(models)
    assert [found[each["key"]] for each in models] == names


def test_a_sweep_over_two_folders_of_one_name_has_two_names_everywhere(tmp_path: Path) -> None:
    storage = SweepStorage(str(tmp_path))
    names = ModelNames([A, B], {})
    records = [keep(storage, card, names.named(card)) for card in (A, B)]
    assert [record["model"]["name"] for record in records] == ["runA/checkpoint-500", "runB/checkpoint-500"]
    naming = Naming.of([values_of(record) for record in records])
    assert (
        len({naming.of_record(record) for record in records}) == len({run_params(r)["lm_size"] for r in records}) == 2
    )
    write_results(storage, "s", storage.index())
    assert set(pq.read_table(tmp_path / "s" / "results.parquet")["model"].to_pylist()) == {
        "runA/checkpoint-500",
        "runB/checkpoint-500",
    }


def test_a_later_sweep_does_not_take_a_name_that_the_storage_has(tmp_path: Path) -> None:
    storage = SweepStorage(str(tmp_path))
    first = ModelNames([A], {}).named(A)
    assert first.name == "checkpoint-500", "alone, a model bears its folder's name"
    keep(storage, A, first)
    second = ModelNames([B], storage.index()).named(B)
    assert second.name == "runB/checkpoint-500"
    keep(storage, B, second)
    both = ModelNames([A, B], storage.index())
    assert [both.named(card).name for card in (A, B)] == ["checkpoint-500", "runB/checkpoint-500"], "and keeps it"


def test_records_that_bear_one_name_are_two_models_in_the_table(tmp_path: Path) -> None:
    storage = SweepStorage(str(tmp_path))
    for card in (A, B):
        keep(storage, card, card)
    write_results(storage, "s", storage.index())
    found = pq.read_table(tmp_path / "s" / "results.parquet")["model"].to_pylist()
    assert set(found) == {"runA/checkpoint-500", "runB/checkpoint-500"}


def test_a_branch_that_moved_is_said(tmp_path: Path) -> None:
    storage = SweepStorage(str(tmp_path))
    old, new = (
        card_of("pythia-70m", f"EleutherAI/pythia-70m@{c * 40}", "EleutherAI/pythia-70m", is_hub=True, commit=c * 40)
        for c in "ab"
    )
    keep(storage, old, old)
    assert moved_branches([old], storage.index()) == []
    (line,) = moved_branches([new], storage.index())
    assert "'main' of EleutherAI/pythia-70m moved" in line and "a" * 12 in line and "b" * 12 in line
    assert moved_branches([A], storage.index()) == []
