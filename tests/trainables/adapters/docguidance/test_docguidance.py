"""Document guidance against a program of its own, and its keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, get_cosine_schedule_with_warmup

from trainables.adapters.adapter import Adapter
from trainables.adapters.docguidance.keys import PERTURBATION, document_keys, negative_keys
from trainables.errors import ConfigError, DataError
from trainables.lm.batches import epoch_order
from trainables.lm.card import model_card
from trainables.lm.texts import NO_DOCUMENT, TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.pack.trial_check import check_trials
from trainables.trial.spec import TrialSpec

Trial = Callable[..., TrialSpec]
Build = Callable[..., Adapter]
COMMON: dict[str, Any] = {
    "method": "docguidance", "layer": 1, "memory_dim": 24, "lr": 1e-2, "weight_decay": 0.1, "grad_clip": 0.7,
    "epochs": 10, "batch_size": 3, "guidance_alpha": 0.5,
}  # fmt: skip


class Plain(nn.Module):
    """The memory as the paper writes it, in a hook of the whole model."""

    def __init__(self, state: dict[str, Tensor], act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.values = nn.ParameterDict({name.replace(".", "_"): nn.Parameter(v.clone()) for name, v in state.items()})
        self.act, self.key = act, torch.zeros(1)

    def forward(self, hidden: Tensor) -> Tensor:
        p, act = self.values, self.act
        gate = act(p["key_weight"] @ self.key)
        inner = act(hidden @ p["up_weight"].T + p["up_bias"]) * gate
        down = inner @ p["down_weight"].T + p["down_bias"]
        return hidden + act(down @ p["out_weight"].T + p["out_bias"])


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("negatives", ["other", "zero"])
@pytest.mark.thorough(but=("other-gelu",))
def test_after_twenty_steps_it_is_what_a_plain_program_makes(
    activation: str, negatives: str, small_trial: Trial, build: Build
) -> None:
    spec = small_trial(**{**COMMON, "activation": activation, "negatives": negatives, "guidance_target": 6.0})
    pack = build(small_trial(**{**vars(spec), "guidance_alpha": 0.0}), spec)
    initial = dict(pack.state(1).weights)
    keys = pack.keys  # type: ignore[attr-defined]
    for epoch in range(spec.epochs):
        means = pack.train_epoch(epoch)
    act = {"tanh": torch.tanh, "relu": torch.relu, "gelu": nn.functional.gelu}[activation]
    memory = Plain(initial, act)
    model = AutoModelForCausalLM.from_pretrained(spec.model).requires_grad_(False)
    model.model.layers[spec.layer].register_forward_hook(lambda block, args, out: memory(out))
    adamw = torch.optim.AdamW(memory.parameters(), lr=spec.lr, weight_decay=spec.weight_decay)
    texts = pack.texts.train
    steps = -(-len(texts) // spec.batch_size) * spec.epochs
    assert steps >= 20
    schedule = get_cosine_schedule_with_warmup(adamw, spec.warmup_steps, steps)

    def error(text: TrainingText, key: Tensor) -> Tensor:
        memory.key = key
        row = torch.tensor([text.tree.tokens])
        loss: Tensor = model(input_ids=row, labels=row).loss
        return loss

    for epoch in range(spec.epochs):
        order = epoch_order(len(texts), spec.seed, epoch).tolist()
        wrong_nll = 0.0
        for start in range(0, len(order), spec.batch_size):
            step = [texts[i] for i in order[start : start + spec.batch_size]]
            adamw.zero_grad()
            for text in step:
                share = text.num_targets / sum(each.num_targets for each in step)
                wrong_key = negative_keys([text], keys, negatives, spec.seed, epoch)[0]
                right, wrong = error(text, keys[text.document]), error(text, wrong_key)
                guidance = torch.minimum((wrong - 6.0) ** 2, right)
                (share * (right + 0.5 * guidance)).backward()
                wrong_nll += float(wrong.detach()) * text.num_targets
            torch.nn.utils.clip_grad_norm_(memory.parameters(), spec.grad_clip)
            adamw.step()
            schedule.step()
    trained = pack.state(1).weights
    for name, value in memory.values.items():
        own = next(v for n, v in trained.items() if n.replace(".", "_") == name)
        torch.testing.assert_close(own, value.data, atol=1e-5, rtol=0)
    assert means[1]["train/nll_negative"] == pytest.approx(wrong_nll / sum(t.num_targets for t in texts), abs=1e-4)
    assert float((trained["up.weight"] - pack.state(0).weights["up.weight"]).abs().max()) > 1e-3


def test_guidance_makes_a_text_less_known_under_wrong_keys(small_trial: Trial, build: Build) -> None:
    values = {**COMMON, "lr": 3e-2, "epochs": 15, "negatives": "zero", "guidance_target": 8.0, "weight_decay": 0.0}
    pack = build(*(small_trial(**{**values, "guidance_alpha": alpha}) for alpha in (0.0, 2.0)))
    for epoch in range(15):
        pack.train_epoch(epoch)
    plain, guided = (found.metrics["memory/nll_negative"] for found in pack.findings())
    assert guided > plain + 0.1


def text(document: int, *tokens: int) -> TrainingText:
    return TrainingText(TokenTree.chain(tokens), document)


def test_wrong_keys_are_wrong_and_depend_on_text_and_epoch_alone() -> None:
    keys = document_keys(5, 3, seed=0)
    assert torch.equal(keys[:3], document_keys(3, 3, seed=0)) and not torch.equal(keys, document_keys(5, 3, seed=1))
    texts = [text(d % 5, d, d + 1) for d in range(40)]
    others = negative_keys(texts, keys, "other", 0, 0)
    found = [int((keys == other).all(dim=1).nonzero()) for other in others]
    assert all(each != own.document for each, own in zip(found, texts, strict=True)) and len(set(found)) == 5
    assert not negative_keys(texts, keys, "zero", 0, 0).any()
    noise = negative_keys(texts, keys, "perturbed", 0, 0) - keys[[t.document for t in texts]]
    assert float(noise.std()) == pytest.approx(PERTURBATION, rel=0.2)
    drawn = negative_keys(texts, keys, "random", 0, 0)
    assert torch.equal(drawn[7:9], negative_keys(texts[7:9], keys, "random", 0, 0))
    assert not torch.equal(drawn, negative_keys(texts, keys, "random", 0, 1))
    apart = [replace(text, document=NO_DOCUMENT) for text in texts]  # their own key is zero
    others = negative_keys(apart, keys, "other", 0, 0)
    assert {tuple(row) for row in others.tolist()} == {tuple(row) for row in keys.tolist()}, "any document's"
    torch.testing.assert_close(negative_keys(apart, keys, "perturbed", 0, 0), noise, atol=1e-6, rtol=0)
    assert len(drawn.unique(dim=0)) == 40


def test_free_text_opens_no_entry(small_trial: Trial, build: Build) -> None:
    adapter = build(small_trial(**COMMON))
    tokens = torch.tensor([adapter.texts.segments[0].tree.tokens])
    with torch.no_grad(), adapter.attached(0) as whole:
        free = whole(tokens)
    own = adapter.texts.segments[0]
    nlls = adapter.text_nll([replace(own, document=NO_DOCUMENT), own])[0]
    loss = nn.functional.cross_entropy(free[0, :-1], tokens[0, 1:])
    assert nlls[0] == pytest.approx(float(loss), abs=2e-5) and abs(nlls[0] - nlls[1]) > 1e-4
    assert adapter.is_masked(0, 0) and not adapter.is_masked(0, NO_DOCUMENT)
    with torch.no_grad(), adapter.attached(0, 0) as whole:
        assert float((whole(tokens) - free).abs().max()) > 1e-2
    with torch.no_grad(), adapter.attached(0, NO_DOCUMENT) as whole:
        assert torch.equal(whole(tokens), free)
    assert not adapter.guided.gates(torch.zeros(1, 2)).any()  # type: ignore[attr-defined]


def test_words_are_those_of_the_output_head(small_trial: Trial, build: Build) -> None:
    adapter = build(small_trial(**COMMON))
    words = adapter.findings()[0].analysis["promoted_words"]  # type: ignore[index]
    memory = adapter.guided.single(0)  # type: ignore[attr-defined]
    key = adapter.keys[2]  # type: ignore[attr-defined]
    added = torch.tanh(memory.out(memory.down(torch.tanh(memory.key(key)))))
    model = AutoModelForCausalLM.from_pretrained(small_trial(**COMMON).model)
    best = model.lm_head(added).topk(10).indices.tolist()
    from trainables.lm.tokens import load_tokenizer

    tokenizer = load_tokenizer(adapter.parts.card)
    assert words[2] == [tokenizer.decode([token]) for token in best] and len(words) == 4


def test_what_does_not_fit_is_refused(small_trial: Trial, build: Build) -> None:
    spec = small_trial(**{**COMMON, "num_documents": 1})
    for refuse in (lambda: check_trials([(spec, model_card(spec.model))]), lambda: build(spec)):
        with pytest.raises(ConfigError, match="negatives=other: there is no other document"):
            refuse()
    assert build(small_trial(**{**COMMON, "num_documents": 1, "negatives": "zero"})).train_epoch(0)
    one, other = build(small_trial(**COMMON)), build(small_trial(**{**COMMON, "seed": 1}))
    with pytest.raises(DataError, match="vectors are others"):
        other.load_stored(0, one.stored(0))
    with pytest.raises(DataError, match="not readable"):
        other.load_stored(0, {})
