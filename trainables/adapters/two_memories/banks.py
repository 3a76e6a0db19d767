"""Two banks of memories that are trained as one, each on its own kind of text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.stacks import ParameterStacks
from trainables.adapters.two_memories.plan import KINDS, Kind

SECOND_SEED = 1_000_003
"""Added to the seed for the templates' memory, so that the two start differently (ours)."""


class TwoBanks(ParameterStacks):
    """K members, each with a memory for documents and one for templates; names begin with the kind.

    Args:
        model_dim: width of the residual stream.
        memory_dim: entries of each memory.
        norm_and_gate: whether LayerNorm and gate are there.
        seeds: one for each member.
        device: where they live.
        learning: the memories that are trained; the others keep their values.
        precision: how the products of all are computed.
    """

    what = "weights of two memories"

    def __init__(
        self,
        model_dim: int,
        memory_dim: int,
        norm_and_gate: bool,
        seeds: Sequence[int],
        device: torch.device,
        learning: Sequence[Kind] = KINDS,
        precision: str = "float32",
    ) -> None:
        """Draw both memories of every member."""
        nn.Module.__init__(self)
        self.num_members, self._learning = len(seeds), tuple(learning)
        shifts = (0, SECOND_SEED)
        self.banks = nn.ModuleDict(
            {
                kind: MemoryBank(
                    model_dim, memory_dim, norm_and_gate, [seed + shift for seed in seeds], device, precision
                )
                for kind, shift in zip(KINDS, shifts, strict=True)
            }
        )
        self._views = [
            {f"{kind}.{name}": view for kind in KINDS for name, view in self.bank(kind).member_parameters(k).items()}
            for k in range(self.num_members)
        ]
        self._shapes = [{name: view.shape for name, view in views.items()} for views in self._views]

    @property
    def device(self) -> torch.device:
        """Where the memories live."""
        return self.bank("document").device

    def bank(self, kind: Kind) -> MemoryBank:
        """Return the memories for a kind of text."""
        found = self.banks[kind]
        assert isinstance(found, MemoryBank)
        return found

    def member_size(self, member: int) -> int:
        """Return how many numbers one member trains."""
        return sum(view.numel() for view in self.member_parameters(member).values())

    def member_parameters(self, member: int) -> dict[str, nn.Parameter]:
        """Return what of one member is trained, by name; its state has both memories."""
        views = self._views[member]
        return {name: view for name, view in views.items() if name.partition(".")[0] in self._learning}

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of what is trained; of a memory that met no text of its kind they are zero."""
        trained = {
            f"{kind}.{name}": self.bank(kind).stack(name)
            for kind in self._learning
            for name in self.bank(kind).member_parameters(0)
        }
        return {name: torch.zeros_like(stack) if stack.grad is None else stack.grad for name, stack in trained.items()}

    def added(self, kind: Kind, hidden: Tensor, who: slice, learns: bool) -> Tensor:
        """Return what one memory adds to states `[1 or members, n, model_dim]`.

        Args:
            kind: which memory.
            hidden: states.
            who: which members.
            learns: whether its parameters get gradients; its input gets them anyway.
        """
        bank = self.bank(kind)
        if learns:
            found: Tensor = bank(hidden, None, who)[0]
            return found
        fixed = {name: stack.detach() for name, stack in bank.named_parameters()}
        unlearnt: Tensor = torch.func.functional_call(bank, fixed, (hidden, None, who))[0]
        return unlearnt
