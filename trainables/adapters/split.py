"""Adapters that change the hidden states after one block: only the blocks above run again in every trial.

The states up to that block are computed once and kept. A subclass says how it changes them; asking and evaluating
are here, for one member, many, or none that changes anything.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.adapters.adapter import Adapter, ModelParts, PackTexts, PlanT
from trainables.lm.batches import SHARD_TEXTS, TextBatch, TextBatches, pass_tokens, similar_lengths
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import Batch, TokenTree, collate
from trainables.lm.upper import Upper


@dataclass
class TextStates:
    """The texts of a pack with their hidden states after one block.

    Attributes:
        train: texts that are trained on.
        segments: the documents' segments.
        nll_before: memorisation error of the pretrained model.
    """

    train: TextBatches
    segments: TextBatches
    nll_before: float


class SplitAdapter(Adapter[PlanT]):
    """Members that act between a block and the one above it.

    Attributes:
        layer: that block.
        upper: the blocks above, frozen.
        states: the texts, kept from pack to pack.
        max_tokens: tokens, over all members, in one forward pass.
    """

    def __init__(
        self, plans: Sequence[PlanT], parts: ModelParts, texts: PackTexts, layer: int, max_tokens: int
    ) -> None:
        """Load the blocks above and compute the hidden states, unless the process has them."""
        super().__init__(plans, parts, texts)
        self.layer, self.max_tokens = layer, max_tokens
        self.states = parts.keep("states", layer, lambda: text_states(parts, texts, layer, max_tokens))
        self.upper = parts.upper(layer)
        self._asked = [range(len(plans))]

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

    def passes(self, batches: TextBatches) -> Iterator[tuple[TextBatch, slice]]:
        """Yield texts and members of each forward pass, for those members that are asked."""
        for some in self._asked:
            for part, who in passes(batches, len(some), self.max_tokens):
                yield part, slice(some.start + who.start, some.start + who.stop)

    @abstractmethod
    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Return some members' hidden states, given the frozen model's.

        Args:
            hidden: `[1, nodes of all trees, model_dim]`, tree after tree.
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
        return self.states.nll_before

    def counts(self) -> dict[str, int]:
        """Count a model whose blocks do not run alone."""
        return {"whole_model": 1} if self.upper.needs_tokens else {}

    @torch.no_grad()
    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return each member's mean NLL over the target tokens of some texts (`ModelMembers`)."""
        if texts is self.texts.segments:
            batches = self.states.segments
        else:
            hidden = self.parts.hidden_states().get([text.tree for text in texts], self.layer)
            batches = TextBatches(texts, hidden, self.parts.device)
        total = torch.zeros(self.num_members, dtype=torch.float64)
        for part, who in self.passes(batches):
            states = self.changed(part.hidden[None], part.documents, part.trees, who)
            with self.acting(who):
                total[who] += member_nll(self.upper, part, states).double().sum(dim=1).cpu()
        return [float(value) for value in total / batches.num_targets]

    @torch.no_grad()
    def text_nll(self, texts: Sequence[TrainingText]) -> NDArray[np.float64]:
        """Return each member's mean NLL over the target tokens of each text, `[K, texts]` (`ModelMembers`)."""
        found = np.zeros((self.num_members, len(texts)))
        hidden = self.parts.hidden_states().get([text.tree for text in texts], self.layer)
        places: dict[int, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(id(text), []).append(place)
        for part, who in self.passes(TextBatches(texts, hidden, self.parts.device)):
            states = self.changed(part.hidden[None], part.documents, part.trees, who)
            with self.acting(who):
                nll = member_nll(self.upper, part, states).double()
            by_text = torch.split(nll, [text.num_targets for text in part.texts], dim=1)  # type: ignore[no-untyped-call]
            for text, own in zip(part.texts, by_text, strict=True):
                found[who, places[id(text)]] = own.mean(dim=1, keepdim=True).cpu().numpy()
        return found

    @torch.no_grad()
    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next token at nodes of trees, `[K, nodes in all]` (`ModelMembers`)."""
        count, device = sum(map(len, self._asked)), self.parts.device
        hidden = self.parts.hidden_states().get(trees, self.layer)
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
            states = torch.cat([hidden[r] for r in rows]).to(device)[None]
            places = torch.tensor(read, device=device)
            per_pass = max(1, self.max_tokens // batch.tokens.numel())
            for start, end in ((at, min(some.stop, at + per_pass)) for some in self._asked for at in some[::per_pass]):
                who = slice(start, end)
                with self.acting(who):
                    found = self._argmax(self.changed(states, about, chosen, who), batch, places)
                out[who, where] = found.cpu().numpy()
        return out

    def _argmax(self, states: Tensor, batch: Batch, places: Tensor) -> Tensor:
        """Return the argmax token at `places` `[n, 2]` (row, node): `[members, n]`.

        Args:
            states: `[members, nodes of all trees, model_dim]`, tree after tree.
            batch: the trees.
            places: what to read.
        """
        rows, width = batch.tokens.shape
        padded = states.new_zeros(len(states), rows, width, states.shape[-1])
        padded[:, torch.arange(width, device=self.parts.device) < batch.lengths[:, None]] = states
        final = self.upper(padded.flatten(0, 1), batch.attention_mask, batch.positions, tokens=batch.tokens)
        read = final.reshape(padded.shape)[:, places[:, 0], places[:, 1]]
        logits: Tensor = self.upper.logits(read)
        return logits.argmax(dim=-1)


def text_states(parts: ModelParts, texts: PackTexts, layer: int, max_tokens: int) -> TextStates:
    """Compute the hidden states of a pack's texts, and of its prompts along with them, and the error before training.

    Args:
        parts: the frozen model.
        texts: the texts.
        layer: block after which.
        max_tokens: tokens in one forward pass of the blocks above.
    """
    train = [] if texts.train is texts.segments else texts.train
    count, source = len(texts.segments), parts.hidden_states()
    with parts.timing("trunk_s"):
        states: list[Tensor] = []
        # Many documents go shard by shard, so that neither their trees nor their states are held at a time.
        for start in range(0, count - SHARD_TEXTS, SHARD_TEXTS):
            shard = [text.tree for text in texts.segments[start : start + SHARD_TEXTS]]
            states += source.get(shard, layer, texts.trunk_layers)
        rest = [text.tree for text in texts.segments[len(states) :]]
        trees = [*rest, *(text.tree for text in train), *texts.prompts]
        found = source.get(trees, layer, texts.trunk_layers)
    first, last = len(rest), len(rest) + len(train)
    segments = TextBatches(texts.segments, states + found[:first], parts.device)

    def nll_before() -> float:
        upper = parts.upper(layer)
        with parts.timing("measure_s"), torch.no_grad():
            total = torch.zeros(1, dtype=torch.float64)
            for part, _ in passes(segments, 1, max_tokens):
                total += member_nll(upper, part, part.hidden[None]).double().sum(dim=1).cpu()
        return float(total[0] / segments.num_targets)

    return TextStates(
        train=TextBatches(train, found[first:last], parts.device) if train else segments,
        segments=segments,
        nll_before=source.pretrained_nll(texts.segments, nll_before),
    )


def member_nll(upper: Upper, batch: TextBatch, states: Tensor) -> Tensor:
    """Return the NLL of every target token of some texts: `[members, targets]`, float32.

    Args:
        upper: blocks above the adapter.
        batch: the texts.
        states: `[members, tokens, model_dim]`, as the members change them.
    """
    tokens = batch.tokens[None] if upper.needs_tokens else None
    final = upper(states, positions=batch.positions[None], lengths=batch.lengths, tokens=tokens)
    picked = batch.target_places.of(final).flatten(0, 1)
    return upper.nll(picked, batch.labels.repeat(len(states))).reshape(len(states), -1)


def passes(batches: TextBatches, members: int, max_tokens: int) -> Iterator[tuple[TextBatch, slice]]:
    """Yield all texts for all members: texts of one forward pass, and which members it is for.

    Args:
        batches: the texts.
        members: members of the pack.
        max_tokens: over all members of a pass.
    """
    for batch in batches.by_length(max_tokens):
        for who, texts in slices(members, batch.lengths, max_tokens):
            yield batch.part(texts), who


def slices(members: int, lengths: Sequence[int], max_tokens: int) -> Iterator[tuple[slice, slice]]:
    """Split a step into forward passes of at most `max_tokens` tokens: by members first, then by texts.

    Args:
        members: members of the pack.
        lengths: tokens of each text.
        max_tokens: over all members of a pass; one text of one member is always a pass.

    Yields:
        Which members, and which texts.
    """
    if (tokens := sum(lengths)) <= max_tokens:
        together = max_tokens // max(1, tokens)
        for start in range(0, members, together):
            yield slice(start, min(members, start + together)), slice(0, len(lengths))
        return
    cuts = list(stretches(lengths, max_tokens))
    for member in range(members):
        for start, end in cuts:
            yield slice(member, member + 1), slice(start, end)


def stretches(sizes: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Yield where each stretch of neighbours starts and ends that takes at most `room` together, or is one alone."""
    start, left = 0, room
    for place, size in enumerate(sizes):
        if size > left and place > start:
            yield start, place
            start, left = place, room
        left -= size
    yield start, len(sizes)
