"""What identifies the model in a local folder: all that decides its numbers, and nothing else.

That is: every byte of `config.json` and of the weights that would be loaded, all that turns text into token ids, and
the token ids that end an answer. The chat template is not part of it, nor what a folder may hold besides (optimiser
states, a second copy of the weights, a readme).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.data.fingerprint import fingerprint_files
from trainables.errors import DataError

SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_TOKENIZER = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model")
_SHARD = re.compile(r"(?:model|pytorch_model)-\d+-of-(\d+)\.(?:safetensors|bin)")
_BESIDES = ("merges.txt", "special_tokens_map.json", "added_tokens.json")
_TELLS_NOTHING = frozenset(
    "chat_template name_or_path _name_or_path model_max_length processor_class transformers_version "
    "padding_side truncation_side max_length stride truncation_strategy backend is_local local_files_only "
    "clean_up_tokenization_spaces response_schema".split()
)
"""Entries of `tokenizer_config.json` that change no token id of a text."""


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a folder's weights, those that `transformers` would load, index included.

    Of those that are whole the first kind counts; shards without an index, which it would not find, count where all
    are there. Where nothing is whole, files that an index names and that are missing are left out; an empty list where
    there are no weights.

    Raises:
        DataError: an index that cannot be read.
    """
    incomplete: list[Path] = []
    for single in SINGLE_FILES:
        whole, index = folder / single, folder / f"{single}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            names = shard_names(index)
            found = [index, *(folder / name for name in names if (folder / name).is_file())]
            if len(found) == 1 + len(names):
                return found
            incomplete = incomplete or found
        elif shards := _loose_shards(folder, Path(single).suffix):
            return shards
    return incomplete


def _loose_shards(folder: Path, suffix: str) -> list[Path]:
    """Return the shards of a model that has no index, if their names say that none is missing."""
    found = {path.name: match for path in folder.glob("*model-*") if (match := _SHARD.fullmatch(path.name))}
    shards = sorted(name for name in found if Path(name).suffix == suffix)
    return [folder / name for name in shards] if shards and len(shards) == int(found[shards[0]][1]) else []


def shard_names(index: Path) -> list[str]:
    """Return the names of the files that an index of shards names.

    Raises:
        DataError: not an index.
    """
    return sorted(set(read_index(index).values()))


def read_index(index: Path) -> dict[str, str]:
    """Return the file of every tensor, as an index of shards states it.

    Raises:
        DataError: not an index, or one that names files elsewhere.
    """
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        found = {str(name): str(file) for name, file in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: not an index of weight files ({type(error).__name__}: {error})") from None
    outside = next((file for file in found.values() if Path(file).name != file), None)
    if outside is not None or not found:
        raise DataError(f"{index}: not an index of weight files (names {outside!r})" if outside else f"{index}: empty")
    return found


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that hold a folder's tokenizer; empty where there is none."""
    found = [path for name in _TOKENIZER if (path := folder / name).is_file()]
    return found + [path for name in _BESIDES if found and (path := folder / name).is_file()]


def folder_key(folder: Path, weights: Sequence[Path], tokenizer: Sequence[Path]) -> str:
    """Return the hash, in hex, of all that decides what a model folder computes.

    Raises:
        DataError: a file that cannot be read.
    """
    files = fingerprint_files([folder / "config.json", *weights, *tokenizer])
    settings = {
        name: value
        for name, value in _read_json(folder / "tokenizer_config.json").items()
        if name not in _TELLS_NOTHING
    }
    ends = _read_json(folder / "generation_config.json").get("eos_token_id")
    stated = json.dumps([files, settings, ends], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(stated.encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: not a JSON object")
    return found
