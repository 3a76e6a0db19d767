"""AdamW, cosine schedule and gradient clipping for a pack: one step call, every member exactly on its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.adapters.schedule import cosine_with_warmup
from trainables.adapters.shapes import check_moments
from trainables.adapters.stacks import ParameterStacks

_MOMENTS = ("exp_avg", "exp_avg_sq")


class PackOptimiser:
    """Trains the members of a pack, each as if it were alone (note 000: AdamW, cosine, clipping).

    One `torch.optim.AdamW` holds one parameter group per member: views of the stacks. Learning rate,
    weight decay, gradient clipping, step count and moments are the member's own. A member that is not active
    in a step keeps its parameters, moments and place in the schedule.

    Attributes:
        steps: Steps taken so far, per member.
    """

    def __init__(
        self,
        stacks: ParameterStacks,
        lrs: Sequence[float],
        weight_decays: Sequence[float],
        warmup_steps: int,
        total_steps: int,
        grad_clips: Sequence[float],
    ) -> None:
        """Start at step 0.

        Args:
            stacks: The members' parameters.
            lrs: Peak learning rate per member.
            weight_decays: Decoupled weight decay per member.
            warmup_steps: Warm-up of the schedule, in steps; the same for all members.
            total_steps: Length of the schedule, in steps.
            grad_clips: Largest gradient norm per member, over all its parameters.
        """
        self._stacks = stacks
        self._lrs, self._grad_clips = list(lrs), list(grad_clips)
        self._warmup_steps, self._total_steps = warmup_steps, total_steps
        self._members = [stacks.member_parameters(k) for k in range(stacks.num_members)]
        self._adamw = torch.optim.AdamW(
            [
                {"params": list(parameters.values()), "lr": lr, "weight_decay": weight_decay}
                for parameters, lr, weight_decay in zip(self._members, lrs, weight_decays, strict=True)
            ],
            fused=True,
        )
        self.steps = [0] * stacks.num_members

    def zero_grad(self) -> None:
        """Forget the gradients of the stacks."""
        self._stacks.zero_grad(set_to_none=True)
        self._stacks.bind_grads()

    def step(self, active: Sequence[bool]) -> Tensor:
        """Take one step of every active member from the gradients in the stacks.

        Args:
            active: One flag per member; False freezes it (it has diverged or finished).

        Returns:
            Gradient norm of each member before clipping, `[K]` float32; NaN for inactive members.
        """
        self._stacks.bind_grads()
        device = self._stacks.device
        norms = [torch.tensor(math.nan, device=device)] * self._stacks.num_members
        for member, group in enumerate(self._adamw.param_groups):
            if not active[member]:
                for parameter in group["params"]:
                    parameter.grad = None
                continue
            factor = cosine_with_warmup(self.steps[member], self._warmup_steps, self._total_steps)
            group["lr"] = self._lrs[member] * factor
            norms[member] = torch.nn.utils.clip_grad_norm_(group["params"], self._grad_clips[member])
            self.steps[member] += 1
        self._adamw.step()
        return torch.stack(norms)

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return CPU copies of one member's moments and step count; continuing from them is bit-identical."""
        state = {"step": torch.tensor(self.steps[member])}
        for name, parameter in self._members[member].items():
            held = self._adamw.state.get(parameter, {})
            state |= {f"{moment}.{name}": held[moment].clone().cpu() for moment in _MOMENTS if moment in held}
        return state

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Set one member's moments and step count from what `member_state` returned.

        Raises:
            DataError: names, types or shapes differ.
        """
        check_moments(state, self._members[member], _MOMENTS)
        self.steps[member] = int(state["step"])
        for name, parameter in self._members[member].items():
            self._adamw.state.pop(parameter, None)
            if self.steps[member] == 0:
                continue
            moments = {moment: state[f"{moment}.{name}"].to(parameter.device, copy=True) for moment in _MOMENTS}
            step = torch.tensor(float(self.steps[member]), device=parameter.device)
            self._adamw.state[parameter] = {"step": step, **moments}
