"""The blocks above the memory as an ordinary causal language model of the same class.

The blocks below are stand-ins that hand on hidden states: no hooks, and masks, rotary embeddings and kernels are those
of `transformers`. What is loaded is held against the whole model (`parity`). There are three ways, the first that
agrees is taken:

1. texts one after the other, and trees, as they come, attention told about them (`attention`);
2. every text a padded row of its own (`rows`), attention as `transformers` chooses it;
3. the whole model, its hidden states replaced at the memory's block: for models whose blocks hand on more than these.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.errors import failure_kind
from trainables.lm import attention
from trainables.lm.card import ModelCard
from trainables.lm.cuda_graphs import CudaGraphs
from trainables.lm.cut import Given, attention_can_be_told, find_blocks, load_part, try_part, windows_told
from trainables.lm.head_loss import IGNORED, token_nll
from trainables.lm.output_head import OutputHead
from trainables.lm.parity import Reference, alike, keep_verdict, kept_verdict, reference
from trainables.lm.placement import placement
from trainables.lm.recorded import Recordings
from trainables.lm.rotary import can_be_replaced, in_fewer_kernels
from trainables.lm.rows import in_rows
from trainables.lm.staggered import LetIn, Staggered, let_in
from trainables.lm.weight_budget import WeightBudget, model_bytes, part_bytes

logger = logging.getLogger(__name__)


class Upper(nn.Module):
    """Remaining blocks, final norm and head of a language model, frozen.

    Attributes:
        model: a causal language model of `transformers`; its token embedding is not used.
        layer: the memory's block.
        direct: attention is told about texts and trees; else every text is a row.
        staggers: states may go in after deeper blocks than `layer` as well, and be of several in one pass.
        needs_tokens: the whole model runs, which begins with the tokens.
        head: from final hidden states to logits.
        num_weights: numbers that a forward pass reads.
        recordings: of passes forward and backward, on a GPU.
    """

    def __init__(
        self,
        model: Any,
        given: Given,
        layer: int,
        direct: bool,
        needs_tokens: bool = False,
        entrance: LetIn | None = None,
    ) -> None:
        """Take a model as `load_part` returns it, its blocks up to `layer` stand-ins unless it needs tokens."""
        super().__init__()
        self.model, self.layer, self.direct, self.needs_tokens = model, layer, direct, needs_tokens
        self._given, self._entrance = given, entrance or LetIn()
        self.staggers = False
        self.head = OutputHead(model)
        self._rotates = not needs_tokens and can_be_replaced(model, self.head_weight.dtype)
        self.num_weights = sum(parameter.numel() for parameter in self.model.parameters())
        self.recordings = Recordings(CudaGraphs() if direct and self.head_weight.is_cuda else None)

    def forward(
        self,
        hidden: Tensor,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        lengths: Sequence[int] | attention.TextRow | None = None,
        tokens: Tensor | None = None,
        layers: int | Sequence[int] | None = None,
    ) -> Tensor:
        """Return hidden states after the final norm, `[rows, seq, model_dim]`.

        The rows of a pack of K trials stand trial by trial (row `k * batch + b`); mask, positions and tokens may have
        `batch` rows only, and are then repeated for every trial.

        Args:
            hidden: output of the memory's block with the memory added, `[rows, seq, model_dim]`.
            attention_mask: as in `tree.Batch`: None for plain texts, or bool `[batch, 1, seq, seq]`.
            positions: `[batch, seq]`; not used without mask and lengths, where positions are 0, 1, 2, ...
            lengths: tokens of each of the plain texts that stand one after the other in every row, or these texts as
                attention has them; None where a row is one text.
            tokens: `[batch, seq]`, int64; used only where `needs_tokens`.
            layers: the memory's block: of all states, of each row, or of each text of a single row. None: `layer`.

        Raises:
            ValueError: a mask of another shape, no tokens where they are needed, or other blocks than `layer` where
                this part of a model does not let states in after these (`staggers`).
        """
        if attention_mask is not None and attention_mask.ndim != 4:
            raise ValueError(f"a mask is [batch, 1, seq, seq], not {list(attention_mask.shape)}")
        row, lengths = lengths, lengths.lengths if isinstance(lengths, attention.TextRow) else lengths
        staggered = self._staggered(hidden, lengths, layers)
        if self.needs_tokens:
            if tokens is None:
                raise ValueError("the whole model runs, which needs the tokens")
            ids = _repeated(tokens, len(hidden))
            return in_rows(self._whole, (hidden, ids), attention_mask, lengths)
        if not self.direct:
            return in_rows(self._blocks, (hidden,), attention_mask, lengths)
        if attention_mask is None and lengths is None:
            return self._blocks(hidden, staggered)
        places = _repeated(positions, len(hidden))
        return self._blocks(
            hidden,
            staggered,
            attention_mask=_repeated(attention_mask, len(hidden)),
            position_ids=places,
            lengths=None if row is None else attention.text_row(row, hidden.device),
            depths=places if lengths is None else None,
        )

    def _staggered(
        self, hidden: Tensor, lengths: Sequence[int] | None, layers: int | Sequence[int] | None
    ) -> Staggered | None:
        """Return the states as they are let in; None where all go in after `layer`."""
        if layers is None or {self.layer} == ({layers} if isinstance(layers, int) else {*layers}):
            return None
        if not self.staggers:
            raise ValueError(f"blocks above {self.layer}: states are let in there, not after {layers}")
        each = [layers] * len(hidden) if isinstance(layers, int) else list(layers)
        return Staggered(hidden, each, None if len(each) == len(hidden) else lengths)

    def _blocks(self, hidden: Tensor, staggered: Staggered | None = None, **told: Any) -> Tensor:
        self._given.hidden, self._entrance.states = hidden, staggered
        try:
            with in_fewer_kernels(self.model) if self._rotates else nullcontext():
                output = self.model.base_model(inputs_embeds=hidden, use_cache=False, **told)
        finally:
            self._given.hidden = self._entrance.states = None
        # some families (Mamba) keep hidden states in float32 up to the head
        final: Tensor = output.last_hidden_state.to(self.head_weight.dtype)
        return final

    def _whole(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        def put(block: nn.Module, args: Any, output: Any) -> Any:
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = find_blocks(self.model)[2][self.layer].register_forward_hook(put)
        try:
            output = self.model.base_model(input_ids=tokens, use_cache=False)
        finally:
            handle.remove()
        final: Tensor = output.last_hidden_state.to(self.head_weight.dtype)
        return final

    def logits(self, final: Tensor) -> Tensor:
        """Return next-token logits `[..., vocab]` of final hidden states `[..., model_dim]`."""
        return self.head(final)

    def nll(self, final: Tensor, labels: Tensor) -> Tensor:
        """Return the negative log-likelihood of labels `[tokens]` (-100: 0), as `head_loss.token_nll` does."""
        if self.head.by_parts:
            return token_nll(final, self.head_weight, self.head_bias, labels, None, self.head.scale, self.head.cap)
        logits = self.head(final).float()
        return functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)

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

    @torch.no_grad()
    def agrees(self, whole: Reference, dtype: torch.dtype) -> bool:
        """Say whether logits are the whole model's: of plain texts, texts one after the other, and a tree."""
        device = self.head_weight.device
        below = [states[self.layer].to(device) for states in whole.hidden]
        row, lengths = torch.cat(below)[None], [len(text) for text in whole.texts]
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
        tree, nodes = whole.tree()
        states = torch.zeros_like(row[:, : tree.tokens.shape[1]])
        states[0, nodes] = row[0]
        wanted = torch.cat(whole.logits)
        try:
            with attention.windows_seen() as windows:
                finals = [self(text[None])[0] for text in below]
            told = self(row, positions=positions, lengths=lengths)[0]
            mask = tree.attention_mask
            of_tree = self(states, None if mask is None else mask.to(device), tree.positions.to(device))[0, nodes]
            if self.direct and not windows_told(
                self.model.config, windows, range(self.layer + 1, len(whole.hidden[0]))
            ):
                return False
            final = torch.cat(finals)
            if not self.head.settle(final, wanted, lambda a, b: alike(a, b, dtype)):
                return False
            return all(alike(self.logits(found), wanted, dtype) for found in (final, told, of_tree))
        except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
            if failure_kind(error) == "memory":
                raise
            # a model that cannot be asked in this way; the next one is tried, the last is the whole model
            logger.info("%s above block %d, %s: %s", type(self.model).__name__, self.layer, self._way(), error)
            return False

    @torch.no_grad()
    def try_to_stagger(self, whole: Reference, dtype: torch.dtype) -> None:
        """Let states in after any of the blocks from now on, if logits are then the whole model's.

        Args:
            whole: what the whole model gives.
            dtype: of the model.
        """
        last = len(whole.hidden[0]) - 1
        if not self.direct or self.layer == last:
            return
        self.staggers = True
        device, lengths = self.head_weight.device, [len(text) for text in whole.texts]
        positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
        of_rows = [self.layer, self.layer + 1, last]
        of_texts = [last, *[self.layer] * (len(lengths) - 1)]
        rows = torch.stack([torch.cat([text[layer] for text in whole.hidden]) for layer in of_rows]).to(device)
        texts = torch.cat([text[layer] for text, layer in zip(whole.hidden, of_texts, strict=True)])[None].to(device)
        wanted = torch.cat(whole.logits)
        try:
            found = [*self(rows, None, positions, lengths, layers=of_rows)]
            found += [*self(texts, None, positions, lengths, layers=of_texts)]
            self.staggers = all(alike(self.logits(each), wanted, dtype) for each in found)
        except (TypeError, ValueError, IndexError, RuntimeError, AttributeError, KeyError) as error:
            if failure_kind(error) == "memory":
                raise
            logger.info("%s above block %d, staggered: %s", type(self.model).__name__, self.layer, error)
            self.staggers = False

    def _way(self) -> str:
        return "texts as they come" if self.direct else "a row each"


def load_upper(
    card: ModelCard,
    layer: int,
    dtype: torch.dtype,
    device: torch.device | str,
    budget: WeightBudget | None = None,
) -> Upper:
    """Load the part of a model above the output of block `layer`; no other tensor is read.

    Args:
        card: the model.
        layer: 0-based; above the last block only the final norm and the head remain.
        dtype: of the weights (what the family keeps in float32 stays so).
        device: of the weights.
        budget: asked for room before each load; None for one that holds nothing.

    Raises:
        ValueError: no such block.
        ConfigError: a model of another kind.
        DataError: weights that are missing or broken.
    """
    if not 0 <= layer < card.num_blocks:
        raise ValueError(f"layer {layer} is not one of the {card.num_blocks} blocks of {card.name}")
    device, part = torch.device(device), f"upper_{layer}"
    budget = budget or WeightBudget(device)
    kept = kept_verdict(card, dtype, device, part)
    if kept and "staggers" not in kept and kept["way"] == "direct":
        kept = None  # an earlier version's
    ways = [kept["way"]] if kept else [*(["direct"] if attention_can_be_told(card) else []), "rows"]
    for way in ways:
        upper = None if way == "whole" else _load(card, layer, dtype, device, way, kept, budget)
        if upper is not None and (kept or upper.agrees(reference(card, dtype, device, budget), dtype)):
            if not kept:
                whole = reference(card, dtype, device, budget)
                upper.try_to_stagger(whole, dtype)
                verdict = {"way": way, "outputs": whole.outputs, "by_parts": upper.head.by_parts}
                keep_verdict(card, dtype, device, part, verdict | {"staggers": upper.staggers})
            return upper
        del upper
    warnings.warn(
        f"{card.name}: blocks above {layer} alone give other numbers than the whole model; the whole model runs for "
        "every text, which is right and slower",
        stacklevel=2,
    )
    budget.make_room(model_bytes(card, dtype))
    model, given = load_part(card, dtype, placement(card, dtype, device))
    keep_verdict(card, dtype, device, part, {"way": "whole"})
    upper = Upper(model, given, layer, direct=False, needs_tokens=True)
    upper.head.general()
    return upper


def _load(
    card: ModelCard,
    layer: int,
    dtype: torch.dtype,
    device: torch.device,
    way: str,
    kept: dict[str, Any] | None,
    budget: WeightBudget,
) -> Upper | None:
    """Load the part in one way; None where it cannot be loaded alone."""
    outputs = int(kept["outputs"]) if kept else reference(card, dtype, device, budget).outputs
    attending = attention.NAME if way == "direct" else None
    budget.make_room(part_bytes(card, dtype, card.num_blocks - 1 - layer))
    place = {"device_map": {"": device}}
    found = try_part(card, dtype, place, attention=attending, first=layer + 1, outputs=outputs)
    if found is None:
        return None
    model, given = found
    entrance = let_in(find_blocks(model)[2], layer, outputs) if way == "direct" else None
    upper = Upper(model, given, layer, direct=way == "direct", entrance=entrance)
    if kept:
        upper.staggers = bool(kept.get("staggers", False))
    if kept and not kept.get("by_parts", True):
        upper.head.general()
    return upper


def _repeated(rows: Tensor | None, count: int) -> Any:
    """Repeat `[batch, ...]` along the batch to `[count, ...]`."""
    if rows is None or len(rows) == count:
        return rows
    if len(rows) == 1:
        return rows.expand(count, *rows.shape[1:])
    return rows.repeat(count // len(rows), *[1] * (rows.ndim - 1))
