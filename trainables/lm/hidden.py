"""Outputs of a block for many texts: from the cache, or by one pass of the trunk for what it lacks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainables.errors import failure_kind
from trainables.lm.card import ModelCard
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.pass_sizes import TRUNK_TOKENS
from trainables.lm.placement import blocks_fit, free_memory
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree, collate
from trainables.lm.trunk import Trunk
from trainables.lm.weights import model_fingerprint

logger = logging.getLogger(__name__)

SHARD_BYTES = 1 << 28


class HiddenStates:
    """Hidden states of one model in one dtype, computed once per node and text."""

    def __init__(
        self,
        card: ModelCard,
        dtype: torch.dtype,
        device: torch.device | str,
        cache: HiddenCache | None = None,
        batch_tokens: int = TRUNK_TOKENS,
    ) -> None:
        """Prepare; nothing is loaded before something is missing.

        Args:
            card: the model.
            dtype: of the trunk and the hidden states.
            device: where the trunk runs.
            cache: default the node's.
            batch_tokens: tokens per batch of the trunk, padding included.
        """
        self._card, self._dtype, self._device = card, dtype, torch.device(device)
        self._cache = HiddenCache() if cache is None else cache
        self._batch_tokens = batch_tokens

    def get(self, trees: Sequence[TokenTree], layer: int, also_layers: Sequence[int] = ()) -> list[Tensor]:
        """Return the output of block `layer` for every tree.

        The trunk runs only where something of `layer` is missing. The same pass makes others of `also_layers`, those
        above `layer` first since packs come in that order, as far as the cache has room for all of these texts.

        Args:
            trees: texts; equal ones are computed once.
            layer: 0-based index of the block.
            also_layers: blocks that will be asked for, of the same texts.

        Returns:
            `[nodes, model_dim]` per tree, on the CPU, in the dtype given. Views of mapped files: not to be
            written to.
        """
        distinct = {tree.digest(): tree for tree in trees}
        found = self._cache.get(self._group(layer), distinct)
        if len(found) < len(distinct):
            # Another process may be computing the same: wait for it, and look again.
            with self._cache.lock(self._model_folder()):
                found = self._cache.get(self._group(layer), distinct)
                missing = {layer: distinct.keys() - found.keys()}
                if missing[layer]:
                    missing |= self._along(distinct, layer, also_layers)
                    found.update(self._compute(distinct, missing, layer))
        return [found[tree.digest()] for tree in trees]

    def pretrained_nll(self, texts: Sequence[TrainingText], compute: Callable[[], float]) -> float:
        """Return the model's mean NLL over the target tokens of some texts, computed once per node.

        It is the same at whatever block the model is cut, up to rounding.

        Args:
            texts: whose error it is; by their content it is found again.
            compute: computes it, where it is not kept.
        """
        told = hashlib.blake2b(digest_size=16)
        for text in texts:
            told.update(f"{text.tree.digest()} {text.first_target}\n".encode())
        group, key = f"{self._model_folder()}/nll", told.hexdigest()
        kept = self._cache.number(group, key)
        if kept is None:
            kept = compute()
            self._cache.keep_number(group, key, kept)
        return kept

    def _along(self, distinct: dict[str, TokenTree], layer: int, also_layers: Sequence[int]) -> dict[int, set[str]]:
        """Return what else a pass is to make: what is missing of the next layers that fit the cache beside this one."""
        others = sorted(set(also_layers) - {layer}, key=lambda other: (other < layer, other))
        lacks = {other: self._cache.missing(self._group(other), distinct) for other in others}
        layer_bytes = sum(len(tree) for tree in distinct.values()) * self._card.model_dim * self._dtype.itemsize
        room = self._cache.limit_bytes() // max(1, layer_bytes) - 1 - sum(not lacks[other] for other in others)
        return {other: lacks[other] for other in [other for other in others if lacks[other]][: max(0, room)]}

    def _model_folder(self) -> str:
        return f"{model_fingerprint(self._card)}/{str(self._dtype).removeprefix('torch.')}"

    def _group(self, layer: int) -> str:
        return f"{self._model_folder()}/layer_{layer}"

    def _compute(self, distinct: dict[str, TokenTree], missing: dict[int, set[str]], layer: int) -> dict[str, Tensor]:
        """Run the trunk for what is missing and cache it; return the rows of `layer`."""
        layers = sorted(wanted for wanted, digests in missing.items() if digests)
        todo = [tree for digest, tree in distinct.items() if any(digest in missing[la] for la in layers)]
        tokens = sum(len(tree) for tree in todo)
        after, below = self._start(todo, layers)
        told = (self._card.name, len(todo), tokens, layers, after + 1)
        logger.info("trunk of %s: %d texts, %d tokens, blocks %s, from block %d", *told)
        trunk = Trunk(self._card, max(layers), self._dtype, self._device, after)
        found: dict[str, Tensor] = {}
        pending: dict[int, dict[str, Tensor]] = {wanted: {} for wanted in layers}
        row_bytes = self._card.model_dim * self._dtype.itemsize

        def flush(wanted: int) -> None:
            rows = self._keep(wanted, pending[wanted])
            if wanted == layer:
                found.update(rows)
            pending[wanted] = {}

        for batch in _batches(todo, self._batch_tokens):
            for wanted, output in self._run(trunk, batch, layers, below).items():
                for tree, rows in zip(batch, output, strict=True):
                    if tree.digest() in missing[wanted]:
                        pending[wanted][tree.digest()] = rows
                if sum(len(rows) for rows in pending[wanted].values()) * row_bytes > SHARD_BYTES:
                    flush(wanted)
        for wanted in layers:
            if pending[wanted]:
                flush(wanted)
        del trunk
        free_memory(self._device)
        return found

    def _start(self, todo: Sequence[TokenTree], layers: Sequence[int]) -> tuple[int, dict[str, Tensor]]:
        """Return the deepest block below `layers` that the cache has for all these texts, and its rows.

        -1 and nothing where there is none, or where the blocks above it do not fit the device: those from the
        lowest on can be brought over one by one.
        """
        digests = [tree.digest() for tree in todo]
        for after in sorted(self._cache.layers(self._model_folder()), reverse=True):
            fits = after < min(layers) and blocks_fit(self._card, max(layers) - after, self._dtype, self._device)
            if fits and not self._cache.missing(self._group(after), digests):
                found = self._cache.get(self._group(after), digests)
                if len(found) == len(digests):
                    return after, found
        return -1, {}

    def _run(
        self, trunk: Trunk, batch: list[TokenTree], layers: Sequence[int], below: dict[str, Tensor]
    ) -> dict[int, list[Tensor]]:
        """Return the rows of every tree and layer; a batch that does not fit the device is halved."""
        try:
            start = pad_hidden([below[tree.digest()] for tree in batch], self._device) if below else None
            outputs = trunk.hidden(collate(batch, self._device), layers, start)
            on_cpu = {wanted: output.cpu() for wanted, output in outputs.items()}
        except (RuntimeError, MemoryError) as error:
            if failure_kind(error) != "memory" or len(batch) == 1:
                raise
        else:
            return {
                wanted: [rows[: len(tree)] for tree, rows in zip(batch, output, strict=True)]
                for wanted, output in on_cpu.items()
            }
        free_memory(self._device)
        half = len(batch) // 2
        first, second = self._run(trunk, batch[:half], layers, below), self._run(trunk, batch[half:], layers, below)
        return {wanted: first[wanted] + second[wanted] for wanted in first}

    def _keep(self, layer: int, hidden: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cache hidden states; if that fails, keep them in memory for this call."""
        try:
            return self._cache.put(self._group(layer), hidden)
        except OSError as error:
            self._cache.give_up(error)
            return hidden


def pad_hidden(hidden: Sequence[Tensor], device: torch.device | str = "cpu") -> Tensor:
    """Put hidden states of trees, `[nodes, model_dim]` each, into one batch as `tree.collate` does tokens.

    Returns:
        `[batch, seq, model_dim]` on `device`, padded with zeros on the right.
    """
    return pad_sequence(list(hidden), batch_first=True).to(device)


def _batches(trees: Sequence[TokenTree], batch_tokens: int) -> Iterator[list[TokenTree]]:
    """Yield trees of similar length together; plain texts apart from trees, whose batch needs a mask."""
    batch: list[TokenTree] = []
    for tree in sorted(trees, key=lambda tree: (tree.is_chain, len(tree))):
        full = (len(batch) + 1) * len(tree) > batch_tokens
        if batch and (full or batch[0].is_chain != tree.is_chain):
            yield batch
            batch = []
        batch.append(tree)
    if batch:
        yield batch
