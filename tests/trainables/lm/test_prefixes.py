"""A prefix before every family: it begins as the tokens it is made of, or the family is refused in one line."""

from __future__ import annotations

import pytest
import torch
from families import CONFIGS, VOCAB, save_family  # type: ignore[import-not-found]

from trainables.adapters.prefix.model import PrefixedModel, check_prefix
from trainables.errors import ConfigError
from trainables.lm.reference import WholeModel

WITHOUT = ("falcon-new", "qwen3_next", "deepseek_v3", "lfm2", "zamba2", "bamba", "mamba")
"""Blocks that keep a state instead, or keys and values of other shapes than the heads have."""
ALWAYS = ("llama-yarn", "gpt2", "gemma3_text", "qwen3_moe", "mamba", "falcon-new")
FAMILIES = [pytest.param(name, id=name, marks=[] if name in ALWAYS else pytest.mark.slow) for name in CONFIGS]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_begins_as_its_tokens_before_the_text(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    card = save_family(name, tmp_path_factory)
    if name in WITHOUT:
        for refuse in (check_prefix, lambda card: PrefixedModel(WholeModel(card, torch.float32, "cpu"), card, 3, 0)):
            with pytest.raises(ConfigError, match="method=prefix: not every block of .* choose method=prompt or lora"):
                refuse(card)
        return
    check_prefix(card)
    whole = WholeModel(card, torch.float32, "cpu")
    model = PrefixedModel(whole, card, 3, 0)
    drawn = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(0))[:3]
    texts = torch.randint(5, VOCAB, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = whole(torch.cat([drawn.expand(2, -1), texts], dim=1))[:, 3:]
        torch.testing.assert_close(model(texts), expected, atol=2e-5, rtol=0)
    model(texts).square().sum().backward()
    assert model.vectors.grad is not None and bool((model.vectors.grad.abs().amax(dim=1) > 0).all())
