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
BROKEN_SEAL = "its checksum is another: it is not what was written"
"""What is wrong with it, in words."""


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
        raise BrokenSeal(BROKEN_SEAL)
    return rest


def read_plain_json(content: bytes) -> Any:
    """Return the value of a JSON text of which a reader may rely on: finite numbers, no endless nesting.

    Raises:
        ValueError: it is not JSON, or holds NaN, an infinity or text that is no Unicode.
    """
    return _read(content)[0]


def read_sealed_json(content: bytes) -> tuple[Any, str]:
    """Return the value of a JSON text, as `read_plain_json` does, and the checksum that its seal should be.

    Both in one pass over a value: of records a command reads thousands.

    Raises:
        ValueError: as `read_plain_json`.
    """
    value, spelt = _read(content, without=SEAL)
    return value, content_sum(spelt.encode())


def _read(content: bytes, without: str | None = None) -> tuple[Any, str]:
    """Return a JSON text's value, and its one spelling, `without` left out of an object."""
    try:
        value = json.loads(content, parse_constant=_refuse)
        rest = {name: item for name, item in value.items() if name != without} if isinstance(value, dict) else value
        spelt = _spelt(rest)  # refuses numbers that are too large for one
        if "\\ud" in spelt:  # half of a pair, unless the other half follows
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value, spelt


def _json_sum(value: Any) -> str:
    return content_sum(_spelt(value).encode())


def _spelt(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
