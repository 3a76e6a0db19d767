"""Parameters of K members side by side: one stack `[K, ...]` for each name, so that one forward pass serves all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.adapters.shapes import check_same


class ParameterStacks(nn.Module):
    """What the members of a pack train, stacked.

    Args:
        initial: each member's parameters by name, of equal names, types and shapes. Members of one seed may share
            tensors; every stack has storage of its own.
        device: where the stacks live.

    Attributes:
        what: one member's parameters, for messages.
        num_members: K.
    """

    what: ClassVar[str] = "weights of an adapter"

    def __init__(self, initial: Sequence[Mapping[str, Tensor]], device: torch.device | str = "cpu") -> None:
        """Stack the members' values."""
        super().__init__()
        self.num_members = len(initial)
        self._names = list(initial[0])
        for name in self._names:
            stack = torch.stack([values[name] for values in initial]).to(device)
            self.register_parameter(_attribute(name), nn.Parameter(stack))
        self._views = [
            {name: nn.Parameter(self.stack(name).data[k]) for name in self._names} for k in range(self.num_members)
        ]

    @property
    def device(self) -> torch.device:
        """Where the stacks live."""
        return self.stack(self._names[0]).device

    @property
    def member_size(self) -> int:
        """Numbers that one member trains."""
        return sum(view.numel() for view in self._views[0].values())

    def stack(self, name: str) -> nn.Parameter:
        """Return all members' values of one parameter, `[K, ...]`."""
        return self.get_parameter(_attribute(name))

    def member_parameters(self, member: int) -> dict[str, nn.Parameter]:
        """Return one member's parameters by name: views that share the stacks' storage.

        The same objects on every call, so that an optimiser of a library can hold them.
        """
        return self._views[member]

    def gradients(self) -> dict[str, Tensor]:
        """Return the stacks' gradients `[K, ...]` by name; a stack that took no part in the pass has none."""
        found = {name: self.stack(name).grad for name in self._names}
        return {name: grad for name, grad in found.items() if grad is not None}

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return a CPU copy of one member's parameters."""
        return {name: view.detach().clone().cpu() for name, view in self._views[member].items()}

    @torch.no_grad()
    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Set one member's parameters from a state as `member_state` returns it.

        Raises:
            DataError: names, types or shapes differ.
        """
        check_same(state, self._views[member], self.what)
        for name, view in self._views[member].items():
            view.copy_(state[name])


def _attribute(name: str) -> str:
    """Return a module's attribute for a parameter's name: `up.weight` -> `up_weight`."""
    return name.replace(".", "_")
