"""Adapters that change the model itself: each trial runs all its blocks, so nothing is computed once for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainables.adapters.adapter import Adapter, MemberState, ModelParts, PackTexts, PlanT, TrainingPlanT
from trainables.adapters.schedule import cosine_with_warmup
from trainables.adapters.shapes import check_moments, check_same
from trainables.lm.batches import epoch_order
from trainables.lm.reference import WholeModel
from trainables.lm.repeatable import repeatably
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree, collate

_MOMENTS = ("exp_avg", "exp_avg_sq")


class WholeModelAdapter(Adapter[PlanT]):
    """One member that is a whole model of its own.

    Attributes:
        whole: the model, with what is trained in it.
        batch_size: texts in one forward pass.
    """

    def __init__(
        self, plans: Sequence[PlanT], parts: ModelParts, texts: PackTexts, whole: WholeModel, batch_size: int
    ) -> None:
        """Keep the model and evaluate it before it is trained."""
        super().__init__(plans, parts, texts)
        self.whole, self.batch_size = whole, batch_size
        source = parts.hidden_states()
        self._nll_before = source.pretrained_nll(texts.segments, lambda: self.nll(texts.segments)[0])

    @property
    def nll_before(self) -> float:
        """The memorisation error of the model as it comes."""
        return self._nll_before

    @torch.no_grad()
    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return the mean NLL over the target tokens of some texts (`ModelMembers`)."""
        total, count = 0.0, 0
        for first in range(0, len(texts), self.batch_size):
            nll, targets = self.nll_sum(texts[first : first + self.batch_size])
            total, count = total + float(nll), count + targets
        return [total / count]

    def nll_sum(self, texts: Sequence[TrainingText]) -> tuple[Tensor, int]:
        """Return the summed NLL of the target tokens of some texts, with its gradient, and their number."""
        batch = collate([text.tree for text in texts], self.parts.device)
        labels = batch.tokens.clone()
        for row, text in enumerate(texts):
            labels[row, : text.first_target] = -100
            labels[row, len(text.tree) :] = -100
        logits = self.whole(batch.tokens)[:, :-1].float()
        nll = functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum", ignore_index=-100
        )
        return nll, sum(text.num_targets for text in texts)

    @torch.no_grad()
    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next token at nodes of trees, `[1, nodes in all]` (`ModelMembers`)."""
        found: list[int] = []
        for tree, read in zip(trees, nodes, strict=True):
            batch = collate([tree], self.parts.device)
            logits = self.whole(batch.tokens, batch.attention_mask, batch.positions)
            found += logits[0, list(read)].argmax(dim=-1).tolist()
        return np.array([found], dtype=np.int64).reshape(1, -1)


class TrainedWholeModel(WholeModelAdapter[TrainingPlanT]):
    """A whole model in which some parameters are trained; a subclass names them in `train_these`."""

    def train_these(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Set up the optimiser; the schedule spans all epochs."""
        plan = self.plans[0]
        self._parameters = dict(parameters)
        self._optimiser = torch.optim.AdamW(
            self._parameters.values(), lr=plan.lr, weight_decay=plan.weight_decay, fused=True
        )
        self._steps = 0
        self._all_steps = -(-len(self.texts.train) // plan.batch_size) * plan.epochs

    def trained_params(self, member: int) -> int:
        """Return how many numbers are trained."""
        return sum(parameter.numel() for parameter in self._parameters.values())

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train one epoch; a loss that is not finite ends it."""
        plan, texts = self.plans[0], self.texts.train
        total_nll, targets, losses = 0.0, 0, []
        order = epoch_order(len(texts), plan.seed, epoch, plan.epoch_order)
        for first in range(0, len(order), plan.batch_size):
            batch = [texts[i] for i in order[first : first + plan.batch_size]]
            loss, count = self._train_step(batch)
            losses.append(loss)
            total_nll, targets = total_nll + loss * count, targets + count
            if not np.isfinite(loss):
                self.active[0] = False
                break
        return [{"train/nll": total_nll / targets, "train/loss": float(np.mean(losses))}]

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

    def _train_step(self, texts: Sequence[TrainingText]) -> tuple[float, int]:
        """Take one step; return the mean NLL of the batch's target tokens, and their number."""
        plan = self.plans[0]

        def gradients() -> tuple[Tensor, int]:
            nll, count = self.nll_sum(texts)
            self._optimiser.zero_grad(set_to_none=True)
            loss: Tensor = nll / count
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach(), count

        loss, count = repeatably(f"{plan.name} in {self.parts.card.name}", self.parts.device, gradients)
        nn.utils.clip_grad_norm_(self._parameters.values(), plan.grad_clip)
        factor = cosine_with_warmup(self._steps, plan.warmup_steps, self._all_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = plan.lr * factor
        if torch.isfinite(loss):
            self._optimiser.step()
        self._steps += 1
        return float(loss), count
