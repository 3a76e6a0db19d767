"""What a model's weight files hold, without reading the weights: names, shapes, and whether the files are whole."""

from __future__ import annotations

import json
import math
import os
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from trainables.errors import DataError
from trainables.lm.config_shape import is_lfs_pointer
from trainables.lm.folder_identity import read_index, weight_files

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_LONGEST_HEADER = 100_000_000


def tensors_of(folder: Path) -> tuple[dict[str, Tensor], dict[str, Path]]:
    """Return every tensor that a model folder's files hold, without its numbers, and the file it is in.

    Returns:
        Placeholders (on the `meta` device) by name, and files by name.

    Raises:
        DataError: a file that is missing, cut short, or no weight file; a tensor that is not where the index says.
    """
    files = weight_files(folder)
    found: dict[str, Tensor] = {}
    places: dict[str, Path] = {}
    indexed: dict[str, str] = {}
    if files and files[0].name.endswith(".index.json"):
        _refuse_pointer(files[0])
        indexed = read_index(files[0])
        for name in sorted(set(indexed.values())):
            if not (folder / name).is_file():
                raise DataError(f"{folder / name}: not there, though {files[0].name} names it; download it again")
        files = files[1:]
    for file in files:
        _refuse_pointer(file)
        held = _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
        found |= held
        places |= dict.fromkeys(held, file)
    for name, told in indexed.items():
        if name not in found or places[name].name != told:
            raise DataError(f"{folder / told}: has no tensor {name!r}, though the index names it; download it again")
    return found, places


def _refuse_pointer(file: Path) -> None:
    if is_lfs_pointer(file):
        raise DataError(f"{file}: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")


def _safetensors(file: Path) -> dict[str, Tensor]:
    size = os.path.getsize(file)
    try:
        with open(file, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise ValueError("no header" if size < 8 or length > _LONGEST_HEADER else "its header is cut short")
            header = json.loads(stream.read(length))
        tensors = {name: _placeholder(name, entry) for name, entry in header.items() if name != "__metadata__"}
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{file}: not a safetensors file ({error}); download it again") from None
    wanted = 8 + length + max(ends, default=0)
    if size < wanted:
        raise DataError(f"{file}: cut short, {size:,} of {wanted:,} bytes; download it again")
    return tensors


def _placeholder(name: str, entry: Any) -> Tensor:
    shape = [int(length) for length in entry["shape"]]
    dtype = _DTYPES.get(entry["dtype"], torch.uint8)
    start, end = entry["data_offsets"]
    if entry["dtype"] in _DTYPES and end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} has {end - start} bytes, its shape {shape} wants another number")
    return torch.empty(shape, dtype=dtype, device="meta")


def _pickled(file: Path) -> dict[str, Tensor]:
    mapped = zipfile.is_zipfile(file)
    try:
        held = torch.load(file, map_location="meta" if mapped else "cpu", mmap=mapped, weights_only=True)
    except UnpicklingError:
        raise DataError(
            f"{file}: refused, it holds other things than tensors, which could run code; take the model from a source "
            "you trust, as safetensors"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise DataError(f"{file}: cut short, or not a file of weights ({told}); download it again") from None
    if not isinstance(held, dict) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise DataError(f"{file}: not a file of weights (no tensors by name); save the model with `save_pretrained`")
    return {str(name): torch.empty_like(tensor, device="meta") for name, tensor in held.items()}
