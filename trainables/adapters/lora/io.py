"""A trained LoRA as the two files that peft reads: `PeftModel.from_pretrained(model, folder)`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.errors import DataError

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX = "base_model.model."


def peft_config(names: list[str], rank: int, lora_alpha: float, base: str) -> LoraConfig:
    """Return peft's description of a LoRA on the linear maps named."""
    return LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=lora_alpha, target_modules=names, base_model_name_or_path=base,
        inference_mode=True,
    )  # fmt: skip


def lora_files(state: Mapping[str, Tensor], config: LoraConfig) -> dict[str, bytes]:
    """Return the files, by name.

    Args:
        state: A and B by name, as `LoraStacks` has them.
        config: of peft.
    """
    tensors = {_PREFIX + name: value.contiguous() for name, value in state.items()}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()}
    return {WEIGHTS: save(tensors, {"format": "pt"}), CONFIG: json.dumps(plain, indent=2, sort_keys=True).encode()}


def read_lora(files: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Return A and B by name, from the files.

    Raises:
        DataError: they are broken, or not those of a LoRA.
    """
    try:
        tensors = load(files[WEIGHTS])
    except KeyError:
        raise DataError(f"{WEIGHTS}: missing; train the trial again") from None
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise DataError(f"{WEIGHTS}: not readable ({error}); train the trial again") from None
    return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}


@contextmanager
def with_lora(model: Any, state: Mapping[str, Tensor], config: LoraConfig) -> Iterator[None]:
    """Let peft put a LoRA into a model for the time of a `with` block; afterwards the model is as it was.

    Args:
        model: a causal language model of `transformers`.
        state: A and B by name.
        config: of peft.
    """
    device = model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # it draws values, which are not used
        peft_model = LoraModel(model, config, "default")
    try:
        modules = dict(model.named_modules())
        for name, value in state.items():
            target, _, letter = name.removesuffix(".weight").rpartition(".")
            linear = getattr(modules[target], letter)["default"]
            linear.weight = torch.nn.Parameter(value.to(modules[target].base_layer.weight.device), requires_grad=False)
        yield
    finally:
        peft_model.unload()
