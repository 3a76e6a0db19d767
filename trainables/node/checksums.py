"""Checksums of what is kept: of files, of plain JSON values, of tensors. A flipped bit is found when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SEAL = "checksum"
"""Key under which a JSON object keeps the checksum of the rest of it."""
_DIGEST_BYTES = 16


class BrokenSeal(ValueError):
    """A JSON value is not what was written."""


def content_sum(content: bytes) -> str:
    """Return the checksum of a file's bytes: BLAKE2b, 32 hex digits."""
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def tensors_sum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Return one checksum of named tensors (type, shape and values) and of named texts, whatever their order."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        head = f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode()
        digest.update(len(head).to_bytes(8, "big") + head)
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(_bytes_type()).numpy().data)
    digest.update(json.dumps(dict(texts), sort_keys=True).encode())
    return digest.hexdigest()


def _bytes_type() -> Any:
    import torch

    return torch.uint8


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its checksum in it."""
    rest = {name: item for name, item in value.items() if name != SEAL}
    return {**rest, SEAL: _json_sum(rest)}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was sealed; an object without a checksum, as earlier versions wrote them, as it is.

    Raises:
        BrokenSeal: the checksum is another.
    """
    rest = {name: item for name, item in value.items() if name != SEAL}
    if SEAL in value and value[SEAL] != _json_sum(rest):
        raise BrokenSeal("its checksum is another: it is not what was written")
    return rest


def read_plain_json(content: bytes) -> Any:
    """Return the value of a JSON text of which a reader may rely on: finite numbers, no endless nesting.

    Raises:
        ValueError: it is not JSON, or holds NaN, an infinity or text that is no Unicode.
    """
    try:
        value = json.loads(content, parse_constant=_refuse, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _json_sum(value: Any) -> str:
    return content_sum(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0:
        raise ValueError(f"{text} is too large a number")
    return number
