"""Two memories against a program of its own; what each learns from; where they may stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from trainables.adapters.adapter import Adapter, PackTexts
from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.io import read_memory
from trainables.adapters.registry import adapter_plan
from trainables.errors import ConfigError, DataError
from trainables.lm.batches import epoch_order
from trainables.lm.card import model_card
from trainables.pack.process_cache import ProcessCache
from trainables.pack.trial_check import check_trials
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec

Trial = Callable[..., TrialSpec]
Build = Callable[..., Adapter]
COMMON: dict[str, Any] = {
    "method": "two_memories", "layer": 1, "memory_dim": 16, "content": "document+template", "lr": 1e-2, "epochs": 2,
    "num_documents": 2, "num_shots": 0, "weight_decay": 0.1, "grad_clip": 0.5, "batch_size": 3, "warmup_steps": 0,
}  # fmt: skip


@pytest.mark.parametrize("template_layer", [None, 2, 0])
@pytest.mark.thorough(only=("0",))
def test_each_learns_from_its_own_kind_while_both_act(
    template_layer: int | None, small_trial: Trial, build: Build
) -> None:
    spec = small_trial(**COMMON, template_layer=template_layer)
    pack = build(spec, small_trial(**{**COMMON, "lr": 1e-3}, template_layer=template_layer))
    initial = dict(pack.state(0).weights)
    for epoch in range(2):
        pack.train_epoch(epoch)
    memories = {}
    for kind in ("document", "template"):
        memories[kind] = Memory(32, 16, seed=None)
        memories[kind].load_state_dict({n.partition(".")[2]: v for n, v in initial.items() if n.startswith(kind)})
    model = AutoModelForCausalLM.from_pretrained(spec.model).requires_grad_(False)
    hooked: dict[int, list[Memory]] = {}
    for kind, layer in (("document", 1), ("template", 1 if template_layer is None else template_layer)):
        hooked.setdefault(layer, []).append(memories[kind])
    for layer, own in hooked.items():
        model.model.layers[layer].register_forward_hook(
            lambda block, args, out, own=own: out + sum(memory(out) for memory in own)
        )
    parameters = [p for memory in memories.values() for p in memory.parameters()]
    adamw = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay)
    texts, segments = list(pack.texts.train), {text.tree.digest() for text in pack.texts.segments}
    assert 0 < len(segments) < len(texts)
    total, done = -(-len(texts) // spec.batch_size) * spec.epochs, 0
    for epoch in range(spec.epochs):
        order = epoch_order(len(texts), spec.seed, epoch).tolist()
        for start in range(0, len(order), spec.batch_size):
            step = [texts[i] for i in order[start : start + spec.batch_size]]
            gradients = [torch.zeros_like(p) for p in parameters]
            for text in step:
                row = torch.tensor([text.tree.tokens])
                loss = model(input_ids=row, labels=row).loss * text.num_targets / sum(t.num_targets for t in step)
                kind = "document" if text.tree.digest() in segments else "template"
                own = list(memories[kind].parameters())
                for parameter, gradient in zip(own, torch.autograd.grad(loss, own), strict=True):
                    place = next(i for i, p in enumerate(parameters) if p is parameter)
                    gradients[place] += gradient
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            torch.nn.utils.clip_grad_norm_(parameters, spec.grad_clip)
            for group in adamw.param_groups:
                group["lr"] = spec.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done / total)).item())
            adamw.step()
            done += 1
    trained = pack.state(0).weights
    for kind, memory in memories.items():
        for name, value in memory.state_dict().items():
            torch.testing.assert_close(trained[f"{kind}.{name}"], value, atol=2e-5, rtol=0)
            assert not torch.equal(trained[f"{kind}.{name}"], initial[f"{kind}.{name}"])


def test_what_is_stored_is_two_memories_of_two_blocks(small_trial: Trial, build: Build) -> None:
    adapter = build(small_trial(**COMMON, template_layer=3))
    adapter.train_epoch(0)
    files = adapter.stored(0)
    found = {name: read_memory(content, name) for name, content in files.items()}
    assert {name: memory.layer for name, memory in found.items()} == {
        "memory.safetensors": 1, "template_memory.safetensors": 3,
    }  # fmt: skip
    tokens = torch.tensor([adapter.texts.segments[0].tree.tokens])
    with torch.no_grad(), adapter.attached(0) as whole:
        both: Tensor = whole(tokens)
        bare = adapter.parts.whole_model()
        assert bare is whole
    with pytest.raises(DataError, match="template_memory.safetensors: missing"):
        adapter.load_stored(0, {"memory.safetensors": files["memory.safetensors"]})
    assert both.isfinite().all()


def test_models_that_cannot_be_split_give_the_same(
    small_trial: Trial, build: Build, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [small_trial(**{**COMMON, "lr": lr}, template_layer=2) for lr in (1e-2, 1e-3)]
    means = build(*specs).train_epoch(0)
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    monkeypatch.setattr("trainables.lm.upper.attention_can_be_told", lambda card: False)
    cache = ProcessCache(torch.device("cpu"), 10**9)
    texts = cache.texts(specs[0])
    plans = [adapter_plan(vars(spec)) for spec in specs]
    other = plans[0].load()(plans, cache.parts(specs[0]), PackTexts(texts.train, texts.segments, len(texts.documents)))
    for one, same in zip(means, other.train_epoch(0), strict=True):
        assert one == pytest.approx(same, abs=2e-5)


def test_the_same_block_spelled_out_is_the_same_trial_and_no_block_is_refused(small_trial: Trial, build: Build) -> None:
    ids = [trial_id(identity(small_trial(**COMMON, template_layer=layer))) for layer in (None, 1, 2)]
    assert ids[0] == ids[1] != ids[2]
    spec = small_trial(**COMMON, template_layer=4)
    for refuse in (lambda: check_trials([(spec, model_card(spec.model))]), lambda: build(spec)):
        with pytest.raises(ConfigError, match="template_layer=4: .* has 4 blocks, 0 to 3"):
            refuse()
    with pytest.raises(ConfigError, match="content=document: two memories need both kinds"):
        small_trial(**{**COMMON, "content": "document"})
