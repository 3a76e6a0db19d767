"""K LoRAs of one shape: their A and B stacked, added to the outputs of a model's linear maps in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainables.adapters.lora.targets import is_target
from trainables.adapters.stacks import ParameterStacks
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.cut import find_blocks, skeleton
from trainables.lm.download import folder_here


def target_maps(model: Any, layer: int, targets: Sequence[str]) -> dict[str, nn.Module]:
    """Return the linear maps above a block that are meant, by their names in the model.

    Args:
        model: a causal language model of `transformers`, whole or without the blocks below.
        layer: the block.
        targets: as `is_target` takes them.

    Raises:
        ConfigError: there is none.
    """
    blocks = find_blocks(model)[2]
    names = {module: name for name, module in model.named_modules()}
    found: dict[str, tuple[str, nn.Module]] = {}
    others: dict[str, tuple[str, nn.Module]] = {}
    for block in list(blocks)[layer + 1 :]:
        for path, module in block.named_modules():
            if isinstance(module, (nn.Linear, Conv1D)):
                (found if is_target(path, targets) else others)[names[module]] = (path, module)
    if not found:
        known = ", ".join(dict.fromkeys(path.rpartition(".")[2] for path, _ in others.values()))
        raise ConfigError(
            f"lora_targets={'+'.join(targets)}: no linear map of {type(model).__name__} is called so; its blocks have "
            f"{known or 'none'}; or write all, attention or mlp"
        )
    return {name: module for name, (_, module) in found.items()}


@lru_cache(maxsize=64)
def check_targets(card: ModelCard, layer: int, targets: tuple[str, ...]) -> None:
    """Do the same for a model that is not loaded; a model of the hub that is not here yet is passed over.

    Raises:
        ConfigError: as `target_maps`.
    """
    if not card.is_hub or folder_here(card) is not None:
        target_maps(skeleton(card), layer, targets)


def sizes_of(module: Any) -> tuple[int, int]:
    """Return the sizes of what a linear map takes and gives."""
    if isinstance(module, Conv1D):
        inputs, outputs = module.weight.shape
        return int(inputs), int(outputs)
    return int(module.in_features), int(module.out_features)


def draw(sizes: Mapping[str, tuple[int, int]], rank: int, seed: int) -> dict[str, Tensor]:
    """Draw one LoRA's initial values as peft does: A Kaiming uniform, B zero; the global random state is left alone."""
    generator = torch.Generator().manual_seed(seed)
    drawn: dict[str, Tensor] = {}
    for name, (inputs, outputs) in sizes.items():
        first = torch.empty(rank, inputs)
        nn.init.kaiming_uniform_(first, a=math.sqrt(5), generator=generator)
        drawn[f"{name}.lora_A.weight"], drawn[f"{name}.lora_B.weight"] = first, torch.zeros(outputs, rank)
    return drawn


class LoraStacks(ParameterStacks):
    """The members' A `[K, rank, inputs]` and B `[K, outputs, rank]` of every map, float32.

    Args:
        sizes: of the maps, by name.
        rank: of all members.
        scales: each member's `lora_alpha / rank`.
        seeds: each member's.
        device: where they live.
    """

    what = "weights of a lora"

    def __init__(
        self,
        sizes: Mapping[str, tuple[int, int]],
        rank: int,
        scales: Sequence[float],
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        """Draw the members' initial values."""
        drawn = {seed: draw(sizes, rank, seed) for seed in dict.fromkeys(seeds)}
        super().__init__([drawn[seed] for seed in seeds], device)
        self._scales = torch.tensor(scales, device=device)[:, None, None]

    @contextmanager
    def acting(self, maps: Mapping[str, nn.Module], who: slice) -> Iterator[None]:
        """Add some members' updates to what the maps give, within a `with` block.

        What goes through the maps then is the members', one after the other: `[members * n, ..., inputs]`.
        """

        def added_to(name: str) -> Any:
            first, second = (self.stack(f"{name}.lora_{letter}.weight")[who] for letter in "AB")
            scales = self._scales[who]

            def add(module: nn.Module, args: Any, output: Tensor) -> Tensor:
                inputs = args[0].float().reshape(len(first), -1, args[0].shape[-1])
                update = scales * torch.bmm(torch.bmm(inputs, first.mT), second.mT)
                return (output + update.reshape(output.shape)).to(output.dtype)

            return add

        with ExitStack() as hooks:
            for name, module in maps.items():
                handle = module.register_forward_hook(added_to(name))
                hooks.callback(handle.remove)
            yield
