"""K LoRAs in one pass against peft itself: trained, asked, stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from trainables.adapters.adapter import Adapter
from trainables.adapters.lora.adapter import LoraAdapter
from trainables.adapters.lora.targets import is_target, usual_maps
from trainables.adapters.registry import adapter_plan
from trainables.errors import ConfigError, DataError
from trainables.lm.card import model_card
from trainables.lm.token_tree import TokenTree
from trainables.lm.upper import Upper
from trainables.pack.process_cache import ProcessCache
from trainables.pack.trial_check import check_trials
from trainables.trial.identity import identity, trial_id
from trainables.trial.spec import TrialSpec

MEMBERS: list[dict[str, Any]] = [{"lora_alpha": 6.0}, {"lora_alpha": 1.0, "lr": 3e-3}]
COMMON: dict[str, Any] = {
    "method": "lora", "layer": 1, "rank": 3, "lr": 1e-2, "weight_decay": 0.1, "grad_clip": 0.5, "warmup_steps": 3,
    "lora_targets": ("q_proj", "down_proj"),
}  # fmt: skip
FAST: dict[str, Any] = {"warmup_steps": 0, "lr": 0.05, "grad_clip": 10.0}
BRANCHED = [TokenTree((7, 8, 9, 9, 11, 12), (-1, 0, 1, 1, 3, 2)), TokenTree((5, 6, 7, 8), (-1, 0, 0, 2))]
BFLOAT16_EPS = 2.0**-7
"""Between neighbouring numbers near 1. Measured: gradients are half of it off those of peft, all of it off float32."""
Trial = Callable[..., TrialSpec]
Build = Callable[..., Adapter]


@pytest.fixture
def specs(small_trial: Trial) -> list[TrialSpec]:
    return [small_trial(**{**COMMON, **member}) for member in MEMBERS]


def trained_by_peft(
    plainly: Callable[..., int], spec: TrialSpec, texts: list[list[int]], initial: dict[str, torch.Tensor]
) -> Any:
    """Train one LoRA by peft and torch alone, a text at a time."""
    model = AutoModelForCausalLM.from_pretrained(spec.model)
    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.lora_alpha, target_modules=list(spec.lora_targets), layers_to_transform=[2, 3],
        task_type="CAUSAL_LM",
    )  # fmt: skip
    peft_model = get_peft_model(model, config)
    mine = {n: p for n, p in peft_model.named_parameters() if p.requires_grad}
    for name, parameter in mine.items():
        parameter.data.copy_(initial[name.removeprefix("base_model.model.").replace(".default", "")])
    plainly(spec, texts, mine, lambda row: peft_model(input_ids=row, labels=row).loss)
    return peft_model


def test_members_of_a_pack_are_trained_as_peft_trains_them(
    specs: list[TrialSpec], build: Build, plainly: Callable[..., int]
) -> None:
    pack = build(*specs)
    texts = [list(text.tree.tokens) for text in pack.texts.train]
    initial = [dict(pack.state(k).weights) for k in range(2)]
    assert -(-len(texts) // 4) * specs[0].epochs >= 6
    for epoch in range(specs[0].epochs):
        pack.train_epoch(epoch)
    for k, spec in enumerate(specs):
        peft_model = trained_by_peft(plainly, spec, texts, initial[k])
        found = {n.replace(".default", ""): p for n, p in peft_model.named_parameters() if p.requires_grad}
        weights = pack.state(k).weights
        assert len(weights) == len(found) == 2 * 2 * 2
        for name, value in weights.items():
            torch.testing.assert_close(value, found[f"base_model.model.{name}"].data, atol=2e-5, rtol=0)
            assert float((value - initial[k][name]).abs().max()) > 1e-3


def test_what_is_stored_is_read_by_peft(small_trial: Trial, build: Build, tmp_path: Path) -> None:
    specs = [small_trial(**{**COMMON, **FAST, "lora_alpha": alpha}) for alpha in (1.0, 6.0)]
    pack = build(*specs)
    pack.train_epoch(0)
    for name, content in pack.stored(1).items():
        (tmp_path / name).write_bytes(content)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(specs[1].model), str(tmp_path))
    tokens = torch.tensor([pack.texts.segments[0].tree.tokens])
    with torch.no_grad(), pack.attached(1) as whole:
        torch.testing.assert_close(model(tokens).logits, whole(tokens), atol=1e-5, rtol=0)
        bare = AutoModelForCausalLM.from_pretrained(specs[1].model)(tokens).logits
        assert float((bare - whole(tokens)).abs().max()) > 1e-2
    other = build(*specs)
    with pytest.raises(DataError, match="adapter_model"):
        other.load_stored(0, {})
    with pytest.raises(DataError, match="lora"):
        other.load_stored(0, build(specs[0], specs[0]).stored(0) | build_of(build, specs[0], rank=2))


def build_of(build: Build, spec: TrialSpec, **values: Any) -> dict[str, bytes]:
    from dataclasses import replace

    return build(replace(spec, **values)).stored(0)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("way", ["rows", "whole"])
@pytest.mark.thorough(but=("rows-llama",))
def test_a_pack_gets_the_same_where_blocks_are_not_told_about_texts(
    family: str, way: str, small_trial: Trial, build: Build, tiny_models: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    values = {**COMMON, **FAST, "lora_targets": "all", "model": str(tiny_models[family])}
    specs = [small_trial(**{**values, "lora_alpha": alpha}) for alpha in (1.0, 60.0)]
    direct = build(*specs)
    means = direct.train_epoch(0)
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path))
    if way == "rows":
        monkeypatch.setattr("trainables.lm.upper.attention_can_be_told", lambda card: False)
    else:
        monkeypatch.setattr(Upper, "agrees", lambda *_: False)
    other = _build_anew(specs, build)
    assert not other.upper.direct and other.upper.needs_tokens == (way == "whole")  # type: ignore[attr-defined]
    for one, same in zip(means, other.train_epoch(0), strict=True):
        assert one == pytest.approx(same, abs=1e-4)
    assert direct.nll(direct.texts.segments) == pytest.approx(other.nll(other.texts.segments), abs=1e-4)
    trees = [*BRANCHED, *(text.tree for text in direct.texts.segments)]
    nodes = [range(len(tree)) for tree in trees]
    said = [adapter.next_tokens(trees, [0] * len(trees), nodes) for adapter in (direct, other)]
    assert (said[0] == said[1]).mean() > 0.99 and (said[0][0] != said[0][1]).any()


def _build_anew(specs: list[TrialSpec], build: Build) -> Adapter:
    from trainables.adapters.adapter import PackTexts

    cache = ProcessCache(torch.device("cpu"), 10**9)
    texts = cache.texts(specs[0])
    plans = [adapter_plan(vars(spec)) for spec in specs]
    shared = PackTexts(texts.train, texts.segments, len(texts.documents))
    return plans[0].load()(plans, cache.parts(specs[0]), shared)


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.parametrize("targets", [("all",), ("attention",), ("mlp",)])
def test_a_plan_counts_the_parameters_that_are_trained(
    family: str, targets: tuple[str, ...], small_trial: Trial, build: Build, tiny_models: dict[str, Path]
) -> None:
    spec = small_trial(**{**COMMON, "lora_targets": targets, "model": str(tiny_models[family])})
    plan, card = adapter_plan(vars(spec)), model_card(spec.model)
    trained = sum(value.numel() for value in build(spec).state(0).weights.values())
    assert plan.added_params(card) == trained > 0


def test_spellings_of_the_same_targets_are_one_trial(small_trial: Trial) -> None:
    ids = {trial_id(identity(small_trial(**{**COMMON, "lora_targets": t}))) for t in ("all", "mlp+attention", "all+q")}
    assert len(ids) == 1
    assert trial_id(identity(small_trial(**{**COMMON, "lora_targets": "mlp"}))) not in ids


def test_experts_and_parts_of_names_are_no_targets() -> None:
    assert is_target("self_attn.q_proj", ("q_proj",)) and is_target("self_attn.q_proj", ("self_attn.q_proj",))
    assert not is_target("self_attn.q_proj", ("proj",)) and not is_target("mlp.experts.3.up_proj", ("all",))
    assert {found.path for found in usual_maps(model_card("pythia-70m")) if is_target(found.path, ("dense",))} == {
        "attention.dense"
    }


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"lora_targets": "c_attn"}, r"lora_targets=c_attn: no linear map .*q_proj, k_proj"),
        ({"layer": 3}, r"layer=3: a lora is on the blocks above it, .*choose 0 to 2"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_anything_starts(
    values: dict[str, Any], told: str, small_trial: Trial, build: Build
) -> None:
    spec = small_trial(**{**COMMON, **values})
    with pytest.raises(ConfigError, match=told):
        check_trials([(spec, model_card(spec.model))])
    with pytest.raises(ConfigError, match=told):
        build(spec)


def test_no_target_at_all_is_a_mistake(small_trial: Trial) -> None:
    with pytest.raises(ConfigError, match="lora_targets=: names no linear map"):
        small_trial(**{**COMMON, "lora_targets": ""})


def gradients(adapter: Adapter, member: int) -> dict[str, torch.Tensor]:
    """Return the gradients of a member's A and B from all texts in one step."""
    assert isinstance(adapter, LoraAdapter)
    count = len(adapter.texts.train)
    (batch,) = adapter.states[adapter.layer].train.steps(np.arange(count), count)
    adapter.stacks.zero_grad()
    adapter.losses(batch, slice(None), batch).objective.sum().backward()
    found = {name: adapter.stacks.stack(name).grad for name in adapter.state(member).weights}
    return {name: grad[member] for name, grad in found.items() if grad is not None}


def test_gradients_in_bfloat16_are_those_of_peft_and_nearly_those_of_float32(small_trial: Trial, build: Build) -> None:
    members = [{**COMMON, **FAST, "lora_alpha": alpha} for alpha in (1.0, 6.0)]
    exact = build(*[small_trial(**member) for member in members])
    rough = build(*[small_trial(**{**member, "dtype": "bfloat16"}) for member in members])
    assert rough.upper.head_weight.dtype is torch.bfloat16  # type: ignore[attr-defined]
    exact.train_epoch(0)  # B is zero before, and so are the gradients of A
    for k in range(2):
        rough.load_state(k, exact.state(k))
    for k, member in enumerate(members):
        spec = small_trial(**member)
        model = AutoModelForCausalLM.from_pretrained(spec.model, dtype=torch.bfloat16)
        config = LoraConfig(
            r=3, lora_alpha=spec.lora_alpha, target_modules=list(spec.lora_targets), layers_to_transform=[2, 3],
            task_type="CAUSAL_LM",
        )  # fmt: skip
        peft_model = get_peft_model(model, config)
        mine = {
            name.removeprefix("base_model.model.").replace(".default", ""): parameter
            for name, parameter in peft_model.named_parameters()
            if parameter.requires_grad
        }
        for name, parameter in mine.items():
            assert parameter.dtype is torch.float32
            parameter.data.copy_(exact.state(k).weights[name])
        targets = sum(text.num_targets for text in exact.texts.train)
        for text in exact.texts.train:
            row = torch.tensor([text.tree.tokens])
            (peft_model(input_ids=row, labels=row).loss * text.num_targets / targets).backward()
        own, plain = gradients(rough, k), gradients(exact, k)
        for name, parameter in mine.items():
            assert parameter.grad is not None and own[name].dtype is torch.float32
            assert float((own[name] - parameter.grad).norm() / parameter.grad.norm()) < BFLOAT16_EPS, name
            assert float((own[name] - plain[name]).norm() / plain[name].norm()) < 2 * BFLOAT16_EPS, name
            assert not torch.equal(own[name], plain[name]), "it is really computed in bfloat16"
