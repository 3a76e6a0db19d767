"""Training all weights of a language model instead of a memory: the comparison of note 000 on small Pythias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from trainables.adapters.adapter import MemberState, ModelParts, PackTexts
from trainables.adapters.full_update.plan import FullUpdatePlan
from trainables.adapters.schedule import cosine_with_warmup
from trainables.adapters.shapes import check_moments, check_same
from trainables.adapters.whole import WholeModelAdapter
from trainables.lm.batches import epoch_order
from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText

_MOMENTS = ("exp_avg", "exp_avg_sq")


class FullUpdateAdapter(WholeModelAdapter[FullUpdatePlan]):
    """All weights of one model of its own; they are not stored, being as large as the model."""

    def __init__(self, plans: Sequence[FullUpdatePlan], parts: ModelParts, texts: PackTexts) -> None:
        """Load a model and set up the optimiser."""
        (plan,) = plans
        whole = WholeModel(parts.card, parts.dtype, parts.device)
        super().__init__(plans, parts, texts, whole, plan.batch_size)
        whole.model.requires_grad_(True)
        self._parameters = dict(whole.model.named_parameters())
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True
        )
        self._steps = 0
        self._all_steps = -(-len(texts.train) // plan.batch_size) * plan.epochs

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train one epoch; a loss that is not finite ends it."""
        plan, texts = self.plans[0], self.texts.train
        total_nll, targets, losses = 0.0, 0, []
        order = epoch_order(len(texts), plan.seed, epoch)
        for first in range(0, len(order), plan.batch_size):
            batch = [texts[i] for i in order[first : first + plan.batch_size]]
            loss, count = self._train_step(batch)
            losses.append(loss)
            total_nll, targets = total_nll + loss * count, targets + count
            if not np.isfinite(loss):
                self.active[0] = False
                break
        return [{"train/nll": total_nll / targets, "train/loss": float(np.mean(losses))}]

    @property
    def trained_params(self) -> int:
        """All weights."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def train_flops(self, epochs: int) -> float:
        """Count six FLOPs per weight and token: forward, and backward for activations and parameters."""
        card = self.parts.card
        tokens = sum(len(text.tree) for text in self.texts.train)
        return 6.0 * (card.num_blocks * card.active_block_params + card.head_params) * tokens * epochs

    def state(self, member: int) -> MemberState:
        """Return copies of the weights and of the optimiser's state."""
        weights = {name: value.detach().cpu().clone() for name, value in self._parameters.items()}
        optimiser = {"step": torch.tensor(self._steps)}
        for name, parameter in self._parameters.items():
            held = self._optimiser.state[parameter]
            optimiser |= {f"{moment}.{name}": held[moment].cpu().clone() for moment in _MOMENTS if moment in held}
        return MemberState(weights, optimiser)

    def load_state(self, member: int, state: MemberState) -> None:
        """Set the weights and the optimiser's state."""
        check_same(state.weights, self._parameters, "weights of the model")
        check_moments(state.optimiser, self._parameters, _MOMENTS)
        self._steps = int(state.optimiser["step"])
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state.weights[name])
        for name, parameter in self._parameters.items() if self._steps else ():
            moments = {m: state.optimiser[f"{m}.{name}"].to(parameter.device, copy=True) for m in _MOMENTS}
            step = torch.tensor(float(self._steps), device=parameter.device)
            self._optimiser.state[parameter] = {"step": step, **moments}

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Return the model that is trained."""
        yield self.whole

    def _train_step(self, texts: Sequence[TrainingText]) -> tuple[float, int]:
        """Take one step; return the mean NLL of the batch's target tokens, and their number."""
        plan = self.plans[0]
        nll, count = self.nll_sum(texts)
        loss = nll / count
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._parameters.values(), plan.grad_clip)
        factor = cosine_with_warmup(self._steps, plan.warmup_steps, self._all_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = plan.lr * factor
        if torch.isfinite(loss):
            self._optimiser.step()
        self._steps += 1
        return float(loss.detach()), count
