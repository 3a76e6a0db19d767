"""Adapters that change the hidden states after one block: only the blocks above run again in every trial.

The states up to that block are computed once and kept. A subclass says how it changes them; asking and evaluating
are here, for one member, many, or none that changes anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.adapters.adapter import Adapter, ModelParts, PackTexts, PlanT
from trainables.adapters.passes import member_nll, passes, slices
from trainables.lm.batches import SHARD_TEXTS, TextBatch, TextBatches, pass_tokens, similar_lengths
from trainables.lm.segment_texts import target_count
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import Batch, TokenTree, collate


@dataclass
class TextStates:
    """The texts of a pack with their hidden states after one block.

    Attributes:
        train: texts that are trained on.
        segments: the documents' segments.
    """

    train: TextBatches
    segments: TextBatches


class NotTogether(Exception):
    """Members at several blocks of a model whose blocks do not let states in after any of them."""


class StatesByLayer(dict[int, TextStates]):
    """The texts of a pack after each of its members' blocks."""


class SplitAdapter(Adapter[PlanT]):
    """Members that act between a block and the one above it.

    Attributes:
        layers: each member's block.
        layer: the lowest of them.
        upper: the blocks above that, frozen.
        states: the texts after each of the blocks, kept from pack to pack.
        max_tokens: tokens, over all members, in one forward pass.
    """

    def __init__(
        self, plans: Sequence[PlanT], parts: ModelParts, texts: PackTexts, layers: Sequence[int], max_tokens: int
    ) -> None:
        """Load the blocks above and compute the hidden states, unless the process has them.

        Raises:
            NotTogether: members at several blocks have to be runs of their own.
        """
        super().__init__(plans, parts, texts)
        self.layers, self.layer, self.max_tokens = list(layers), min(layers), max_tokens
        kept = parts.keep("states", None, StatesByLayer)
        for layer in kept.keys() - layers:
            del kept[layer]
        if missing := sorted({*layers} - kept.keys()):
            kept.update(text_states(parts, texts, missing))
        self.states = StatesByLayer(kept)
        self.upper = parts.upper(self.layer)
        if len(self.states) > 1 and not self.upper.staggers:
            raise NotTogether(f"{parts.card.name}: blocks above {self.layer}")
        self._asked = [range(len(plans))]
        # Kept: a pack is made anew whenever a member leaves or joins, and the error is found by hashing all texts.
        self._nll_before = parts.keep(
            "nll_before", None, lambda: parts.hidden_states().pretrained_nll(texts.segments, self._pretrained_nll)
        )

    @contextmanager
    def asking(self, members: Sequence[int]) -> Iterator[None]:
        """Run the others through no pass."""
        before = self._asked
        starts = [member for member in members if member - 1 not in members]
        ends = [member + 1 for member in members if member + 1 not in members]
        self._asked = [range(start, end) for start, end in zip(starts, ends, strict=True)]
        try:
            yield
        finally:
            self._asked = before

    @property
    def asked(self) -> list[int]:
        """The members whose answers matter now, ascending."""
        return [member for some in self._asked for member in some]

    @property
    def _asked_layers(self) -> list[int]:
        """Their blocks, ascending."""
        return sorted({self.layers[member] for member in self.asked})

    def passes(self, batches: Callable[[int], TextBatches]) -> Iterator[tuple[TextBatch, Tensor, slice]]:
        """Yield each forward pass for those members that are asked: texts, hidden states, and which members.

        The states are `[members, tokens, model_dim]`, or `[1, …]` where they are at one block.

        Args:
            batches: gives the texts with their states after a block.
        """
        for some in self._asked:
            first = batches(self.layers[some.start])
            for indices in first.groups_by_length(self.max_tokens):
                made: dict[int, TextBatch] = {}
                lengths = first.lengths_of(indices)
                for within, texts in slices(len(some), lengths, self.max_tokens):
                    who = slice(some.start + within.start, some.start + within.stop)
                    made = {layer: made.get(layer) or batches(layer).batch(indices) for layer in {*self.layers[who]}}
                    parts = {layer: batch.part(texts) for layer, batch in made.items()}
                    hidden = self._side_by_side({layer: part.hidden[None] for layer, part in parts.items()}, who)
                    yield parts[self.layers[who.start]], hidden, who

    def _side_by_side(self, states: Mapping[int, Tensor], who: slice) -> Tensor:
        """Return the states of some members, `[1, …]` each by block: one for each member, or for all at one block."""
        layers = self.layers[who]
        return states[layers[0]] if len({*layers}) == 1 else torch.cat([states[layer] for layer in layers])

    def segments(self, layer: int) -> TextBatches:
        """Return the documents' segments with their states after a block."""
        return self.states[layer].segments

    @abstractmethod
    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Return some members' hidden states, given the frozen model's.

        Args:
            hidden: `[members, nodes of all trees, model_dim]`, tree after tree, or `[1, …]` for members at one block.
            documents: for every tree, the document it is about.
            trees: the texts.
            who: which members.

        Returns:
            `[members, nodes, model_dim]`, same dtype.
        """

    def acting(self, who: slice) -> AbstractContextManager[None]:
        """Return a context in which the blocks above are some members' own; most leave them as they are."""
        return nullcontext()

    @property
    def nll_before(self) -> float:
        """The memorisation error of the model as it comes."""
        return self._nll_before

    @torch.no_grad()
    def _pretrained_nll(self) -> float:
        segments = self.segments(self.layer)
        total = torch.zeros(1, dtype=torch.float64)
        with self.parts.timing("measure_s"):
            for part, _ in passes(segments, 1, self.max_tokens):
                total += member_nll(self.upper, part, part.hidden[None]).double().sum(dim=1).cpu()
        return float(total[0] / segments.num_targets)

    def counts(self) -> dict[str, int]:
        """Count a model whose blocks do not run alone."""
        return {"whole_model": 1} if self.upper.needs_tokens else {}

    @torch.no_grad()
    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return each member's mean NLL over the target tokens of some texts (`ModelMembers`)."""
        batches = self.segments if texts is self.texts.segments else self._batches_of(texts)
        total = torch.zeros(self.num_members, dtype=torch.float64)
        for part, hidden, who in self.passes(batches):
            total[who] += self._nll_of(part, hidden, who).double().sum(dim=1).cpu()
        return [float(value) for value in total / target_count(texts)]

    @torch.no_grad()
    def text_nll(self, texts: Sequence[TrainingText]) -> NDArray[np.float64]:
        """Return each member's mean NLL over the target tokens of each text, `[K, texts]` (`ModelMembers`)."""
        found = np.zeros((self.num_members, len(texts)))
        places: dict[int, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(id(text), []).append(place)
        for part, hidden, who in self.passes(self._batches_of(texts)):
            nll = self._nll_of(part, hidden, who).double()
            by_text = torch.split(nll, [text.num_targets for text in part.texts], dim=1)  # type: ignore[no-untyped-call]
            for text, own in zip(part.texts, by_text, strict=True):
                found[who, places[id(text)]] = own.mean(dim=1, keepdim=True).cpu().numpy()
        return found

    def _batches_of(self, texts: Sequence[TrainingText]) -> Callable[[int], TextBatches]:
        trees, also = [text.tree for text in texts], self._asked_layers

        @cache
        def batches(layer: int) -> TextBatches:
            return TextBatches(texts, self.parts.hidden_states().get(trees, layer, also), self.parts.device)

        return batches

    def _nll_of(self, part: TextBatch, hidden: Tensor, who: slice) -> Tensor:
        """Return the NLL of every target token of some texts for some members: `[members, targets]`."""
        states = self.changed(hidden, part.documents, part.trees, who)
        with self.acting(who):
            return member_nll(self.upper, part, states, self.layers[who])

    @torch.no_grad()
    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next token at nodes of trees, `[K, nodes in all]` (`ModelMembers`)."""
        count, device = sum(map(len, self._asked)), self.parts.device
        source, layers = self.parts.hidden_states(), self._asked_layers
        hidden = {layer: source.get(trees, layer, layers) for layer in layers}
        starts = np.cumsum([0, *[len(read) for read in nodes]])
        out = np.zeros((self.num_members, int(starts[-1])), dtype=np.int64)
        one_more = pass_tokens(self.upper.num_weights, device, count)
        for rows in similar_lengths([len(tree) for tree in trees], self.max_tokens // count, one_more):
            read = [(place, node) for place, row in enumerate(rows) for node in nodes[row]]
            if not read:
                continue
            where = np.concatenate([np.arange(starts[r], starts[r + 1]) for r in rows])
            chosen, about = [trees[r] for r in rows], [documents[r] for r in rows]
            batch = collate(chosen, device)
            states = {layer: torch.cat([own[r] for r in rows]).to(device)[None] for layer, own in hidden.items()}
            places = torch.tensor(read, device=device)
            per_pass = max(1, self.max_tokens // batch.tokens.numel())
            for start, end in ((at, min(some.stop, at + per_pass)) for some in self._asked for at in some[::per_pass]):
                who = slice(start, end)
                with self.acting(who):
                    own = self.changed(self._side_by_side(states, who), about, chosen, who)
                    found = self._argmax(own, batch, places, self.layers[who])
                out[who, where] = found.cpu().numpy()
        return out

    def _argmax(self, states: Tensor, batch: Batch, places: Tensor, layers: Sequence[int]) -> Tensor:
        """Return the argmax token at `places` `[n, 2]` (row, node): `[members, n]`.

        Args:
            states: `[members, nodes of all trees, model_dim]`, tree after tree.
            batch: the trees.
            places: what to read.
            layers: each member's block.
        """
        rows, width = batch.tokens.shape
        padded = states.new_zeros(len(states), rows, width, states.shape[-1])
        padded[:, torch.arange(width, device=self.parts.device) < batch.lengths[:, None]] = states
        told = {"tokens": batch.tokens, "layers": np.repeat(layers, rows).tolist()}
        final = self.upper(padded.flatten(0, 1), batch.attention_mask, batch.positions, **told)
        read = final.reshape(padded.shape)[:, places[:, 0], places[:, 1]]
        logits: Tensor = self.upper.logits(read)
        return logits.argmax(dim=-1)


def text_states(parts: ModelParts, texts: PackTexts, layers: Sequence[int]) -> dict[int, TextStates]:
    """Compute the hidden states of a pack's texts after some blocks, and of its prompts along with them.

    Args:
        parts: the frozen model.
        texts: the texts.
        layers: blocks after which, ascending.
    """
    train = [] if texts.train is texts.segments else texts.train
    count, source = len(texts.segments), parts.hidden_states()
    also = (*layers, *texts.trunk_layers)
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with parts.timing("trunk_s"):
        # Many documents go shard by shard, so that neither their trees nor their states are held at a time.
        done = 0
        for start in range(0, count - SHARD_TEXTS, SHARD_TEXTS):
            shard = [text.tree for text in texts.segments[start : start + SHARD_TEXTS]]
            for layer in layers:
                states[layer] += source.get(shard, layer, also)
            done += len(shard)
        rest = [text.tree for text in texts.segments[done:]]
        trees = [*rest, *(text.tree for text in train), *texts.prompts]
        found = {layer: source.get(trees, layer, also) for layer in layers}
    first, last = len(rest), len(rest) + len(train)
    made = {}
    for layer, own in found.items():
        segments = TextBatches(texts.segments, states[layer] + own[:first], parts.device)
        made[layer] = TextStates(TextBatches(train, own[first:last], parts.device) if train else segments, segments)
    return made
