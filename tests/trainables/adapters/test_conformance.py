"""What every adapter keeps to, as `trainables.adapters.adapter.Adapter` says. A new one adds its settings here."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainables.adapters.adapter import Adapter
from trainables.adapters.registry import ADAPTERS, adapter_plan
from trainables.errors import ConfigError
from trainables.lm import repeatable
from trainables.lm.card import model_card
from trainables.lm.texts import NO_DOCUMENT
from trainables.pack.process_cache import ProcessCache
from trainables.trial.spec import TrialSpec

# For each method: the members of a pack, which agree in all that is not free within one.
MEMBERS: dict[str, list[dict[str, Any]]] = {
    "memory": [
        {"layer": 1, "lr": 1e-2},
        {"layer": 1, "lr": 3e-3, "alpha": 1.0, "allocation": "partitioned"},
        {"layer": 1, "alpha": 5.0, "allocation": "simset2", "weight_decay": 0.0},
    ],
    "pretrained": [{}],
    "allocate": [{"allocation": "simset2", "num_clusters": 2}],
    "full_update": [{"lr": 1e-3}],
    "lora": [
        {"layer": 1, "lr": 1e-2, "rank": 4},
        {"layer": 1, "lr": 3e-3, "rank": 4, "lora_alpha": 1.0},
        {"layer": 1, "lr": 1e-2, "rank": 4, "weight_decay": 0.5},
    ],
    "prompt": [{"virtual_tokens": 3, "lr": 1e-2}],
    "prefix": [{"virtual_tokens": 3, "lr": 1e-2}],
    "docguidance": [
        {"layer": 1, "lr": 1e-2},
        {"layer": 1, "lr": 3e-3, "guidance_alpha": 1.0},
        {"layer": 1, "lr": 1e-2, "guidance_alpha": 0.5, "guidance_target": 6.0},
    ],
    "two_memories": [
        {"layer": 1, "template_layer": 2, "content": "document+template", "lr": 1e-2},
        {"layer": 1, "template_layer": 2, "content": "document+template", "lr": 3e-3, "weight_decay": 0.5},
    ],
    "shift": [{"layer": 2, "lr": 0.3}, {"layer": 2, "lr": 1.0}],
}
# What makes a member's loss infinite, on top of those.
WILD: dict[str, dict[str, Any]] = {
    "memory": {"lr": 1e30, "warmup_steps": 0, "norm_and_gate": False},
    "full_update": {"lr": 1e30, "warmup_steps": 0},
    "lora": {"lr": 1e30, "warmup_steps": 0},
    "prompt": {"lr": 1e38, "warmup_steps": 0},
    "prefix": {"lr": 1e38, "warmup_steps": 0},
    "docguidance": {"lr": 1e30, "warmup_steps": 0, "activation": "relu"},
    "two_memories": {"lr": 1e30, "warmup_steps": 0, "norm_and_gate": False},
    "shift": {"lr": 3e37},
}
CASES = [pytest.param(method, id=method) for method in MEMBERS]
TRAINED = [pytest.param(method, id=method) for method in WILD]
SAME = {"abs": 2e-5}
"""A member in a pack, and one by the plain way, differ from the same alone by the order of float32 sums."""

Build = Callable[..., Adapter]
Trial = Callable[..., TrialSpec]


def test_every_adapter_there_is_takes_part() -> None:
    assert set(MEMBERS) == set(ADAPTERS)
    assert set(WILD) == {name for name in ADAPTERS if ADAPTERS[name].trains}


@pytest.fixture
def specs(small_trial: Trial) -> Callable[..., list[TrialSpec]]:
    def make(method: str, **values: Any) -> list[TrialSpec]:
        return [small_trial(method=method, **{**member, **values}) for member in MEMBERS[method]]

    return make


@contextmanager
def no_random_state_used() -> Any:
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def answers(adapter: Adapter) -> list[list[int]]:
    """Return each member's next token after every token of the documents."""
    texts = adapter.texts.segments
    trees, documents = [text.tree for text in texts], [text.document for text in texts]
    return adapter.next_tokens(trees, documents, [range(len(tree)) for tree in trees]).tolist()


def findings(adapter: Adapter) -> list[Any]:
    return [(dict(found.metrics), found.analysis) for found in adapter.findings()]


def flat(adapter: Adapter, member: int) -> torch.Tensor:
    weights = adapter.state(member).weights
    return torch.cat([torch.zeros(1), *(weights[name].flatten().float() for name in sorted(weights))])


def train(adapter: Adapter, epochs: int, first: int = 0) -> list[list[dict[str, float]]]:
    return [adapter.train_epoch(epoch) for epoch in range(first, first + epochs)]


@pytest.mark.parametrize("method", CASES)
def test_a_plan_says_what_it_costs_without_torch(method: str, small_trial: Trial, specs: Any) -> None:
    spec = specs(method)[0]
    plan, card = adapter_plan(vars(spec)), model_card(spec.model)
    assert plan.name == method
    assert (plan.train_token_flops(card) > 0) == plan.trains
    layer = plan.trunk_layer(card)
    assert layer is None or 0 <= layer < card.num_blocks
    assert plan.trial_blocks(card) == card.num_blocks - (0 if layer is None else layer + 1)
    assert plan.added_params(card) >= 0 and plan.stored_params(card) >= 0
    assert plan.weight_bytes(card, 4) == 2 * plan.weight_bytes(card, 2) > 0
    assert (plan.member_bytes(card, 4) > 0) == plan.trains and plan.token_bytes(card, 4) >= 0
    assert plan.head_pass_bytes(card, 4, 100, True) > plan.head_pass_bytes(card, 4, 10, False) > 0
    assert 0 <= plan.own_token_flops(card) <= plan.train_token_flops(card) or not plan.trains


def test_the_registry_is_read_without_torch() -> None:
    code = (
        "import trainables.adapters.registry, sys; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("method", CASES)
def test_what_is_built_twice_is_the_same(method: str, specs: Any, build: Build) -> None:
    with no_random_state_used():
        one, other = build(*specs(method)), build(*specs(method))
    assert one.num_members == len(MEMBERS[method]) == len(one.active) and all(one.active)
    for k in range(one.num_members):
        assert torch.equal(flat(one, k), flat(other, k))
    assert one.nll(one.texts.segments) == other.nll(other.texts.segments)


@pytest.mark.parametrize("method", CASES)
@pytest.mark.parametrize("epochs", [0, 1])
def test_asking_changes_nothing(method: str, epochs: int, specs: Any, build: Build) -> None:
    adapter = build(*specs(method))
    if ADAPTERS[method].trains:
        train(adapter, epochs)
    before = [flat(adapter, k) for k in range(adapter.num_members)]
    with no_random_state_used():
        first, second = ((answers(adapter), adapter.nll(adapter.texts.segments), findings(adapter)) for _ in range(2))
        with adapter.attached(0):
            pass
    assert first == second
    assert all(torch.equal(flat(adapter, k), old) for k, old in enumerate(before))
    assert all(math.isfinite(value) for value in first[1])
    assert all(math.isfinite(value) for metrics, _ in first[2] for value in metrics.values())


@pytest.mark.parametrize("method", CASES)
def test_the_fast_way_gives_what_the_whole_model_gives(method: str, specs: Any, build: Build) -> None:
    adapter = build(*specs(method))
    if ADAPTERS[method].trains:
        train(adapter, 2)
    fast, nll = answers(adapter), adapter.nll(adapter.texts.segments)
    for k in range(adapter.num_members):
        said: list[int] = []
        total, count = 0.0, 0
        for text in adapter.texts.segments:
            about = text.document if adapter.is_masked(k, text.document) else None
            with adapter.attached(k, about) as whole, torch.no_grad():
                tokens = torch.tensor([text.tree.tokens], device=adapter.parts.device)
                logits = whole(tokens)[0].double()
                said += logits.argmax(dim=-1).tolist()
                nlls = torch.nn.functional.cross_entropy(logits[:-1], tokens[0, 1:], reduction="sum")
                total, count = total + float(nlls), count + text.num_targets
        assert total / count == pytest.approx(nll[k], **SAME)
        differing = sum(a != b for a, b in zip(said, fast[k], strict=True))
        assert differing <= 0.005 * len(said), "more than near ties"


@pytest.mark.parametrize("method", CASES)
def test_other_texts_than_the_packs_can_be_evaluated(method: str, specs: Any, build: Build) -> None:
    adapter = build(*specs(method))
    texts = adapter.texts.segments
    parts = [adapter.nll([text]) for text in texts]
    weights = [text.num_targets for text in texts]
    for k, whole in enumerate(adapter.nll(texts)):
        mean = sum(part[k] * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)
        assert mean == pytest.approx(whole, **SAME)
        assert len({part[k] for part in parts}) > 1, "the texts must differ"


@pytest.mark.parametrize("method", CASES)
def test_each_text_has_an_error_of_its_own(method: str, specs: Any, build: Build) -> None:
    adapter = build(*specs(method))
    if ADAPTERS[method].trains:
        train(adapter, 2)
    texts = adapter.texts.segments
    mixed = [*texts[::-1], texts[1], replace(texts[0], document=NO_DOCUMENT, first_target=5)]
    found = adapter.text_nll(mixed)
    assert found.shape == (adapter.num_members, len(mixed)) and found.dtype == float
    for place, text in enumerate(mixed):
        assert found[:, place].tolist() == pytest.approx(adapter.nll([text]), **SAME)
    assert adapter.text_nll([]).shape[1] == 0


@pytest.mark.parametrize("method", CASES)
def test_the_error_before_training_is_the_pretrained_models(
    method: str, specs: Any, build: Build, small_trial: Trial
) -> None:
    bare = build(small_trial(method="pretrained"))
    assert build(*specs(method)).nll_before == pytest.approx(bare.nll(bare.texts.segments)[0], **SAME)


@pytest.mark.parametrize("method", CASES)
def test_the_shared_model_stays_as_it_was(method: str, specs: Any, build: Build, process_cache: ProcessCache) -> None:
    adapter = build(*specs(method))
    parts = process_cache.parts(specs(method)[0])
    tokens = torch.tensor([adapter.texts.segments[0].tree.tokens], device=parts.device)
    before = parts.whole_model()(tokens)
    upper = [p.clone() for p in parts.upper(1).parameters()]
    if ADAPTERS[method].trains:
        train(adapter, 1)
    with adapter.attached(0):
        pass
    assert torch.equal(parts.whole_model()(tokens), before)
    assert all(torch.equal(p, old) for p, old in zip(parts.upper(1).parameters(), upper, strict=True))
    assert not any(p.requires_grad for p in parts.whole_model().parameters())


@pytest.mark.parametrize("method", TRAINED)
def test_training_lowers_the_error_of_every_member(method: str, specs: Any, build: Build) -> None:
    adapter = build(*specs(method, epochs=4))
    before = adapter.nll(adapter.texts.segments)
    curves = train(adapter, 4)
    for k in range(adapter.num_members):
        means = [epoch[k] for epoch in curves]
        assert all({"train/nll", "train/loss"} <= found.keys() for found in means)
        assert all(name.startswith("train/") and math.isfinite(v) for found in means for name, v in found.items())
        assert means[-1]["train/nll"] < means[0]["train/nll"]
        assert adapter.nll(adapter.texts.segments)[k] < before[k]
    assert all(adapter.active)


@pytest.mark.parametrize("method", TRAINED)
def test_flops_are_those_that_planning_counts_with(method: str, specs: Any, build: Build) -> None:
    (adapter, plan) = build(*specs(method)), adapter_plan(vars(specs(method)[0]))
    card = adapter.parts.card
    tokens = sum(len(text.tree) for text in adapter.texts.train)
    assert adapter.train_flops(0) == 0 < adapter.train_flops(1)
    assert adapter.train_flops(3) == pytest.approx(3 * adapter.train_flops(1))
    planned = plan.train_flops(card, tokens, len(adapter.texts.train))
    # the head may be counted for target tokens only, of which each text has at least one fewer
    assert 0.9 < adapter.train_flops(1) / planned <= 1.0


@pytest.mark.parametrize("method", CASES)
def test_the_numbers_that_are_trained_are_counted(method: str, specs: Any, build: Build) -> None:
    adapter = build(*specs(method))
    for k in range(adapter.num_members):
        assert adapter.trained_params(k) == sum(value.numel() for value in adapter.state(k).weights.values())
        assert (adapter.trained_params(k) > 0) == ADAPTERS[method].trains


@pytest.mark.parametrize("method", [name for name in MEMBERS if len(MEMBERS[name]) > 1])
def test_each_member_of_a_pack_is_as_it_is_alone(method: str, specs: Any, build: Build) -> None:
    assert ADAPTERS[method].packs
    together = build(*specs(method))
    curves = train(together, 2)
    said, nll, found = answers(together), together.nll(together.texts.segments), findings(together)
    assert len({tuple(row) for row in said}) == len(said), "the members must differ"
    for k, spec in enumerate(specs(method)):
        alone = build(spec)
        for epoch, (means,) in enumerate(train(alone, 2)):
            assert means == pytest.approx(curves[epoch][k], **SAME)
        assert alone.nll(alone.texts.segments)[0] == pytest.approx(nll[k], **SAME)
        assert findings(alone)[0][0] == pytest.approx(found[k][0], **SAME)
        differing = sum(a != b for a, b in zip(answers(alone)[0], said[k], strict=True))
        assert differing <= 0.005 * len(said[k]), "more than near ties"


@pytest.mark.parametrize("method", TRAINED)
def test_members_may_be_at_epochs_of_their_own_where_the_plan_says_so(method: str, specs: Any, build: Build) -> None:
    together, plan = build(*specs(method)), ADAPTERS[method]
    own = list(range(together.num_members))  # the first begins, the second has done one epoch, …
    if not plan.own_texts:
        assert "seed" not in plan.unequal
        if len(own) > 1:
            with pytest.raises(NotImplementedError):
                together.train_epochs(own)
        return
    alone = [build(spec) for spec in specs(method)]
    for k, adapter in enumerate(alone):
        train(adapter, own[k])
        together.load_state(k, adapter.state(0))
    for _ in range(2):
        found = together.train_epochs(own)
        for k, adapter in enumerate(alone):
            assert adapter.train_epoch(own[k])[0] == pytest.approx(found[k], **SAME)
        own = [epoch + 1 for epoch in own]


@pytest.mark.parametrize("method", [name for name in MEMBERS if len(MEMBERS[name]) == 1])
def test_what_does_not_pack_says_so(method: str) -> None:
    assert not ADAPTERS[method].packs


@pytest.mark.parametrize("method", TRAINED)
def test_going_on_from_a_state_gives_the_undisturbed_result(method: str, specs: Any, build: Build) -> None:
    whole = build(*specs(method))
    undisturbed = train(whole, 3)
    first, second = build(*specs(method)), build(*specs(method))
    train(first, 1)
    states = [first.state(k) for k in range(first.num_members)]
    train(first, 1, first=1)  # what was handed out is a copy
    for k, state in enumerate(states):
        second.load_state(k, state)
    assert train(second, 2, first=1) == undisturbed[1:]
    for k in range(whole.num_members):
        assert torch.equal(flat(second, k), flat(whole, k))


@pytest.mark.parametrize("method", TRAINED)
def test_gradients_are_repeatable_where_kernels_may_differ(
    method: str, specs: Any, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, backward, only_repeatable = build(*specs(method)), torch.autograd.backward, []

    def seen(*given: Any, **named: Any) -> None:
        on, warn_only = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        only_repeatable.append(on and not warn_only)
        backward(*given, **named)

    monkeypatch.setattr(repeatable, "KINDS", (adapter.parts.device.type,))
    monkeypatch.setattr(torch.autograd, "backward", seen)
    train(adapter, 1)
    assert only_repeatable and all(only_repeatable)


@pytest.mark.parametrize("method", TRAINED)
def test_a_member_that_diverges_leaves_the_others_alone(
    method: str, specs: Any, build: Build, small_trial: Trial
) -> None:
    wild = WILD[method]
    shared = {name: value for name, value in wild.items() if name != "lr"}
    calm = specs(method, **shared)[0]
    lost = small_trial(method=method, **{**MEMBERS[method][0], **wild})
    pack = build(lost, calm) if ADAPTERS[method].packs else build(lost)
    curves = train(pack, 2)
    assert not pack.active[0]
    if ADAPTERS[method].packs:
        alone = build(calm)
        assert pack.active[1]
        for epoch, (means,) in enumerate(train(alone, 2)):
            assert means == pytest.approx(curves[epoch][1], **SAME)
        assert pack.nll(pack.texts.segments)[1] == pytest.approx(alone.nll(alone.texts.segments)[0], **SAME)
        assert all(math.isfinite(value) for value in findings(pack)[1][0].values())


@pytest.mark.parametrize("method", TRAINED)
def test_what_is_stored_is_what_was_trained(method: str, specs: Any, build: Build) -> None:
    adapter, other = build(*specs(method)), build(*specs(method))
    train(adapter, 2)
    for k in range(adapter.num_members):
        files = adapter.stored(k)
        assert bool(files) == (adapter_plan(vars(specs(method)[k])).stored_params(adapter.parts.card) > 0)
        if not files:
            pytest.skip(f"{method} stores nothing")
        other.load_stored(k, files)
    assert other.nll(other.texts.segments) == adapter.nll(adapter.texts.segments)
    assert answers(other) == answers(adapter)


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_starts_where_an_earlier_one_ended(method: str, specs: Any, build: Build) -> None:
    earlier, plan = build(*specs(method)), adapter_plan(vars(specs(method)[0]))
    assert set(earlier.stored(0)) == set(plan.files), "a plan names what is stored"
    if method not in plan.starts:
        assert not plan.files, "what is stored can be started from"
        with pytest.raises(ConfigError, match=f"method={method}: cannot start from the weights of a {method}"):
            plan.check_start(plan)
        return
    plan.check_start(plan)
    train(earlier, 2)
    later = build(*[replace(spec, start_from="0" * 16, epochs=1) for spec in specs(method)])
    for k in range(earlier.num_members):
        later.start(k, earlier.stored(k))
    assert later.nll(later.texts.segments) == earlier.nll(earlier.texts.segments)
    before = [flat(later, k) for k in range(later.num_members)]
    assert all(torch.equal(flat(earlier, k), weights) for k, weights in enumerate(before))
    train(later, 1)
    for k, weights in enumerate(before):
        assert later.active[k] and not torch.equal(flat(later, k), weights)
