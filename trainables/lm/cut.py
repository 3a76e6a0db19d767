"""A model of `transformers` with some of its blocks only, loaded by `transformers` itself.

The class is subclassed: after its own `__init__` the blocks that are not wanted are taken away, or replaced by
stand-ins that hand on hidden states computed elsewhere. Everything else stays: the configuration with its lists by
block, the index of every block, masks, rotary embeddings, and how names in weight files are found and renamed. Only
tensors of what is left are read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from trainables.errors import ConfigError, DataError
from trainables.lm.card import ModelCard
from trainables.lm.folder_identity import weight_files
from trainables.lm.weights import model_folder, quiet_transformers

logger = logging.getLogger(__name__)


class Given:
    """What the stand-ins hand on: hidden states, `[rows, seq, model_dim]`."""

    hidden: Tensor | None = None


class _StandIn(nn.Module):
    """Stands for a block that has run already, whatever its input."""

    def __init__(self, block: nn.Module, given: Given, outputs: int) -> None:
        super().__init__()
        # what a model's loop asks its blocks about, such as `attention_type`
        self.__dict__.update({n: v for n, v in vars(block).items() if not n.startswith("_") and n != "training"})
        self._given, self._outputs = given, outputs

    def forward(self, *_: Any, **__: Any) -> Any:
        hidden = self._given.hidden
        return (hidden, *[None] * (self._outputs - 1)) if self._outputs else hidden


class _NotThere(nn.Module):
    """Stands for an embedding or a head that is not needed."""

    def forward(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("this part of the model was not loaded")


def config_of(card: ModelCard) -> Any:
    """Return the model's configuration, as a class of `transformers`.

    Raises:
        ConfigError: a family that this version of `transformers` does not have, or that is no causal language model.
    """
    folder = model_folder(card)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder / 'config.json'}: {first_line(error)}") from None
    causal_class(config, str(folder))
    return config


def causal_class(config: Any, where: str = "model") -> Any:
    """Return the class of a causal language model with this configuration.

    Raises:
        ConfigError: there is none.
    """
    try:
        found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except KeyError:
        raise ConfigError(
            f"{where}: model_type {config.model_type!r} is no causal language model of transformers; choose another"
        ) from None
    return found[0] if isinstance(found, tuple) else found


def find_blocks(model: Any) -> tuple[nn.Module, str, nn.ModuleList]:
    """Return the module that holds a model's blocks, their attribute's name there, and the blocks.

    Raises:
        ConfigError: it has no list of blocks.
    """
    for holder in model.base_model.modules():
        for name, child in holder.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == model.config.num_hidden_layers:
                return holder, name, child
    raise ConfigError(f"model: {type(model).__name__} is not a stack of {model.config.num_hidden_layers} blocks")


def skeleton(card: ModelCard) -> Any:
    """Return a model without numbers, on torch's `meta` device: its modules, their names and shapes.

    Raises:
        ConfigError: a model of another kind.
    """
    config = config_of(card)
    with quiet_transformers(), torch.device("meta"):
        return causal_class(config)(config)


def load_part(
    card: ModelCard,
    dtype: torch.dtype,
    device_map: Mapping[str, Any],
    *,
    attention: str | None = None,
    first: int = 0,
    last: int | None = None,
    head: bool = True,
    outputs: int = 0,
) -> tuple[Any, Given]:
    """Load a model, or some of its blocks; no other tensor is read.

    Args:
        card: the model.
        dtype: of the weights (what the family keeps in float32 stays so).
        device_map: as `from_pretrained` takes it, with what belongs to it.
        attention: implementation; None for the one `transformers` chooses.
        first: blocks below are stand-ins, and the token embedding is left out.
        last: blocks above are left out; None to keep all.
        head: keep the output head.
        outputs: what a block returns: 0 for a tensor, else a tuple of so many.

    Returns:
        The model, frozen, and what its stand-ins hand on.

    Raises:
        ConfigError: a model of another kind.
        DataError: weights that are missing or broken.
    """
    folder, config = model_folder(card), config_of(card)
    given = Given()
    cut = cut_class(config, given, first, last, head, outputs)
    with quiet_transformers(), _as_data_error(str(folder)):
        files = weight_files(folder)
        loose = _loose_tensors(files)
        model, told = cut.from_pretrained(
            None if loose else folder,
            state_dict=loose,
            use_safetensors=None if not files or files[0].name.startswith("model") else False,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            **device_map,
        )
    missing = sorted(told["missing_keys"])
    if missing:
        raise DataError(
            f"{folder}: no tensor {missing[0]!r} in the weight files ({len(missing)} are missing); "
            "they are incomplete, or belong to another model"
        )
    return model.eval().requires_grad_(False), given


def _loose_tensors(files: Sequence[Path]) -> dict[str, Tensor] | None:
    """Return the tensors of shards without an index, which `transformers` does not find, mapped from their files."""
    if len(files) < 2 or files[0].name.endswith(".index.json"):
        return None
    found: dict[str, Tensor] = {}
    for file in files:
        is_safe = file.suffix == ".safetensors"
        found |= load_file(file) if is_safe else torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return found


def try_part(card: ModelCard, dtype: torch.dtype, device_map: Mapping[str, Any], **parts: Any) -> Any:
    """Load some blocks as `load_part` does; None where they cannot be loaded without the others.

    So it is in families that share weights between blocks. (The whole model was loaded before: its files are whole.)
    """
    try:
        return load_part(card, dtype, device_map, **parts)
    except (DataError, AttributeError, KeyError, IndexError, TypeError) as error:
        logger.info("%s: %s cannot be loaded alone (%s)", card.name, parts, first_line(error))
        return None


def cut_class(config: Any, given: Given, first: int, last: int | None, head: bool, outputs: int) -> Any:
    """Return the model's class without the parts that are not wanted; arguments as for `load_part`."""
    plain = causal_class(config)

    class Cut(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            holder, name, blocks = find_blocks(self)
            kept = list(blocks)[: None if last is None else last + 1]
            for index in range(min(first, len(kept))):
                kept[index] = _StandIn(kept[index], given, outputs)
            place = next(path for path, module in self.named_modules() if module is holder)
            self.name_of_blocks = f"{place}.{name}"
            setattr(holder, name, nn.ModuleList(kept))
            if self.config.tie_word_embeddings:
                return  # the head is the embedding: either keeps both
            if first > 0:
                self.set_input_embeddings(_NotThere())
            if not head:
                self.set_output_embeddings(_NotThere())

    if getattr(config, "attn_logit_softcapping", None):
        Cut._supports_sdpa = False  # which leaves the cap out: transformers says so itself from 5.21 on
    for attribute in ("__name__", "__qualname__", "__module__"):
        setattr(Cut, attribute, getattr(plain, attribute))
    return Cut


def attention_can_be_told(card: ModelCard) -> bool:
    """Say whether a family's attention is one of the replaceable ones, and of kinds that `attention` knows."""
    config = config_of(card)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    told: bool = getattr(causal_class(config), "_supports_attention_backend", False)
    return told and kinds <= {"full_attention", "sliding_attention"}


def windows_told(config: Any, seen: Mapping[int, int | None], blocks: Iterable[int]) -> bool:
    """Say whether attention was told the sliding windows that the configuration states for some blocks.

    Args:
        config: of the model.
        seen: from `attention.windows_seen`.
        blocks: that ran.
    """
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if not window or not getattr(config, "use_sliding_window", True):
        return True
    sliding = [block for block in blocks if kinds is None or kinds[block] == "sliding_attention"]
    return all(seen.get(block) is not None for block in sliding)


class _as_data_error:
    """Turns what `transformers` and what reads files raise about weights into one line; memory's errors pass."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        about_files = isinstance(error, (OSError, SafetensorError, UnpicklingError, EOFError, KeyError))
        if about_files or (type(error) is RuntimeError and re.search(_ABOUT_WEIGHTS, str(error))):
            raise DataError(f"{self._folder}: its weights cannot be loaded ({first_line(error)})") from None


_ABOUT_WEIGHTS = r"(?i)size mismatch|ignore_mismatched_sizes|PytorchStreamReader|archive|Conversion|state_dict|invalid"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
