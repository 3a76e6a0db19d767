"""An adapter in one file: one vector for each member, added to the hidden states after a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from safetensors.torch import load, save
from torch import Tensor

from trainables.adapters.adapter import Adapter, MemberState, ModelParts, PackTexts
from trainables.adapters.passes import member_nll
from trainables.adapters.plan import TrainingPlan
from trainables.adapters.split import SplitAdapter
from trainables.lm.batches import TextBatch, epoch_order
from trainables.lm.card import ModelCard
from trainables.lm.reference import WholeModel
from trainables.lm.repeatable import repeatably
from trainables.lm.token_tree import TokenTree


@dataclass(frozen=True, kw_only=True)
class ShiftPlan(TrainingPlan):
    name: ClassVar[str] = "shift"
    packs: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("shift.safetensors",)
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {"shift": ("layer",)}

    layer: int

    def trunk_layer(self, card: ModelCard) -> int:
        return self.layer

    def added_params(self, card: ModelCard) -> int:
        return card.model_dim

    def train_token_flops(self, card: ModelCard) -> float:
        return 4 * (card.block_params * self.trial_blocks(card) + card.head_params)

    @classmethod
    def load(cls) -> type[Adapter]:
        return ShiftAdapter


class ShiftAdapter(SplitAdapter[ShiftPlan]):
    def __init__(self, plans: Sequence[ShiftPlan], parts: ModelParts, texts: PackTexts) -> None:
        super().__init__(plans, parts, texts, [plan.layer for plan in plans], plans[0].micro_batch_tokens)
        draws = [torch.Generator().manual_seed(plan.seed) for plan in plans]
        self.vectors = [
            (0.3 * torch.randn(parts.card.model_dim, generator=draw)).to(parts.device).requires_grad_()
            for draw in draws
        ]
        self.optimisers = [torch.optim.Adam([v], lr=p.lr) for v, p in zip(self.vectors, plans, strict=True)]

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        return hidden + torch.stack(self.vectors[who])[:, None].to(hidden.dtype)

    def _gradients(self, batch: TextBatch) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.changed(batch.hidden[None], batch.documents, batch.trees, slice(None))
        nll = member_nll(self.upper, batch, states).sum(dim=1)
        size = torch.stack([p.weight_decay * v.square().sum() for p, v in zip(self.plans, self.vectors, strict=True)])
        loss = nll / len(batch.labels) + size
        for vector in self.vectors:
            vector.grad = None
        loss.sum().backward()
        return nll.detach(), loss.detach()

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        plan, train = self.plans[0], self.states[self.layer].train
        sums, losses = torch.zeros(2, self.num_members, dtype=torch.float64)
        steps = 0
        for batch in train.steps(epoch_order(len(train), plan.seed, epoch), plan.batch_size):
            nll, loss = repeatably("shift", self.parts.device, partial(self._gradients, batch))
            sums, losses, steps = sums + nll.double().cpu(), losses + loss.double().cpu(), steps + 1
            for k, optimiser in enumerate(self.optimisers):
                self.active[k] = self.active[k] and bool(torch.isfinite(loss[k]))
                if self.active[k]:
                    optimiser.step()
        return [
            {"train/nll": float(nll / train.num_targets), "train/loss": float(loss / steps)}
            for nll, loss in zip(sums, losses, strict=True)
        ]

    def train_flops(self, epochs: int, member: int = 0) -> float:
        card, train = self.parts.card, self.states[self.layer].train
        return epochs * train.num_tokens * self.plans[0].train_token_flops(card)

    def state(self, member: int) -> MemberState:
        held = self.optimisers[member].state_dict()["state"].get(0, {})
        moments = {name: value.detach().clone().cpu() for name, value in held.items()}
        return MemberState({"vector": self.vectors[member].detach().clone().cpu()}, moments)

    def load_state(self, member: int, state: MemberState) -> None:
        with torch.no_grad():
            self.vectors[member].copy_(state.weights["vector"])
        optimiser = self.optimisers[member]
        held = {0: {name: value.clone() for name, value in state.optimiser.items()}} if state.optimiser else {}
        optimiser.load_state_dict({**optimiser.state_dict(), "state": held})

    def stored(self, member: int) -> dict[str, bytes]:
        return {"shift.safetensors": save(dict(self.state(member).weights))}

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        with torch.no_grad():
            self.vectors[member].copy_(load(files["shift.safetensors"])["vector"])

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        vector, whole = self.vectors[member].detach(), self.parts.whole_model()
        with whole.with_memory(lambda hidden: vector.expand_as(hidden), self.layer):
            yield whole
