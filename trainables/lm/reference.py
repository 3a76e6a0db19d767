"""The plain way: the whole model with a forward hook, to compare with, and to sample from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainables.errors import ConfigError, failure_kind
from trainables.lm import attention
from trainables.lm.card import ModelCard
from trainables.lm.cut import attention_can_be_told, find_blocks, load_part, windows_told
from trainables.lm.parity import Reference, alike, reference
from trainables.lm.rows import in_rows
from trainables.lm.weight_budget import WeightBudget, model_bytes

logger = logging.getLogger(__name__)


def attach_memory(model: Any, memory: Callable[[Tensor], Tensor], layer: int) -> Attached:
    """Add `memory(h)` to the output `h` of a block, from now until the handle returned is removed.

    Args:
        model: a causal language model of `transformers`.
        memory: `[batch, seq, model_dim]` to the same shape. Where it has a method `read`, that is called before each
            pass of the model with the tokens, the attention mask and the cache, as they are given to the model.
        layer: 0-based index of the block.

    Raises:
        ConfigError: the model has no such block, or is of another width than what the memory was made for (its
            `model_dim`, where it has one).
    """
    blocks = getattr(model.base_model, "layers", None) or find_blocks(model)[2]
    if not 0 <= layer < len(blocks):
        raise ConfigError(f"layer={layer}: {type(model).__name__} has blocks 0 to {len(blocks) - 1}")
    width = getattr(memory, "model_dim", None)
    if width is not None and width != model.config.get_text_config().hidden_size:
        raise ConfigError(
            f"the memory is for hidden states of {width} numbers, those of {type(model).__name__} have "
            f"{model.config.get_text_config().hidden_size}: attach it to the model it was trained with"
        )

    def add(block: nn.Module, args: Any, output: Any) -> Any:
        # Blocks return a tensor or a tuple; `output[0]` of a tensor would be the first row of the batch.
        if isinstance(output, tuple):
            return (_added(output[0]), *output[1:])
        return _added(output)

    def _added(hidden: Tensor) -> Tensor:
        return hidden + memory(hidden).to(hidden.dtype)

    handles = [blocks[layer].register_forward_hook(add)]
    read = getattr(memory, "read", None)
    if read is not None:

        def tell(_model: Any, args: Any, given: dict[str, Any]) -> None:
            tokens = given["input_ids"] if "input_ids" in given else args[0]
            read(tokens, given.get("attention_mask"), given.get("past_key_values"))

        handles.append(model.register_forward_pre_hook(tell, with_kwargs=True))
    return Attached(handles)


class Attached:
    """What was attached to a model; also a context that takes it off at its end."""

    def __init__(self, handles: Sequence[RemovableHandle]) -> None:
        """Take the handles of the hooks."""
        self._handles = handles

    def remove(self) -> None:
        """Take it off; once more does nothing."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Attached:
        """Begin nothing: it is attached already."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take it off."""
        self.remove()


class WholeModel(nn.Module):
    """A causal language model as it comes, frozen."""

    def __init__(
        self,
        card: ModelCard,
        dtype: torch.dtype,
        device: torch.device | str,
        budget: WeightBudget | None = None,
    ) -> None:
        """Load all blocks of the model in `dtype` onto `device`; the budget is asked for room first."""
        super().__init__()
        device = torch.device(device)
        budget = budget or WeightBudget(device)
        place, size = {"device_map": {"": device}}, model_bytes(card, dtype)
        self._direct = attention_can_be_told(card)
        if self._direct:
            whole = reference(card, dtype, device, budget)  # which may load the model: not beside this one
            budget.make_room(size)
            self.model, _ = load_part(card, dtype, place, attention=attention.NAME)
            self._direct = self._agrees(whole, dtype)
        if not self._direct:
            self.model = None
            budget.make_room(size)
            self.model, _ = load_part(card, dtype, place)

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
        if self._direct and attention_mask is not None:
            return self._logits(tokens, attention_mask=attention_mask, position_ids=positions, depths=positions)
        return in_rows(self._logits, (tokens,), attention_mask, None)

    def _logits(self, tokens: Tensor, **told: Any) -> Tensor:
        logits: Tensor = self.model(input_ids=tokens, use_cache=False, **told).logits
        return logits

    @torch.no_grad()
    def _agrees(self, whole: Reference, dtype: torch.dtype) -> bool:
        """Say whether trees give what their texts give alone, sliding windows included."""
        tree, nodes = whole.tree()
        device = self.model.get_output_embeddings().weight.device
        with attention.windows_seen() as windows:
            mask = None if tree.attention_mask is None else tree.attention_mask.to(device)
            try:
                found = self(tree.tokens.to(device), mask, tree.positions.to(device))[0, nodes]
            except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
                if failure_kind(error) == "memory":
                    raise
                logger.info("%s: its trees are taken apart (%s)", type(self.model).__name__, error)
                return False
        told = windows_told(self.model.config, windows, range(len(whole.hidden[0])))
        return told and alike(found, torch.cat(whole.logits), dtype)

    @contextmanager
    def usual(self) -> Iterator[Any]:
        """Yield the model inside as any program may use it: batches padded on the left, a cache, `generate`.

        Its attention is then the usual one of `transformers`; this project's takes masks as they come.
        """
        if self._direct:
            self.model.set_attn_implementation("sdpa" if self.model._supports_sdpa else "eager")
        try:
            yield self.model
        finally:
            if self._direct:
                self.model.set_attn_implementation(attention.NAME)

    @contextmanager
    def with_memory(self, memory: Callable[[Tensor], Tensor], layer: int) -> Iterator[None]:
        """Attach a memory for the time of a `with` block."""
        with attach_memory(self.model, memory, layer):
            yield
