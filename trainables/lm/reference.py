"""The plain way: the whole model with a forward hook, to compare with, and to sample from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM

from trainables.lm.card import ModelCard
from trainables.lm.weights import model_folder, quiet_transformers


def attach_memory(model: Any, memory: Callable[[Tensor], Tensor], layer: int) -> RemovableHandle:
    """Add `memory(h)` to the output `h` of a block, from now until the handle returned is removed.

    Args:
        model: a causal language model of `transformers`.
        memory: `[batch, seq, model_dim]` to the same shape.
        layer: 0-based index of the block.
    """

    def add(block: nn.Module, args: Any, output: Any) -> Any:
        # Blocks return a tensor or a tuple; `output[0]` of a tensor would be the first row of the batch.
        if isinstance(output, tuple):
            return (_added(output[0]), *output[1:])
        return _added(output)

    def _added(hidden: Tensor) -> Tensor:
        return hidden + memory(hidden).to(hidden.dtype)

    handle: RemovableHandle = model.base_model.layers[layer].register_forward_hook(add)
    return handle


class WholeModel(nn.Module):
    """A causal language model as it comes, frozen."""

    def __init__(self, card: ModelCard, dtype: torch.dtype, device: torch.device | str) -> None:
        """Load all blocks of the model in `dtype` onto `device`."""
        super().__init__()
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(
                model_folder(card),
                dtype=dtype,
                attn_implementation="sdpa",
                device_map={"": torch.device(device)},
            )
        self.model = model.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Return next-token logits, `[batch, seq, vocab]`.

        Args:
            tokens: `[batch, seq]`.
            attention_mask: as `Upper.forward` takes it.
            positions: as `Upper.forward` takes them.
        """
        output = self.model(
            input_ids=tokens,
            attention_mask=attention_mask,
            position_ids=None if attention_mask is None else positions,
            use_cache=False,
        )
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def with_memory(self, memory: Callable[[Tensor], Tensor], layer: int) -> Iterator[None]:
        """Attach a memory for the time of a `with` block."""
        handle = attach_memory(self.model, memory, layer)
        try:
            yield
        finally:
            handle.remove()
