"""One trained memory as a file: safetensors, with the place in the model it was trained for."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.masked import ConfinedMemory
from trainables.adapters.memory.stored_sets import StoredSets
from trainables.adapters.shapes import check_same
from trainables.errors import DataError
from trainables.node.checksums import tensors_sum

FORMAT = "memory-sweep/2"
FIRST_FORMAT = "memory-sweep/1"
"""Without a checksum."""

logger = logging.getLogger(__name__)


class SavedMemory(NamedTuple):
    """A memory read from a file.

    Attributes:
        memory: The module, on the CPU; a `ConfinedMemory` where a document was named.
        layer: Index of the block at whose output it is added.
        model: Key of the language model it was trained with (`ModelCard.key`).
    """

    memory: Memory | ConfinedMemory
    layer: int
    model: str


def save_memory(
    path: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    *,
    layer: int,
    model: str,
    sets: StoredSets | None = None,
    precision: str = "float32",
) -> None:
    """Write one memory's state (`MemoryBank.member_state` or `Memory.state_dict`), atomically.

    The metadata hold layer, model, memory_dim, model_dim, norm_and_gate and a checksum over all, as text.

    Args:
        path: The file to write.
        state: Parameter name of `Memory` -> tensor.
        layer: Index of the block at whose output the memory is added.
        model: Key of the language model.
        sets: What a hard memory's documents may use.
        precision: How its products are computed (`Memory.precision`); stated where it is another than float32.
    """
    temporary = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(memory_bytes(state, layer=layer, model=model, sets=sets, precision=precision))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def memory_bytes(
    state: Mapping[str, Tensor],
    *,
    layer: int,
    model: str,
    sets: StoredSets | None = None,
    precision: str = "float32",
) -> bytes:
    """Return the content of the file that `save_memory` writes."""
    memory_dim, model_dim = state["up.weight"].shape
    texts = {
        "format": FORMAT,
        "layer": str(layer),
        "model": model,
        "memory_dim": str(memory_dim),
        "model_dim": str(model_dim),
        "norm_and_gate": str("gate" in state),
    }
    if precision != "float32":
        texts["precision"] = precision
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    if sets is not None:
        tensors, texts = tensors | sets.tensors(), texts | sets.texts()
    content: bytes = save(tensors, {**texts, "blake2b": tensors_sum(tensors, texts)})
    return content


def load_memory(path: str | os.PathLike[str], document: str | int | None = None) -> SavedMemory:
    """Read a file that `save_memory` wrote.

    Args:
        path: The file.
        document: Of a hard memory, the document that texts are about: its title, or its rank among those memorised,
            from 0. The memory then adds what that document's entries give, as in training. Without it every entry is
            used, as for a text about none of the documents. Other memories are the same for every document.

    Raises:
        DataError: The file is missing, broken, or not a memory; or it is a hard memory that knows of no such document,
            or, stored by an earlier version, of none at all.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: not readable as a memory file ({error}); train the trial again") from error
    state, texts = _parts(content, str(path))
    saved, sets = _saved(state, texts, str(path)), _sets(state, texts, str(path))
    if sets is None and _was_hard(Path(path)):
        lacks = f"{path}: a hard memory of an earlier version, whose file does not say which entries a document may use"
        if document is not None:
            raise DataError(f"{lacks}; train the trial again")
        logger.warning("%s: every entry is used, as for no text in training", lacks)
    if sets is None or not isinstance(saved.memory, Memory):
        return saved
    if document is None:
        logger.warning("%s: a hard memory; with document=TITLE it is confined to that document's entries", path)
        return saved
    return saved._replace(memory=sets.about(saved.memory, document, str(path)))


def _was_hard(path: Path) -> bool:
    """Return whether the record beside a file, or above its folder `epochs/N`, says it was trained in hard mode."""
    for folder in path.absolute().parents[:3]:
        try:
            stated = json.loads((folder / "record.json").read_text())["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # not beside a record, or not one that can be read: nothing is known of it
        return (stated.get("mode"), stated.get("allocation", "none") != "none") == ("hard", True)
    return False


def read_memory(content: bytes, where: str) -> SavedMemory:
    """Read what `memory_bytes` gave, every entry in use.

    Args:
        content: Of the file.
        where: Its name, for messages.

    Raises:
        DataError: The content is broken, not what was written, or not a memory.
    """
    return _saved(*_parts(content, where), where)


def _parts(content: bytes, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata."""
    try:
        state = load(content)
        header_bytes = int.from_bytes(content[:8], "little")
        texts: dict[str, str] = json.loads(content[8 : 8 + header_bytes]).get("__metadata__", {})
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: not readable as a memory file ({error}); train the trial again") from error
    if texts.get("format") not in (FORMAT, FIRST_FORMAT):
        found = texts.get("format", "none")
        raise DataError(f"{where}: not a memory file: its format is {found}, expected {FORMAT}")
    checksum = texts.pop("blake2b", None)
    if (texts["format"], checksum) != (FIRST_FORMAT, None) and checksum != tensors_sum(state, texts):
        raise DataError(f"{where}: not what was written (its checksum is another); train the trial again")
    return state, texts


def _saved(state: Mapping[str, Tensor], texts: Mapping[str, str], where: str) -> SavedMemory:
    try:
        return _memory(StoredSets.without(state), texts)
    except (KeyError, ValueError, DataError) as error:
        raise DataError(f"{where}: not a whole memory ({error}); train the trial again") from error


def _sets(state: Mapping[str, Tensor], texts: Mapping[str, str], where: str) -> StoredSets | None:
    try:
        return StoredSets.of_file(state, texts)
    except (KeyError, ValueError) as error:
        raise DataError(f"{where}: not a whole hard memory ({error}); train the trial again") from error


def _memory(state: Mapping[str, Tensor], texts: Mapping[str, str]) -> SavedMemory:
    dims = int(texts["memory_dim"]), int(texts["model_dim"])
    if tuple(state["up.weight"].shape) != dims:
        raise ValueError(f"up.weight is {tuple(state['up.weight'].shape)}, not {dims}")
    memory = Memory(dims[1], dims[0], texts["norm_and_gate"] == "True", None, texts.get("precision", "float32"))
    check_same(state, memory.state_dict(), "its weights")
    memory.load_state_dict(dict(state))
    return SavedMemory(memory, int(texts["layer"]), texts["model"])
