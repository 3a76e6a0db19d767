"""AdamW, cosine schedule and gradient clipping for a pack: every member exactly on its own, nothing read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.adapters.schedule import cosine_with_warmup
from trainables.adapters.shapes import check_moments
from trainables.adapters.stacks import ParameterStacks

_MOMENTS = ("exp_avg", "exp_avg_sq")
_BETAS, _EPS = (0.9, 0.999), 1e-8
"""The defaults of `torch.optim.AdamW`, which the notes leave as they are."""
_CLIP_EPS = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to a norm before it divides by it."""


class PackOptimiser:
    """Trains the members of a pack, each as if it were alone (note 000: AdamW, cosine, clipping).

    Gradient norms are taken for all members at once, stack by stack. The step is one call a member of the kernel
    behind `torch.optim.AdamW(fused=True)`, which also divides the gradient by what clipping asks for, and does nothing
    where a flag on the device says so: neither norms nor flags are ever read by the host. Learning rate, weight decay,
    clipping, step count and moments are the member's own. A member that is not active in a step keeps its parameters,
    moments and place in the schedule.
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
        self._lrs, self._weight_decays = list(lrs), list(weight_decays)
        self._warmup_steps, self._total_steps = warmup_steps, total_steps
        self._members = [stacks.member_parameters(k) for k in range(stacks.num_members)]
        self._moments = [
            {moment: {name: torch.zeros_like(value) for name, value in member.items()} for moment in _MOMENTS}
            for member in self._members
        ]
        self._grad_clips = torch.tensor(list(grad_clips), dtype=torch.float32, device=stacks.device)
        self._steps = torch.zeros(stacks.num_members, device=stacks.device)
        self._planned = [0] * stacks.num_members  # steps as the host counts them: not those that a flag has stopped
        self._active = [True] * stacks.num_members
        self._goes_on = torch.ones(stacks.num_members, device=stacks.device)

    @property
    def steps(self) -> list[int]:
        """Steps taken so far, per member; reading them waits for the device."""
        self._planned = [round(steps) for steps in self._steps.tolist()]
        return list(self._planned)

    def zero_grad(self) -> None:
        """Forget the gradients of the stacks."""
        self._stacks.zero_grad(set_to_none=True)

    @torch.no_grad()
    def step(self, active: Sequence[bool], finite: Tensor | None = None) -> Tensor:
        """Take one step of every active member from the gradients in the stacks, which it scales.

        Args:
            active: One flag per member; False freezes it (it has diverged or finished).
            finite: Bool `[K]` on the device: False freezes a member of which the host does not know yet. Such a
                member must stay frozen until `steps` has been read. None: all go on.

        Returns:
            Gradient norm of each member before clipping, `[K]` float32, of frozen ones too.
        """
        if list(active) != self._active:
            self._active = list(active)
            self._goes_on = torch.tensor(self._active, dtype=torch.float32, device=self._stacks.device)
        goes_on = self._goes_on if finite is None else self._goes_on * finite
        self._steps += goes_on
        stops = (1 - goes_on).unbind()
        gradients = self._stacks.gradients()
        of_stacks = [torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in gradients.values()]
        norms: Tensor = torch.linalg.vector_norm(torch.stack(of_stacks), dim=0)
        scales = ((norms + _CLIP_EPS) / self._grad_clips).clamp(min=1).unbind()
        of_members = zip(*(grad.unbind() for grad in gradients.values()), strict=True)
        steps = self._steps.unbind()
        for k, own in enumerate(of_members):
            if not active[k]:
                continue
            factor = cosine_with_warmup(self._planned[k], self._warmup_steps, self._total_steps)
            self._planned[k] += 1
            first, second = ([self._moments[k][moment][name] for name in gradients] for moment in _MOMENTS)
            torch._fused_adamw_(  # torch.optim.AdamW calls it with one learning rate and scale for all groups
                [self._members[k][name] for name in gradients],
                list(own),
                first,
                second,
                [],
                [steps[k]] * len(own),
                lr=self._lrs[k] * factor,
                weight_decay=self._weight_decays[k],
                grad_scale=scales[k],
                found_inf=stops[k],
                beta1=_BETAS[0],
                beta2=_BETAS[1],
                eps=_EPS,
                amsgrad=False,
                maximize=False,
            )
        return norms

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return CPU copies of one member's moments and step count; continuing from them is bit-identical."""
        steps = self.steps[member]
        state = {"step": torch.tensor(steps)}
        for moment in _MOMENTS if steps else ():
            own = self._stacks.own(member, self._moments[member][moment])
            state |= {f"{moment}.{name}": value.contiguous().clone().cpu() for name, value in own.items()}
        return state

    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Set one member's moments and step count from what `member_state` returned; at step 0 it starts anew.

        Raises:
            DataError: names, types or shapes differ.
        """
        check_moments(state, self._stacks.own(member, self._members[member]), _MOMENTS)
        steps = int(state["step"])
        self._planned[member] = steps
        self._steps[member] = steps
        for moment, values in self._moments[member].items():
            for value in values.values():
                value.zero_()
            for name, value in self._stacks.own(member, values).items() if steps else ():
                value.copy_(state[f"{moment}.{name}"])
