"""The blocks above the memory as an ordinary causal language model of the same class.

Its configuration has only the remaining blocks, and hidden states come in through `inputs_embeds`: no hooks,
and the masks, rotary embeddings and kernels are those of `transformers`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from trainables.lm import attention
from trainables.lm.card import ModelCard
from trainables.lm.weights import WeightFiles, model_folder

HEAD_NAMES = ("lm_head", "embed_out")
"""What heads are called; GPT-NeoX's has one name in its files and another in memory, by version."""
FINAL_NORM = {"llama": "norm", "gpt_neox": "final_layer_norm"}
_BLOCK = re.compile(r"\blayers\.(\d+)\.")


class Upper(nn.Module):
    """Remaining blocks, final norm and head of a language model, frozen."""

    def __init__(self, model: Any) -> None:
        """Take a causal language model of `transformers`; its token embedding is not used."""
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.num_weights = sum(parameter.numel() for parameter in self.model.parameters())

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Tensor:
        """Return hidden states after the final norm, `[rows, seq, model_dim]`.

        The rows of a pack of K trials stand trial by trial (row `k * batch + b`); mask and positions may have
        `batch` rows only, and are then repeated for every trial.

        Args:
            hidden: output of block `layer` with the memory added, `[rows, seq, model_dim]`.
            attention_mask: as in `tree.Batch`: None for plain texts, or bool `[batch, 1, seq, seq]`.
            positions: `[batch, seq]`; not used without mask and lengths, where positions are 0, 1, 2, ...
            lengths: tokens of each of the plain texts that stand one after the other in every row; None where
                a row is one text.

        Raises:
            ValueError: a mask of another shape.
        """
        if attention_mask is None and lengths is None:
            positions = None
        if attention_mask is not None and attention_mask.ndim != 4:
            raise ValueError(f"a mask is [batch, 1, seq, seq], not {list(attention_mask.shape)}")
        output = self.model.base_model(
            inputs_embeds=hidden,
            attention_mask=_repeated(attention_mask, len(hidden)),
            position_ids=_repeated(positions, len(hidden)),
            use_cache=False,
            lengths=lengths,
        )
        final: Tensor = output.last_hidden_state
        return final

    def logits(self, final: Tensor) -> Tensor:
        """Return next-token logits `[..., vocab]` of final hidden states `[..., model_dim]`."""
        logits: Tensor = self.model.get_output_embeddings()(final)
        return logits

    @property
    def head_weight(self) -> Tensor:
        """The head's weight, `[vocab, model_dim]`."""
        weight: Tensor = self.model.get_output_embeddings().weight
        return weight

    @property
    def head_bias(self) -> Tensor | None:
        """The head's bias, `[vocab]`, or None."""
        bias: Tensor | None = self.model.get_output_embeddings().bias
        return bias


def load_upper(card: ModelCard, layer: int, dtype: torch.dtype, device: torch.device | str) -> Upper:
    """Load the part of a model above the output of block `layer`; no other tensor is read.

    Args:
        card: the model.
        layer: 0-based; above the last block only the final norm and the head remain.
        dtype: of the weights (rotary frequencies stay float32, as in the whole model).
        device: of the weights.

    Raises:
        ValueError: no such block.
        DataError: weights that are missing or broken.
    """
    if not 0 <= layer < card.num_blocks:
        raise ValueError(f"layer {layer} is not one of the {card.num_blocks} blocks of {card.name}")
    model, files = _placeholder(card, card.num_blocks - layer - 1, dtype)
    sources = _sources(model, files, first_block=layer + 1)
    model.set_input_embeddings(None)
    model.load_state_dict(files.read(sources, dtype, device), strict=False, assign=True)
    return Upper(model.to(device))


def load_blocks(card: ModelCard, first: int, last: int, dtype: torch.dtype, device: torch.device | str) -> Any:
    """Load blocks `first` to `last` alone, as a model of `transformers` without embedding, final norm and head.

    Raises:
        DataError: weights that are missing or broken.
    """
    model, files = _placeholder(card, last - first + 1, dtype)
    prefix = f"{model.base_model_prefix}."
    sources = {
        name.removeprefix(prefix): source
        for name, source in _sources(model, files, first_block=first).items()
        if _BLOCK.search(name)
    }
    blocks = model.base_model
    blocks.set_input_embeddings(None)
    setattr(blocks, FINAL_NORM[card.family], nn.Identity())
    blocks.load_state_dict(files.read(sources, dtype, device), strict=False, assign=True)
    return blocks.to(device).eval().requires_grad_(False)


def _placeholder(card: ModelCard, num_blocks: int, dtype: torch.dtype) -> tuple[Any, WeightFiles]:
    """Return the model's class with `num_blocks` blocks, its parameters placeholders, and the weight files.

    Buffers (rotary frequencies, in no file) are made for real.
    """
    folder = model_folder(card)
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = num_blocks
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention.NAME)
    return model, WeightFiles(folder)


def _sources(model: Any, files: WeightFiles, first_block: int) -> dict[str, str]:
    """Return the name in the files of every parameter of `model` but the token embedding's."""
    names = {module: name for name, module in model.named_modules()}
    embedding = names[model.get_input_embeddings()] + ".weight"
    head = names[model.get_output_embeddings()]
    sources: dict[str, str] = {}
    for name in model.state_dict():
        part = name.removeprefix(f"{head}.")
        if name == embedding:
            continue
        if part == name:
            sources[name] = _BLOCK.sub(lambda m: f"layers.{first_block + int(m[1])}.", name, count=1)
        else:
            known = [f"{other}.{part}" for other in HEAD_NAMES]
            sources[name] = next((n for n in known if n in files), name)
            if sources[name] not in files and model.config.tie_word_embeddings:
                sources[name] = embedding
    return sources


def _repeated(rows: Tensor | None, count: int) -> Tensor | None:
    """Repeat `[batch, ...]` along the batch to `[count, ...]`."""
    if rows is None or len(rows) == count:
        return rows
    return rows.repeat(count // len(rows), *[1] * (rows.ndim - 1))
