"""The error of the model as it comes is computed once per model, texts and dtype, not in each process and layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.adapters.adapter import PackTexts
from trainables.adapters.registry import adapter_plan
from trainables.lm.hidden import HiddenStates
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.upper import Upper
from trainables.pack.process_cache import ProcessCache
from trainables.trial.spec import TrialSpec

Trial = Callable[..., TrialSpec]


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The target tokens of each loss that is computed above a block."""
    seen: list[int] = []
    nll = Upper.nll

    def counted(self: Upper, final: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(len(labels))
        return nll(self, final, labels)

    monkeypatch.setattr(Upper, "nll", counted)
    return seen


def before(spec: TrialSpec, folder: Path) -> float:
    """Build a trial's adapter in a new process, as far as what it keeps goes."""
    cache = ProcessCache(torch.device("cpu"), 10**9)
    cache._hidden_cache = HiddenCache(folder, 10**9)
    texts = cache.texts(spec)
    shared = PackTexts(texts.train, texts.segments, len(texts.documents))
    plan = adapter_plan(vars(spec))
    return plan.load()([plan], cache.parts(spec), shared).nll_before


def test_it_is_computed_once(small_trial: Trial, losses: list[int], tmp_path: Path) -> None:
    first = before(small_trial(layer=1), tmp_path)
    assert sum(losses) > 0
    losses.clear()
    same: list[dict[str, Any]] = [
        {"layer": 1}, {"layer": 2}, {"layer": 1, "seed": 4, "memory_dim": 8}, {"method": "lora", "layer": 1},
        {"method": "pretrained"}, {"method": "prompt"}, {"method": "full_update"},
    ]  # fmt: skip
    assert [before(small_trial(**values), tmp_path) for values in same] == [first] * len(same)
    assert losses == []


def test_a_pack_that_is_made_anew_does_not_look_for_it_again(
    small_trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, asked = ProcessCache(torch.device("cpu"), 10**9), list[int]()
    find = HiddenStates.pretrained_nll

    def counted(self: HiddenStates, texts: Any, compute: Any) -> float:
        asked.append(len(texts))
        return find(self, texts, compute)

    monkeypatch.setattr(HiddenStates, "pretrained_nll", counted)
    packs = [
        [small_trial(layer=1)],
        [small_trial(layer=1), small_trial(layer=2, seed=3)],
        [small_trial(layer=2, seed=3)],
    ]
    for specs in packs:
        texts, plans = cache.texts(specs[0]), [adapter_plan(vars(spec)) for spec in specs]
        shared = PackTexts(texts.train, texts.segments, len(texts.documents))
        assert plans[0].load()(plans, cache.parts(specs[0]), shared).nll_before > 0
    assert len(asked) == 1, "it hashes all texts"


@pytest.mark.parametrize("values", [{"num_documents": 3}, {"segment_tokens": 32}, {"dtype": "bfloat16"}])
@pytest.mark.thorough(only=("values1",))
def test_what_it_depends_on_has_it_computed_anew(
    small_trial: Trial, losses: list[int], tmp_path: Path, values: dict[str, Any]
) -> None:
    first = before(small_trial(layer=1), tmp_path)
    losses.clear()
    assert before(small_trial(layer=1, **values), tmp_path) != first and losses


def test_the_same_tokens_with_other_targets_are_other_texts(small_trial: Trial, tmp_path: Path) -> None:
    cache = ProcessCache(torch.device("cpu"), 10**9)
    cache._hidden_cache = HiddenCache(tmp_path, 10**9)
    source = cache.parts(small_trial(layer=1)).hidden_states()
    tree = TokenTree.chain([1, 2, 3, 4])
    found = [
        source.pretrained_nll([TrainingText(tree, 0, first)], lambda first=first: float(first)) for first in (1, 3)
    ]
    assert found == [1.0, 3.0]


@pytest.mark.parametrize("content", ["", "nan", "1.5e", "\x00"])
@pytest.mark.thorough(but=("nan",))
def test_what_is_broken_is_computed_again(small_trial: Trial, losses: list[int], tmp_path: Path, content: str) -> None:
    first = before(small_trial(layer=1), tmp_path)
    (kept,) = tmp_path.rglob("nll/*.txt")
    kept.write_text(content)
    losses.clear()
    assert before(small_trial(layer=1), tmp_path) == first and losses
    assert float(kept.read_text()) == first


def test_where_nothing_can_be_kept_it_is_computed_each_time(small_trial: Trial, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    first = before(small_trial(layer=1), tmp_path / "kept")
    assert before(small_trial(layer=1), tmp_path / "file") == pytest.approx(first, abs=1e-6)
