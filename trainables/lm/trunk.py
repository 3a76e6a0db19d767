"""The blocks below and including the memory's: they never change, so they run once per text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainables.errors import failure_kind
from trainables.lm import attention
from trainables.lm.card import ModelCard
from trainables.lm.cut import attention_can_be_told, load_part, try_part, windows_told
from trainables.lm.parity import Reference, alike, keep_verdict, kept_verdict, reference
from trainables.lm.placement import placement
from trainables.lm.rows import in_rows
from trainables.lm.token_tree import Batch
from trainables.lm.weight_budget import WeightBudget, model_bytes, part_bytes

logger = logging.getLogger(__name__)


class Trunk:
    """The lowest blocks of a model, or some that follow these, without head.

    What is loaded is held against the whole model, the first time on a node. Where blocks that go on from others'
    output do not agree with it, the trunk starts from the tokens; where attention cannot be told about trees, every
    text of a tree is a row; where the lowest blocks alone do not agree, all blocks run.
    """

    def __init__(
        self,
        card: ModelCard,
        deepest: int,
        dtype: torch.dtype,
        device: torch.device | str,
        after: int = -1,
        budget: WeightBudget | None = None,
    ) -> None:
        """Load the blocks; no tensor above or below them is read.

        Args:
            card: the model.
            deepest: 0-based index of the last block that is loaded.
            dtype: of weights and hidden states.
            device: where it runs. Blocks from the lowest on that do not fit a GPU's free memory stay in the
                host's, and are brought over one by one (by `accelerate`).
            after: block whose output the blocks go on from; -1 to start from the tokens.
            budget: asked for room before each load; None for one that holds nothing.

        Raises:
            ValueError: no such block.
            ConfigError: a model of another kind.
            DataError: weights that are missing or broken.
        """
        if not max(0, after + 1) <= deepest < card.num_blocks:
            raise ValueError(f"block {deepest} is not one of the {card.num_blocks} blocks of {card.name} after {after}")
        self._device = torch.device(device)
        self._budget = budget = budget or WeightBudget(self._device)
        self._model: Any = None
        part = f"trunk_{after}_{deepest}"
        kept = kept_verdict(card, dtype, self._device, part)
        for start, way in [(kept["start"], kept["way"])] if kept else self._ways(card, after):
            if way == "whole":
                break
            outputs = kept["outputs"] if kept else reference(card, dtype, self._device, budget).outputs
            loaded = self._load(card, start, deepest, dtype, attention.NAME if way == "direct" else None, outputs)
            if kept and loaded:
                return
            if loaded and self._agrees(reference(card, dtype, self._device, budget), deepest, dtype):
                verdict = {"way": way, "start": start, "outputs": outputs}
                keep_verdict(card, dtype, self._device, part, verdict)
                return
        logger.warning("%s: the lowest %d blocks alone give other numbers; all run", card.name, deepest + 1)
        self._after, self._direct, self._model = -1, False, None
        budget.make_room(model_bytes(card, dtype))
        self._model, self._given = load_part(card, dtype, placement(card, dtype, self._device))
        keep_verdict(card, dtype, self._device, part, {"way": "whole", "start": -1, "outputs": 0})

    def _ways(self, card: ModelCard, after: int) -> list[tuple[int, str]]:
        """Return what to try: where to start from, and how attention is told."""
        told = ["direct", "rows"] if attention_can_be_told(card) else ["rows"]
        return [(start, way) for start in sorted({after, -1}, reverse=True) for way in told]

    def _load(
        self, card: ModelCard, after: int, deepest: int, dtype: torch.dtype, way: str | None, outputs: int
    ) -> bool:
        """Load blocks; say whether they can be loaded alone."""
        self._after, self._direct = after, way is not None
        self._model = None  # of an earlier way: to be freed before the next is loaded
        self._budget.make_room(part_bytes(card, dtype, deepest - after))
        place = placement(card, dtype, self._device, deepest - after, head=False)
        parts = {"first": after + 1, "last": deepest, "head": False, "outputs": outputs}
        found = try_part(card, dtype, place, attention=way, **parts)
        if found is not None:
            self._model, self._given = found
        return found is not None

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
        return self._hidden(batch, sorted(set(layers)), below)

    def _hidden(self, batch: Batch, wanted: Sequence[int], below: Tensor | None) -> dict[int, Tensor]:
        mask = None if batch.attention_mask is None else batch.attention_mask.to(self._device)
        start = batch.tokens if self._after < 0 or below is None else below
        start = start.to(self._device)
        if self._direct:
            positions = None if mask is None else batch.positions.to(self._device)
            found = self._pass(wanted, start, attention_mask=mask, position_ids=positions, depths=positions)
        else:
            found = in_rows(lambda values: self._pass(wanted, values), (start,), mask, None)
        return dict(zip(wanted, found.chunk(len(wanted), dim=-1), strict=True))

    def _pass(self, wanted: Sequence[int], start: Tensor, **told: Any) -> Tensor:
        """Return the outputs of some blocks side by side, `[rows, seq, blocks * model_dim]`."""
        found: dict[int, Tensor] = {}
        blocks = find_kept(self._model)

        def noting(layer: int) -> Any:
            def note(block: torch.nn.Module, args: Any, output: Any) -> None:
                found[layer] = output[0] if isinstance(output, tuple) else output

            return note

        handles = [blocks[layer].register_forward_hook(noting(layer)) for layer in wanted]
        self._given.hidden = start if self._after >= 0 else None
        try:
            inputs = {"input_ids" if self._after < 0 else "inputs_embeds": start}
            self._model.base_model(**inputs, use_cache=False, **{n: v for n, v in told.items() if v is not None})
        finally:
            self._given.hidden = None
            for handle in handles:
                handle.remove()
        return torch.cat([found[layer] for layer in wanted], dim=-1)

    @torch.no_grad()
    def _agrees(self, whole: Reference, deepest: int, dtype: torch.dtype) -> bool:
        """Say whether the deepest block's output is the whole model's, of plain texts and of a tree."""
        tree, nodes = whole.tree()
        rows = [states[self._after] for states in whole.hidden] if self._after >= 0 else None
        try:
            with attention.windows_seen() as windows:
                start = None if rows is None else pad_sequence(rows, batch_first=True)
                padded = self._hidden(whole.padded(), [deepest], start)[deepest]
            states = None
            if rows is not None:
                states = torch.zeros(1, tree.tokens.shape[1], rows[0].shape[-1], dtype=rows[0].dtype)
                states[0, nodes] = torch.cat(rows)
            of_tree = self._hidden(tree, [deepest], states)[deepest][0, nodes]
        except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
            if failure_kind(error) == "memory":
                raise
            logger.info("%s up to block %d: %s", type(self._model).__name__, deepest, error)
            return False
        if self._direct and not windows_told(self._model.config, windows, range(self._after + 1, deepest + 1)):
            return False
        wanted = torch.cat([states[deepest] for states in whole.hidden])
        plain = torch.cat([row[: len(text)] for row, text in zip(padded, whole.texts, strict=True)])
        return alike(plain, wanted, dtype) and alike(of_tree, wanted, dtype)


def find_kept(model: Any) -> Any:
    """Return the blocks of a model that has some of its blocks only, stand-ins included."""
    blocks: Any = model.get_submodule(model.name_of_blocks)
    return blocks
