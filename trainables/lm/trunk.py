"""The blocks below and including the memory's: they never change, so they run once per text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psutil
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from trainables.lm.card import ModelCard
from trainables.lm.token_tree import Batch
from trainables.lm.upper import FINAL_NORM, load_blocks
from trainables.lm.weights import model_folder, quiet_transformers

MEMORY_SHARE = 0.85
"""Share of the free memory that weights may take; the rest is for activations."""


class Trunk:
    """The lowest blocks of a model, or some that follow these, without final norm and head."""

    def __init__(
        self, card: ModelCard, deepest: int, dtype: torch.dtype, device: torch.device | str, after: int = -1
    ) -> None:
        """Load the blocks; no tensor above or below them is read.

        Args:
            card: the model.
            deepest: 0-based index of the last block that is loaded.
            dtype: of weights and hidden states.
            device: where it runs. Blocks from the lowest on that do not fit a GPU's free memory stay in the
                host's, and are brought over one by one (by `accelerate`).
            after: block whose output the blocks go on from; -1 to start from the tokens.

        Raises:
            ValueError: no such block.
        """
        if not max(0, after + 1) <= deepest < card.num_blocks:
            raise ValueError(f"block {deepest} is not one of the {card.num_blocks} blocks of {card.name} after {after}")
        self._device, self._deepest, self._after = torch.device(device), deepest, after
        if after >= 0:
            self._model = load_blocks(card, after + 1, deepest, dtype, device)
            return
        folder = model_folder(card)
        config = AutoConfig.from_pretrained(folder)
        config.num_hidden_layers = deepest + 1
        with quiet_transformers():
            model = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation="sdpa",
                **_placement(config, dtype, self._device),
            )
        # `last_hidden_state` is what comes after the final norm: let it be the last block's output.
        setattr(model, FINAL_NORM[card.family], nn.Identity())
        self._model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def hidden(self, batch: Batch, layers: Sequence[int], below: Tensor | None = None) -> dict[int, Tensor]:
        """Return the outputs of several blocks from one pass.

        Args:
            batch: on any device.
            layers: blocks, none above `deepest`, all above `after`.
            below: output of block `after`, `[batch, seq, model_dim]`; None where the trunk starts from the tokens.

        Returns:
            `[batch, seq, model_dim]` for every layer; what stands at padding means nothing.
        """
        mask = batch.attention_mask
        output = self._model(
            input_ids=batch.tokens.to(self._device) if below is None else None,
            inputs_embeds=None if below is None else below.to(self._device),
            attention_mask=None if mask is None else mask.to(self._device),
            position_ids=None if mask is None else batch.positions.to(self._device),
            use_cache=False,
            output_hidden_states=any(layer != self._deepest for layer in layers),
        )
        return {
            layer: output.last_hidden_state if layer == self._deepest else output.hidden_states[layer - self._after]
            for layer in layers
        }


def blocks_fit(card: ModelCard, count: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Say whether some blocks fit the free memory of a GPU; elsewhere they do."""
    if device.type != "cuda":
        return True
    return count * card.block_params * dtype.itemsize <= MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]


def _placement(config: Any, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the arguments that tell `from_pretrained` where weights go."""
    if device.type != "cuda":
        return {"device_map": {"": device}}
    with init_empty_weights():
        needed = sum(p.numel() for p in AutoModel.from_config(config).parameters()) * dtype.itemsize
    index = torch.cuda.current_device() if device.index is None else device.index
    room = int(MEMORY_SHARE * torch.cuda.mem_get_info(index)[0])
    if needed <= room:
        return {"device_map": {"": index}}
    host = int(MEMORY_SHARE * psutil.virtual_memory().available)
    return {"device_map": "auto", "max_memory": {index: room, "cpu": host}}
