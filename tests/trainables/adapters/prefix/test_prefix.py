"""A tuned prefix against peft itself: trained, asked, stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

from trainables.adapters.adapter import Adapter
from trainables.adapters.registry import adapter_plan
from trainables.errors import DataError
from trainables.lm.card import model_card
from trainables.trial.spec import TrialSpec

COMMON: dict[str, Any] = {
    "method": "prefix", "virtual_tokens": 5, "lr": 3e-2, "weight_decay": 0.1, "grad_clip": 0.5, "epochs": 10,
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
    card = model_card(spec.model)
    assert initial.numel() == adapter_plan(vars(spec)).stored_params(card) == adapter.trained_params(0)
    peft_model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(spec.model),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    )
    vectors = peft_model.prompt_encoder["default"].embedding.weight
    vectors.data.copy_(initial)
    texts = [list(text.tree.tokens) for text in adapter.texts.train]

    def nll(row: torch.Tensor) -> Any:
        logits = peft_model(input_ids=row).logits  # none for the prefix
        return torch.nn.functional.cross_entropy(logits[0, :-1], row[0, 1:])

    steps = plainly(spec, texts, {"vectors": vectors}, nll)
    assert steps >= 20
    for epoch in range(spec.epochs):
        adapter.train_epoch(epoch)
    (trained,) = adapter.state(0).weights.values()
    torch.testing.assert_close(trained, vectors.data, atol=5e-5, rtol=0)
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
        torch.testing.assert_close(model(tokens).logits, whole(tokens), atol=1e-5, rtol=0)
    with pytest.raises(DataError, match="keys and values of a prefix"):
        build(small_trial(**{**COMMON, "method": "prefix", "virtual_tokens": 4})).load_stored(0, files)
