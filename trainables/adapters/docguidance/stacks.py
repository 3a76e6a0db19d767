"""The guided memory alone (`GuidedMemory`) and K of them in one forward pass (`GuidedStacks`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.adapters.stacks import ParameterStacks

ACT: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class GuidedMemory(nn.Module):
    """One memory: `act(L(down(act(up(x)) * g)))` with the gate `g = act(W key)`, to be added to the residual stream.

    As in arXiv 2406.15996; one activation in all three places. All maps start orthogonal with gain sqrt(2) and zero
    bias (ours, as the notes' memory); W has no bias, so that the zero key opens nothing. Float32.

    Args:
        model_dim: width of the residual stream.
        memory_dim: entries.
        key_dim: numbers of a key.
        activation: of `ACT`.
        seed: of the initial values; None leaves them unset, for a state to be loaded.
    """

    def __init__(self, model_dim: int, memory_dim: int, key_dim: int, activation: str, seed: int | None) -> None:
        """Draw the initial values; the global random state is left alone."""
        super().__init__()
        self.up = nn.Linear(model_dim, memory_dim, device="meta").to_empty(device="cpu")
        self.down = nn.Linear(memory_dim, model_dim, device="meta").to_empty(device="cpu")
        self.out = nn.Linear(model_dim, model_dim, device="meta").to_empty(device="cpu")
        self.key = nn.Linear(key_dim, memory_dim, bias=False, device="meta").to_empty(device="cpu")
        self._act = ACT[activation]
        if seed is None:
            return
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.orthogonal_(parameter, gain=math.sqrt(2.0), generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, key: Tensor) -> Tensor:
        """Return what is to be added to `hidden`, `[..., model_dim]`, under a key `[key_dim]`."""
        inner = self._act(self.up(hidden.float())) * self._act(self.key(key))
        added: Tensor = self._act(self.out(self.down(inner)))
        return added.to(hidden.dtype)


class GuidedStacks(ParameterStacks):
    """K guided memories of one shape (M = memory_dim, D = model_dim), by batched matrix products."""

    what = "weights of a guided memory"

    def __init__(
        self,
        model_dim: int,
        memory_dim: int,
        key_dim: int,
        activation: str,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        """Draw the members' initial values, each as `GuidedMemory` of its seed."""
        self.sizes = (model_dim, memory_dim, key_dim, activation)
        drawn = {seed: GuidedMemory(*self.sizes, seed).state_dict() for seed in dict.fromkeys(seeds)}
        super().__init__([drawn[seed] for seed in seeds], device)
        self._act = ACT[activation]

    def gates(self, keys: Tensor, who: slice = slice(None)) -> Tensor:
        """Return how far keys `[n, key_dim]` open each entry, `[members, n, M]`."""
        return self._act(keys @ self.stack("key.weight")[who].mT)

    def activations(self, hidden: Tensor, who: slice = slice(None)) -> Tensor:
        """Return the entries' activations before the gate, `[members, n, M]`, of states `[1, n, D]`."""
        weight, bias = self.stack("up.weight")[who], self.stack("up.bias")[who]
        rows = hidden.float().expand(len(weight), -1, -1)
        return self._act(torch.baddbmm(bias.unsqueeze(1), rows, weight.mT))

    def added(self, inner: Tensor, who: slice = slice(None)) -> Tensor:
        """Return what gated activations `[members, n, M]` add to the residual stream, `[members, n, D]`, float32."""
        for name in ("down", "out"):
            weight, bias = self.stack(f"{name}.weight")[who], self.stack(f"{name}.bias")[who]
            inner = torch.baddbmm(bias.unsqueeze(1), inner, weight.mT)
        return self._act(inner)

    def single(self, member: int) -> GuidedMemory:
        """Return one member as a plain `GuidedMemory` of its own storage, on the CPU."""
        memory = GuidedMemory(*self.sizes, seed=None)
        memory.load_state_dict(self.member_state(member))
        return memory
