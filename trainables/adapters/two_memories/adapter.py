"""Two memories as an adapter: both act on every text, each learns from its own kind only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainables.adapters.adapter import ModelParts, PackTexts
from trainables.adapters.memory.io import memory_bytes, read_memory
from trainables.adapters.passes import member_nll
from trainables.adapters.stacked import StackedAdapter
from trainables.adapters.training import StepLosses
from trainables.adapters.two_memories.banks import TwoBanks
from trainables.adapters.two_memories.plan import FILES, KINDS, Kind, TwoMemoriesPlan
from trainables.errors import DataError
from trainables.lm.batches import TextBatch
from trainables.lm.cut import find_blocks
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import TokenTree


class TwoMemoriesAdapter(StackedAdapter[TwoMemoriesPlan]):
    """K members with a memory for documents and one for templates (open in note 000).

    At one block both read its output, and both are added. At two blocks the lower one is added to what the upper
    blocks begin with, the other within them. In training both act on every text, as they do when asked, and each
    learns from texts of its kind (ours): what a text of the other kind asks of it is left aside. Where one kind alone
    is trained on, the other memory is that of an earlier training, and stays as it is.

    Raises:
        ConfigError: no such block.
    """

    def __init__(self, plans: Sequence[TwoMemoriesPlan], parts: ModelParts, texts: PackTexts) -> None:
        """Draw the memories."""
        first = plans[0]
        layers = [first.trunk_layer(parts.card)] * len(plans)
        super().__init__(plans, parts, texts, layers, first.micro_batch_tokens)
        self._layers = dict(zip(KINDS, first.layers, strict=True))
        self._documents = {text.tree.digest() for text in texts.segments}
        seeds = [plan.seed for plan in plans]
        sizes = parts.card.model_dim, first.memory_dim, first.norm_and_gate
        self.banks = TwoBanks(*sizes, seeds, parts.device, first.learning, first.memory_precision)
        self._learning: Kind | None = None
        self.train_these(self.banks)

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Add what the memories at the lower block give."""
        kinds = [kind for kind in KINDS if self._layers[kind] == self.layer]
        states: Tensor = hidden
        for kind in kinds:
            states = states + self.banks.added(kind, hidden, who, kind == self._learning)
        return states

    @contextmanager
    def acting(self, who: slice) -> Iterator[None]:
        """Add the memory of the higher block within the blocks above the lower one."""
        members = len(self.plans[who])

        def adding(kind: Kind) -> Any:
            def add(module: nn.Module, args: Any, output: Any) -> Any:
                hidden = output[0] if isinstance(output, tuple) else output
                rows = hidden.reshape(members, -1, hidden.shape[-1])
                states = (rows + self.banks.added(kind, rows, who, kind == self._learning)).reshape(hidden.shape)
                return (states, *output[1:]) if isinstance(output, tuple) else states

            return add

        with ExitStack() as hooks:
            for kind in KINDS:
                if self._layers[kind] != self.layer:
                    block = find_blocks(self.upper.model)[2][self._layers[kind]]
                    hooks.callback(block.register_forward_hook(adding(kind)).remove)
            yield

    def losses(self, batch: TextBatch, who: slice, step: TextBatch) -> StepLosses:
        """Return the language model's loss, texts of each kind by themselves."""
        nll = torch.zeros(len(self.plans[who]), device=self.parts.device)
        is_document = [text.tree.digest() in self._documents for text in batch.texts]
        for kind, wanted in zip(KINDS, (True, False), strict=True):
            part = batch.chosen([place for place, found in enumerate(is_document) if found == wanted])
            if part is None:
                continue
            self._learning = kind
            try:
                states = self.changed(part.hidden[None], part.documents, part.trees, who)
                with self.acting(who):
                    nll = nll + member_nll(self.upper, part, states).sum(dim=1)
            finally:
                self._learning = None
        return StepLosses(nll / len(step.labels), nll)

    def stored(self, member: int) -> dict[str, bytes]:
        """Return both memories, each as a file that `load_memory` reads."""
        key, precision = self.parts.card.key, self.plans[member].memory_precision
        found = {}
        for kind, name in FILES.items():
            state = self.banks.bank(kind).member_state(member)
            found[name] = memory_bytes(state, layer=self._layers[kind], model=key, precision=precision)
        return found

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        """Set both memories from their files."""
        for kind, name in FILES.items():
            if name not in files:
                raise DataError(f"{name}: missing; train the trial again")
            self._load(member, kind, files[name], name)

    def start(self, member: int, files: Mapping[str, bytes]) -> None:
        """Take over both memories, or a single one."""
        if len(files) == 1:
            ((name, content),) = files.items()
            self._load(member, self.plans[member].taken, content, name)
        else:
            self.load_stored(member, files)

    def _load(self, member: int, kind: Kind, content: bytes, name: str) -> None:
        self.banks.bank(kind).load_member_state(member, read_memory(content, name).memory.state_dict())

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Attach copies of both memories to the whole model by hooks."""
        whole = self.parts.whole_model()
        first, second = (self.banks.bank(kind).single(member).to(self.parts.device) for kind in KINDS)
        one, other = self._layers.values()
        with ExitStack() as hooks:
            if one == other:
                hooks.enter_context(whole.with_memory(lambda hidden: first(hidden) + second(hidden), one))
            else:
                hooks.enter_context(whole.with_memory(first, one))
                hooks.enter_context(whole.with_memory(second, other))
            yield whole
