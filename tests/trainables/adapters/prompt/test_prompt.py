"""A tuned prompt against peft itself: trained, asked, stored; and what does not fit the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trainables.adapters.adapter import Adapter
from trainables.errors import ConfigError, DataError
from trainables.lm.card import model_card
from trainables.lm.token_tree import TokenTree
from trainables.pack.trial_check import check_trials
from trainables.trial.spec import TrialSpec

COMMON: dict[str, Any] = {
    "method": "prompt", "virtual_tokens": 5, "lr": 3e-2, "weight_decay": 0.1, "grad_clip": 0.5, "epochs": 10,
    "batch_size": 3,
}  # fmt: skip
Trial = Callable[..., TrialSpec]
Build = Callable[..., Adapter]


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_it_is_trained_as_peft_trains_it(
    family: str, small_trial: Trial, build: Build, tiny_models: dict[str, Path], plainly: Callable[..., int]
) -> None:
    spec = small_trial(**COMMON, model=str(tiny_models[family]))
    adapter = build(spec)
    (initial,) = adapter.state(0).weights.values()
    model = AutoModelForCausalLM.from_pretrained(spec.model)
    rows = model.get_input_embeddings().weight
    assert all((rows == vector).all(dim=1).any() for vector in initial) and len(initial.unique(dim=0)) == 5
    peft_model = get_peft_model(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5))
    vectors = peft_model.prompt_encoder["default"].embedding.weight
    vectors.data.copy_(initial)
    texts = [list(text.tree.tokens) for text in adapter.texts.train]

    def nll(row: torch.Tensor) -> Any:
        labels = row.clone()
        labels[:, 0] = -100  # the first token of a text is never predicted, though vectors come before it
        return peft_model(input_ids=row, labels=labels).loss

    steps = plainly(spec, texts, {"vectors": vectors}, nll)
    assert steps >= 20
    for epoch in range(spec.epochs):
        adapter.train_epoch(epoch)
    (trained,) = adapter.state(0).weights.values()
    torch.testing.assert_close(trained, vectors.data, atol=2e-5, rtol=0)
    assert float((trained - initial).abs().max()) > 1e-2


def test_what_is_stored_is_read_by_peft(small_trial: Trial, build: Build, tmp_path: Path) -> None:
    spec = small_trial(**COMMON)
    adapter = build(spec)
    adapter.train_epoch(0)
    files = adapter.stored(0)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(spec.model), str(tmp_path))
    tokens = torch.tensor([adapter.texts.segments[0].tree.tokens])
    with torch.no_grad(), adapter.attached(0) as whole:
        torch.testing.assert_close(model(tokens).logits[:, 5:], whole(tokens), atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="adapter_model"):
        build(spec).load_stored(0, {})
    with pytest.raises(DataError, match="vectors of a prompt"):
        build(small_trial(**{**COMMON, "virtual_tokens": 4})).load_stored(0, files)


def test_a_tree_of_prompts_says_what_its_texts_say(small_trial: Trial, build: Build) -> None:
    adapter = build(small_trial(**COMMON))
    adapter.train_epoch(0)
    tree = TokenTree((7, 8, 9, 9, 11, 12), (-1, 0, 1, 1, 3, 2))
    found = adapter.next_tokens([tree], [0], [[4, 5]])
    paths = [TokenTree.chain([tree.tokens[node] for node in tree.path(leaf)]) for leaf in (4, 5)]
    assert np.array_equal(found, adapter.next_tokens(paths, [0, 0], [[len(path) - 1] for path in paths]))


def test_it_and_its_texts_must_fit_the_models_positions(small_trial: Trial, build: Build) -> None:
    spec = small_trial(**{**COMMON, "virtual_tokens": 2040})
    card = model_card(spec.model)
    assert card.positions == 2048
    with pytest.raises(ConfigError, match="segment_tokens=48: .* at most 8 tokens after the 2040 of a prompt"):
        check_trials([(spec, card)])
    with pytest.raises(ConfigError, match="virtual_tokens=2040: with a text of 48 tokens more than the 2048"):
        build(spec)
