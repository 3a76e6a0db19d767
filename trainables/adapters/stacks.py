"""Parameters of K members side by side: one stack `[K, ...]` for each name, so that one forward pass serves all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from trainables.adapters.shapes import check_same


class ParameterStacks(nn.Module):
    """What the members of a pack train, stacked.

    Members need not be of one shape: each has the beginning of its place, and zeros for the rest of it and for
    parameters that it has not got. Whatever acts with the stacks must leave zeros without effect; then they get no
    gradient, and AdamW, weight decay and clipping leave them as they are. What goes out and comes in by `member_state`
    and `load_member_state` has the member's own shapes: it does not show in which company a member was.

    Args:
        initial: each member's parameters by name; those of one name have equal types and as many dimensions. Members
            of one seed may share tensors; every stack has storage of its own.
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
        self._names = list(dict.fromkeys(name for values in initial for name in values))
        self._shapes = [{name: value.shape for name, value in values.items()} for values in initial]
        for name in self._names:
            stack = _stacked([values.get(name) for values in initial]).to(device)
            self.register_parameter(_attribute(name), nn.Parameter(stack))
        self._views = [
            {name: nn.Parameter(self.stack(name).data[k]) for name in self._names} for k in range(self.num_members)
        ]

    @property
    def device(self) -> torch.device:
        """Where the stacks live."""
        return self.stack(self._names[0]).device

    def member_size(self, member: int) -> int:
        """Return how many numbers one member trains."""
        return sum(shape.numel() for shape in self._shapes[member].values())

    def stack(self, name: str) -> nn.Parameter:
        """Return all members' values of one parameter, `[K, ...]`."""
        return self.get_parameter(_attribute(name))

    def member_parameters(self, member: int) -> dict[str, nn.Parameter]:
        """Return one member's place in each stack by name: views that share the stacks' storage.

        The same objects on every call, so that an optimiser of a library can hold them.
        """
        return self._views[member]

    def gradients(self) -> dict[str, Tensor]:
        """Return the stacks' gradients `[K, ...]` by name; a stack that took no part in the pass has none."""
        found = {name: self.stack(name).grad for name in self._names}
        return {name: grad for name, grad in found.items() if grad is not None}

    def own(self, member: int, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return of tensors that fill a member's places what belongs to it: views of its own names and shapes."""
        return {
            name: values[name][tuple(map(slice, shape))]
            for name, shape in self._shapes[member].items()
            if name in values
        }

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Return a CPU copy of one member's parameters."""
        own = self.own(member, self._views[member])
        return {name: view.detach().clone(memory_format=torch.contiguous_format).cpu() for name, view in own.items()}

    @torch.no_grad()
    def load_member_state(self, member: int, state: Mapping[str, Tensor]) -> None:
        """Set one member's parameters from a state as `member_state` returns it.

        Raises:
            DataError: names, types or shapes differ.
        """
        own = self.own(member, self._views[member])
        check_same(state, own, self.what)
        for name, view in own.items():
            view.copy_(state[name])


def _stacked(values: Sequence[Tensor | None]) -> Tensor:
    """Return the members' values of one parameter, `[K, ...]`, zeros where a member has less or none."""
    given = [value for value in values if value is not None]
    if len(given) == len(values) and len({value.shape for value in given}) == 1:
        return torch.stack(given)
    size = [max(sizes) for sizes in zip(*(value.shape for value in given), strict=True)]
    stack = given[0].new_zeros(len(values), *size)
    for place, value in zip(stack, values, strict=True):
        if value is not None:
            place[tuple(map(slice, value.shape))] = value
    return stack


def _attribute(name: str) -> str:
    """Return a module's attribute for a parameter's name: `up.weight` -> `up_weight`."""
    return name.replace(".", "_")
