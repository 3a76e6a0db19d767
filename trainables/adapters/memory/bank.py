"""The memory module of note 000, alone (`Memory`) and as K of them in one forward pass (`MemoryBank`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.adapters.memory.plan import PRECISIONS
from trainables.adapters.stacks import ParameterStacks


def product(bias: Tensor, rows: Tensor, weight: Tensor, precision: str) -> Tensor:
    """Return `rows @ weight.mT + bias`, float32.

    In bfloat16 both factors and the product are rounded, in the backward pass too; the sums within a product are
    float32's, and so are the bias, the weights that are trained, and their moments.

    Args:
        bias: `[..., 1, outputs]`, or `[outputs]`.
        rows: `[..., n, inputs]`, float32.
        weight: `[..., outputs, inputs]`, float32.
        precision: of `PRECISIONS`.
    """
    if precision == "bfloat16":
        return (rows.bfloat16() @ weight.bfloat16().mT).float() + bias
    if weight.ndim == 2:
        return F.linear(rows, weight, bias)
    return torch.baddbmm(bias, rows, weight.mT)


class Memory(nn.Module):
    """One memory: `LayerNorm(down(GELU(up(x)))) * gate`, to be added to the residual stream (note 000).

    Both linears start orthogonal with gain sqrt(2) and zero bias (ours; the note names `layer_init` only),
    `up` drawn before `down` from a CPU generator seeded with `seed`: the same values on every device.
    Parameters are float32. The class is the plain reference for `MemoryBank` and the form that is saved.
    """

    def __init__(
        self,
        model_dim: int,
        memory_dim: int,
        norm_and_gate: bool = True,
        seed: int | None = 0,
        precision: str = "float32",
    ) -> None:
        """Draw the initial values; the global random state is left alone.

        Args:
            model_dim: Width of the residual stream.
            memory_dim: Number of entries (hidden units).
            norm_and_gate: Whether LayerNorm and gate are there (note 001 compares both).
            seed: Seed of the initial values; None leaves the linears unset, for a state to be loaded.
            precision: How the products are computed, of `PRECISIONS`; the values are the same.

        Raises:
            ValueError: No such precision.
        """
        super().__init__()
        self.precision = _known(precision)
        self.up = nn.Linear(model_dim, memory_dim, device="meta").to_empty(device="cpu")
        self.down = nn.Linear(memory_dim, model_dim, device="meta").to_empty(device="cpu")
        self.ln = nn.LayerNorm(model_dim) if norm_and_gate else None
        self.gate = nn.Parameter(torch.ones(1)) if norm_and_gate else None
        if seed is None:
            return
        generator = torch.Generator().manual_seed(seed)
        for linear in (self.up, self.down):
            nn.init.orthogonal_(linear.weight, gain=math.sqrt(2.0), generator=generator)
            nn.init.zeros_(linear.bias)

    @property
    def model_dim(self) -> int:
        """Width of the residual stream."""
        return int(self.up.in_features)

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what is to be added to `hidden`.

        Args:
            hidden: `[..., model_dim]`, any float dtype; computed in float32, but for the products' precision.
            mask: Bool, broadcastable to `[..., memory_dim]`; entries where it is False are silenced (hard
                mode).

        Returns:
            `[..., model_dim]` in the dtype of `hidden`.
        """
        activations = F.gelu(product(self.up.bias, hidden.float(), self.up.weight, self.precision))
        if mask is not None:
            activations = torch.where(mask, activations, 0.0)
        out = product(self.down.bias, activations, self.down.weight, self.precision)
        if self.ln is not None and self.gate is not None:
            out = self.ln(out) * self.gate
        return out.to(hidden.dtype)


class MemoryBank(ParameterStacks):
    """K memories as stacked parameters, applied by batched matrix products (idea 5).

    They may differ in size. The entries that a member has not got are zeros: their activation is gelu(0) = 0, so they
    add nothing, leak nothing and get no gradient. Members without LayerNorm and gate go past those of the others.

    Members never mix: every output row, gradient and NaN belongs to one member. Member k starts equal to
    `Memory(..., seed=seeds[k])`. The bank stays on the device it is built on, because the optimiser works on
    views of its storage.

    Attributes (K members, M = memory_dim of the largest, D = model_dim; all float32 parameters):
        up_weight, up_bias: `[K, M, D]`, `[K, M]`.
        down_weight, down_bias: `[K, D, M]`, `[K, D]`.
        ln_weight, ln_bias, gate: `[K, D]`, `[K, D]`, `[K, 1]`; only where a member has them.
    """

    up_weight: nn.Parameter
    up_bias: nn.Parameter
    down_weight: nn.Parameter
    down_bias: nn.Parameter
    ln_weight: nn.Parameter
    ln_bias: nn.Parameter
    gate: nn.Parameter
    what = "weights of a memory"

    def __init__(
        self,
        model_dim: int,
        memory_dim: int | Sequence[int],
        norm_and_gate: bool | Sequence[bool],
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        precision: str = "float32",
    ) -> None:
        """Draw the initial values of every member.

        Args:
            model_dim: Width of the residual stream.
            memory_dim: Number of entries of all members, or of each.
            norm_and_gate: Whether LayerNorm and gate are there, for all members or for each.
            seeds: One seed per member; their number is K.
            device: Where the parameters live.
            precision: How the products of all members are computed, of `PRECISIONS`.

        Raises:
            ValueError: No such precision.
        """
        self.memory_dims = [memory_dim] * len(seeds) if isinstance(memory_dim, int) else list(memory_dim)
        self.norms = [norm_and_gate] * len(seeds) if isinstance(norm_and_gate, bool) else list(norm_and_gate)
        kinds = list(zip(self.memory_dims, self.norms, seeds, strict=True))
        drawn = {kind: Memory(model_dim, *kind).state_dict() for kind in dict.fromkeys(kinds)}
        super().__init__([drawn[kind] for kind in kinds], device)
        self.model_dim, self.memory_dim, self.precision = model_dim, max(self.memory_dims), _known(precision)
        self._normed = torch.tensor(self.norms, device=device)[:, None, None]

    def forward(
        self, hidden: Tensor, mask: Tensor | None = None, members: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Apply every member, or some of them, to their hidden states.

        Args:
            hidden: `[K, ..., D]`, or `[1, ..., D]` when all members see the same; any float dtype.
            mask: Bool, broadcastable to `[K, ..., M]`, True where an entry may be used (hard mode), or None.
            members: Which members; K is then their number.

        Returns:
            What is to be added to the residual stream, `[K, ..., D]` in the dtype of `hidden`; and the
            activations after GELU and before the mask, `[K, ..., M]` float32.
        """
        positions = hidden.shape[1:-1]
        up_bias, up_weight = self.up_bias[members], self.up_weight[members]
        flat = hidden.float().flatten(1, -2).expand(len(up_bias), -1, -1)
        flat_activations = F.gelu(product(up_bias.unsqueeze(1), flat, up_weight, self.precision))
        activations = flat_activations.view(len(up_bias), *positions, self.memory_dim)
        used = flat_activations
        if mask is not None:
            used = torch.where(mask, activations, 0.0).flatten(1, -2)
        out = product(self.down_bias[members].unsqueeze(1), used, self.down_weight[members], self.precision)
        if any(self.norms[members]):
            plain = out
            out = F.layer_norm(out, (self.model_dim,))
            out = out * self.ln_weight[members].unsqueeze(1) + self.ln_bias[members].unsqueeze(1)
            out = out * self.gate[members].unsqueeze(1)
            if not all(self.norms[members]):
                out = torch.where(self._normed[members], out, plain)
        added = out.view(len(up_bias), *positions, self.model_dim).to(hidden.dtype)
        return added, activations

    def single(self, member: int) -> Memory:
        """Return one member as a plain `Memory` of its own storage, on the CPU."""
        memory = Memory(self.model_dim, self.memory_dims[member], self.norms[member], None, self.precision)
        memory.load_state_dict(self.member_state(member))
        return memory


def _known(precision: str) -> str:
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: must be one of {', '.join(PRECISIONS)}")
    return precision
