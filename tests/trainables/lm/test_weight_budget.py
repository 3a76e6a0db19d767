"""What is held of models' weights, and that what must go goes before the next is loaded."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainables.adapters.adapter import Adapter, PackTexts
from trainables.adapters.registry import adapter_plan
from trainables.lm import cut, parity, placement, reference, trunk, upper, weight_budget
from trainables.lm.card import model_card
from trainables.lm.cuda_graphs import CudaGraphs
from trainables.lm.weight_budget import WeightBudget, model_bytes, part_bytes
from trainables.pack.process_cache import ProcessCache
from trainables.trial.spec import TrialSpec

CPU, FP32, BF16 = torch.device("cpu"), torch.float32, torch.bfloat16
ONE, OTHER = model_card("pythia-70m"), model_card("pythia-160m")
Loads = list[tuple[str, list[str]]]


class Weights:
    """Stands for a model that is loaded."""


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Say how many bytes are free."""
    free = SimpleNamespace(bytes=1e12)
    monkeypatch.setattr(weight_budget, "free_bytes", lambda device: free.bytes)
    return free


def made(found: list[weakref.ref[Any]]) -> Callable[[], Weights]:
    """Return a loader that notes what it loads, and wants what it was told is dropped to be gone."""

    def make() -> Weights:
        new = Weights()
        found.append(weakref.ref(new))
        return new

    return make


def test_the_latest_of_each_part_is_held_once(room: SimpleNamespace) -> None:
    budget, found = WeightBudget(CPU), list[weakref.ref[Any]]()
    first = budget.hold("upper", ONE, FP32, 5.0, made(found), 2)
    assert budget.hold("upper", ONE, FP32, 5.0, made(found), 2) is first and len(found) == 1
    budget.hold("whole", ONE, FP32, 9.0, made(found))
    assert budget.held == {"upper": 5.0, "whole": 9.0}
    assert budget.hold("upper", ONE, FP32, 5.0, made(found), 2) is first


@pytest.mark.parametrize(
    ("then", "left"),
    [
        (lambda budget: budget.turn_to(ONE, FP32), ["upper", "whole"]),
        (lambda budget: budget.turn_to(ONE, FP32, 2), ["upper", "whole"]),
        (lambda budget: budget.turn_to(ONE, FP32, 3), ["whole"]),
        (lambda budget: budget.turn_to(ONE, BF16, 2), []),
        (lambda budget: budget.turn_to(OTHER, FP32), []),
    ],
    ids=["same", "same block", "other block", "other type", "other model"],
)
def test_what_is_not_of_the_next_work_goes(room: SimpleNamespace, then: Any, left: list[str]) -> None:
    budget, found = WeightBudget(CPU), list[weakref.ref[Any]]()
    budget.hold("upper", ONE, FP32, 5.0, made(found), 2)
    budget.hold("whole", ONE, FP32, 9.0, made(found))
    then(budget)
    assert list(budget.held) == left
    assert [part for part, ref in zip(("upper", "whole"), found, strict=True) if ref() is not None] == left


def test_for_want_of_room_what_nobody_uses_goes_the_longest_unused_first(room: SimpleNamespace) -> None:
    budget, found = WeightBudget(CPU), list[weakref.ref[Any]]()
    budget.hold("whole", ONE, FP32, 9.0, made(found))
    in_use = budget.hold("upper", ONE, FP32, 5.0, made(found), 2)
    budget.make_room(1e11)
    assert list(budget.held) == ["whole", "upper"], "there is room"
    room.bytes = 1.0
    budget.make_room(10.0)
    assert list(budget.held) == ["upper"] and found[0]() is None, "what is in use cannot go"
    assert budget.hold("upper", ONE, FP32, 5.0, made(found), 2) is in_use
    del in_use
    budget.make_room(10.0)
    assert budget.held == {} and found[1]() is None


def test_no_more_goes_than_must(room: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, found = WeightBudget(CPU), list[weakref.ref[Any]]()
    budget.hold("upper", ONE, FP32, 50.0, made(found), 2)
    budget.hold("whole", ONE, FP32, 90.0, made(found))
    budget.hold("upper", ONE, FP32, 50.0, made(found), 2)
    held = {"upper": 50.0, "whole": 90.0}
    alive = [(ref, size) for ref, size in zip(found, held.values(), strict=True)]
    monkeypatch.setattr(
        weight_budget, "free_bytes", lambda device: 10.0 + sum(size for ref, size in alive if ref() is None)
    )
    budget.make_room(80.0)
    assert budget.held == {"upper": 50.0}, "the whole model was not used since, and is enough"


def test_weights_of_an_adapter_that_is_over_are_collected_though_it_holds_itself(room: SimpleNamespace) -> None:
    budget, found = WeightBudget(CPU), list[weakref.ref[Any]]()
    gc.disable()
    try:
        over = SimpleNamespace(upper=budget.hold("upper", ONE, FP32, 5.0, made(found), 2))
        over.own = over
        del over
        budget.turn_to(OTHER, FP32)
        assert found[0]() is None
    finally:
        gc.enable()


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Loads]:
    """Note at each load of weights, on a node that has nothing, what is loaded and what of earlier ones is alive."""
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    parity.reference.cache_clear()
    noted: Loads = []
    alive: list[tuple[str, weakref.ref[Any]]] = []
    plain = cut.load_part

    def noting(what: str) -> Callable[..., Any]:
        def load(card: Any, *args: Any, **told: Any) -> Any:
            part = what or ("upper" if told["first"] and told.get("head", True) else "trunk")
            noted.append((f"{part} {card.family}", [name for name, ref in alive if ref() is not None]))
            found = plain(card, *args, **told)
            alive.append((f"{part} {card.family}", weakref.ref(found[0])))
            return found

        return load

    for module, what in ((cut, ""), (parity, "check"), (reference, "whole"), (trunk, "all"), (upper, "all")):
        monkeypatch.setattr(module, "load_part", noting(what))
    gc.collect()
    gc.disable()
    yield noted
    gc.enable()
    parity.reference.cache_clear()


def work(cache: ProcessCache, spec: TrialSpec) -> Adapter[Any]:
    """Train a memory for an epoch, and have the whole model asked."""
    texts, plan = cache.texts(spec), adapter_plan(vars(spec))
    shared = PackTexts(texts.train, texts.segments, len(texts.documents))
    adapter: Adapter[Any] = plan.load()([plan], cache.parts(spec), shared)
    adapter.train_epoch(0)
    with adapter.attached(0):
        return adapter


def test_every_load_finds_only_what_the_work_at_hand_needs(
    loads: Loads, small_trial: Callable[..., TrialSpec], tiny_models: dict[str, Path]
) -> None:
    """On a change of block, of model and back; the collector is off, so that it is the budget that sees to it."""
    cache = ProcessCache(CPU, 10**9)
    first, deeper, other = (
        small_trial(layer=layer, model=str(tiny_models[name]))
        for layer, name in ((1, "llama"), (2, "llama"), (1, "gpt_neox"))
    )
    work(cache, first)
    assert loads == [
        ("check llama", []), ("trunk llama", []), ("upper llama", []), ("whole llama", ["upper llama"]),
    ]  # fmt: skip
    del loads[:]
    adapter = work(cache, deeper)
    assert loads == [("trunk llama", ["whole llama"]), ("upper llama", ["whole llama"])]
    assert set(cache.budget.held) == {"upper", "whole"}
    del loads[:], adapter
    work(cache, other)
    assert loads == [
        ("check gpt_neox", []), ("trunk gpt_neox", []), ("upper gpt_neox", []), ("whole gpt_neox", ["upper gpt_neox"]),
    ]  # fmt: skip
    del loads[:]
    work(cache, first)
    assert loads == [("upper llama", []), ("whole llama", ["upper llama"])], "states and checks are kept on disk"
    del loads[:]
    work(cache, small_trial(method="full_update", model=str(tiny_models["gpt_neox"])))
    assert loads == [("whole gpt_neox", [])]


def test_where_memory_is_short_the_whole_model_goes_too(
    loads: Loads, small_trial: Callable[..., TrialSpec], room: SimpleNamespace
) -> None:
    cache = ProcessCache(CPU, 10**9)
    room.bytes = 0.0
    adapter = work(cache, small_trial(layer=1))
    assert loads[-1] == ("whole llama", ["upper llama"]), "the adapter uses the blocks above it"
    assert cache.budget.held["upper"] and adapter.num_members == 1
    del loads[:], adapter
    work(cache, small_trial(layer=2))
    assert loads == [("trunk llama", []), ("upper llama", []), ("whole llama", ["upper llama"])]


def test_a_load_that_fails_holds_nothing(room: SimpleNamespace) -> None:
    budget = WeightBudget(CPU)
    budget.hold("upper", ONE, FP32, 5.0, made([]), 2)
    with pytest.raises(MemoryError):
        budget.hold("upper", ONE, FP32, 5.0, lambda: (_ for _ in ()).throw(MemoryError()), 3)
    assert budget.held == {}


def test_sizes_are_those_of_the_weights() -> None:
    assert model_bytes(ONE, BF16) == 2 * ONE.params
    assert part_bytes(ONE, FP32, 2) == 4 * (2 * ONE.block_params + ONE.head_params)


def test_a_process_with_a_share_of_a_gpu_counts_on_that_share_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes on one card: what is free of it is not all this one's."""
    gpu = torch.device("cuda", 0)
    told = {
        "mem_get_info": (70e9, 80e9), "get_per_process_memory_fraction": 0.5, "memory_reserved": 12e9,
        "memory_allocated": 10e9,
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda index, value=value: value)
    assert placement.free_bytes(gpu) == 0.5 * 80e9 - 10e9
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda index: 1.0)
    assert placement.free_bytes(gpu) == 70e9, "80 less 10 are not free where others hold some"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (20e9, 80e9))
    assert placement.free_bytes(gpu) == 22e9, "what torch keeps and nobody uses is free"
    recordings = [CudaGraphs(), CudaGraphs()]
    recordings[0].pool_bytes, recordings[1].pool_bytes = 10**9, 5 * 10**8
    assert placement.free_bytes(gpu) == 20.5e9, "what recorded passes keep is not"
    recordings.clear()
    assert placement.free_bytes(gpu) == 22e9, "it goes when they go"
    card = model_card("pythia-6.9b")
    assert placement.placement(card, FP32, gpu)["device_map"] == "auto"
    assert placement.placement(card, BF16, gpu) == {"device_map": {"": 0}}
    assert placement.blocks_fit(card, 10, BF16, gpu) and not placement.blocks_fit(card, 30, FP32, gpu)
