"""Comparing tensors that come from a file with those that they are to replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from trainables.errors import DataError


def check_same(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors of other names, types or shapes: a copy into place would broadcast and convert without a word.

    Raises:
        DataError: names what differs.
    """
    if given.keys() != expected.keys():
        lacking, more = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
        raise DataError(f"{what}: lacks {', '.join(lacking) or 'nothing'}, has {', '.join(more) or 'nothing'} besides")
    for name, tensor in expected.items():
        other = given[name]
        if (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
            raise DataError(
                f"{what}: {name} is {other.dtype} {tuple(other.shape)}, not {tensor.dtype} {tuple(tensor.shape)}"
            )


def check_moments(given: Mapping[str, Tensor], parameters: Mapping[str, Tensor], moments: Sequence[str]) -> None:
    """Refuse an optimiser's state that is not one of these parameters: `step`, and after a step the moments of each.

    Raises:
        DataError: names what differs.
    """
    step = given.get("step")
    if step is None or step.shape != () or step.is_floating_point() or int(step) < 0:
        raise DataError("state of the optimiser: its step count is none")
    held = {f"{moment}.{name}": parameter for name, parameter in parameters.items() for moment in moments}
    rest = {name: tensor for name, tensor in given.items() if name != "step"}
    check_same(rest, held if int(step) else {}, "state of the optimiser")
