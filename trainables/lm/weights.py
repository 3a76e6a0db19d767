"""Where a model's files lie, and what they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from transformers.utils import logging as transformers_logging

from trainables.data.fingerprint import fingerprint_files
from trainables.lm.card import ModelCard
from trainables.lm.download import download_model


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
