"""LoRAs as an adapter: K of them on the blocks above one, in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from peft import LoraConfig
from torch import Tensor

from trainables.adapters.adapter import ModelParts, PackTexts
from trainables.adapters.lora.io import lora_files, peft_config, read_lora, with_lora
from trainables.adapters.lora.plan import LoraPlan
from trainables.adapters.lora.stacks import LoraStacks, sizes_of, target_maps
from trainables.adapters.passes import member_nll
from trainables.adapters.stacked import StackedAdapter
from trainables.adapters.training import StepLosses
from trainables.lm.batches import TextBatch
from trainables.lm.reference import WholeModel
from trainables.lm.token_tree import TokenTree


class LoraAdapter(StackedAdapter[LoraPlan]):
    """K LoRAs of one shape, as batched products beside the frozen maps; peft itself where the whole model is asked.

    Raises:
        ConfigError: no block above, or no linear map of that name.
    """

    def __init__(self, plans: Sequence[LoraPlan], parts: ModelParts, texts: PackTexts) -> None:
        """Find the maps and draw the members."""
        first = plans[0]
        layers = [first.trunk_layer(parts.card)] * len(plans)
        super().__init__(plans, parts, texts, layers, first.micro_batch_tokens)
        self._maps = target_maps(self.upper.model, self.layer, first.lora_targets)
        sizes = {name: sizes_of(module) for name, module in self._maps.items()}
        scales = [plan.lora_alpha / plan.rank for plan in plans]
        self.train_these(LoraStacks(sizes, first.rank, scales, [plan.seed for plan in plans], parts.device))

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Return the states as they are, once for each member: what changes lies above."""
        return hidden.expand(len(self.plans[who]), -1, -1)

    def acting(self, who: slice) -> AbstractContextManager[None]:
        """Add some members' updates to the maps of the upper blocks."""
        stacks = self.stacks
        assert isinstance(stacks, LoraStacks)
        return stacks.acting(self._maps, who)

    def losses(self, batch: TextBatch, who: slice, step: TextBatch) -> StepLosses:
        """Return the language model's loss."""
        states = self.changed(batch.hidden[None], batch.documents, batch.trees, who)
        with self.acting(who):
            nll = member_nll(self.upper, batch, states).sum(dim=1)
        return StepLosses(nll / len(step.labels), nll)

    def num_multiplied(self, member: int) -> int:
        """Count A and B."""
        return self.stacks.member_size(member)

    def stored(self, member: int) -> dict[str, bytes]:
        """Return the LoRA as files that peft reads."""
        return lora_files(self.stacks.member_state(member), self._config(member))

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        """Set a LoRA from its files."""
        self.stacks.load_member_state(member, read_lora(files))

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Let peft put the LoRA into the whole model."""
        whole = self.parts.whole_model()
        with torch.no_grad(), with_lora(whole.model, self.stacks.member_state(member), self._config(member)):
            yield whole

    def _config(self, member: int) -> LoraConfig:
        plan, card = self.plans[member], self.parts.card
        return peft_config(list(self._maps), plan.rank, plan.lora_alpha, card.source or card.name)
