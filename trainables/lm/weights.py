"""Where a model's files lie, and how single tensors are read from them.

Only what is asked for is read: a trial at three quarters of the depth takes a quarter of the blocks, and the
head.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils import logging as transformers_logging

from trainables.data.fingerprint import fingerprint_files
from trainables.errors import DataError
from trainables.lm.card import ModelCard
from trainables.lm.download import choose_weights, download_model


@lru_cache(maxsize=64)
def model_folder(card: ModelCard) -> Path:
    """Return the folder with a model's configuration, tokenizer and weights; download or make it if need be.

    Raises:
        ConfigError: the Hub does not have it, or does not give it to us.
        DataError: it holds no weights that can be read.
    """
    if card.is_sample:
        from trainables.lm.sample.models import ensure_sample_model

        return Path(ensure_sample_model(card.name))
    return download_model(card) if card.is_hub else Path(card.source)


@lru_cache(maxsize=64)
def tokenizer_folder(card: ModelCard) -> Path:
    """Return the folder with the model's configuration and tokenizer; of a hub model, without its weights.

    Raises:
        ConfigError: the Hub does not have it, or does not give it to us.
    """
    return download_model(card, with_weights=False) if card.is_hub else model_folder(card)


@lru_cache(maxsize=64)
def model_fingerprint(card: ModelCard) -> str:
    """Return what identifies the model's weights, fit for a file name.

    A folder's key is made of its content already. A branch of the hub moves, so the commit is added; a sample
    model is trained on this machine, so its weights are.
    """
    key = card.key
    if card.is_hub:
        key = f"{card.source}@{model_folder(card).name}"
    elif card.is_sample:
        key = f"{key}-{fingerprint_files(sorted(model_folder(card).glob('*.safetensors')))[:16]}"
    return re.sub(r"[^\w.@-]+", "--", key)


class WeightFiles:
    """The tensors of a model folder by name: safetensors or PyTorch files, one or sharded."""

    def __init__(self, folder: Path) -> None:
        """Find out which tensor is in which file.

        Args:
            folder: as `save_pretrained` writes it.

        Raises:
            DataError: no weights, or an index or a file that cannot be read.
        """
        self._folder = folder
        self._file_of = self._find()

    def _find(self) -> dict[str, Path]:
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        chosen = choose_weights(names, lambda name: (self._folder / name).read_text("utf-8"), str(self._folder))
        if chosen[0].endswith(".json"):
            shards = json.loads((self._folder / chosen[0]).read_text(encoding="utf-8"))["weight_map"]
            return {name: self._folder / file for name, file in shards.items()}
        return {name: self._folder / file for file in chosen for name in _open(self._folder / file).names()}

    def __contains__(self, name: str) -> bool:
        """Whether a tensor of this name is in the files."""
        return name in self._file_of

    def read(self, sources: Mapping[str, str], dtype: torch.dtype, device: torch.device | str) -> dict[str, Tensor]:
        """Read the tensors asked for, and no other.

        On a CPU, tensors that have the dtype already are views of the mapped file: all processes of a node
        share them.

        Args:
            sources: new name to name in the files.
            dtype: of the tensors returned.
            device: of the tensors returned.

        Returns:
            The tensors by new name.

        Raises:
            DataError: a tensor or a file that is missing or broken.
        """
        by_file: dict[Path, list[str]] = defaultdict(list)
        for name, source in sources.items():
            if source not in self:
                raise DataError(f"{self._folder}: no tensor {source!r}; the weight files are incomplete")
            by_file[self._file_of[source]].append(name)
        found: dict[str, Tensor] = {}
        for file, names in by_file.items():
            tensors = _open(file)
            for name in names:
                found[name] = tensors.get(sources[name]).to(device=device, dtype=dtype)
        return found


class _SafeTensors:
    """The tensors of a safetensors file, mapped into memory."""

    def __init__(self, file: Path) -> None:
        self._file: Any = safe_open(str(file), framework="pt")

    def names(self) -> list[str]:
        return list(self._file.keys())

    def get(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


class _TorchTensors:
    """The tensors of a PyTorch file, mapped into memory."""

    def __init__(self, file: Path) -> None:
        self._tensors: dict[str, Tensor] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)

    def names(self) -> list[str]:
        return list(self._tensors)

    def get(self, name: str) -> Tensor:
        return self._tensors[name]


def _open(file: Path) -> _SafeTensors | _TorchTensors:
    try:
        return _SafeTensors(file) if file.suffix == ".safetensors" else _TorchTensors(file)
    except (OSError, SafetensorError, RuntimeError, UnpicklingError) as error:
        raise DataError(f"{file}: cannot be read as model weights ({error})") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence reports of unused tensors, which are meant to be unused here, and progress bars."""
    verbosity = transformers_logging.get_verbosity()
    progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()
