"""Hidden states on this machine's disk, shared by all trials and processes.

What a trunk computes is written to *shards*: one file holds the rows of many token trees of one (model,
dtype, layer), so that ten thousand short prompts are a few files. A tree is looked up by its digest alone, in
whichever shard it is. Shards are never changed: they appear whole (written under another name, then renamed)
and disappear whole, the least recently used first. Reading maps the file into memory: no copy on a CPU, and a
shard deleted meanwhile stays readable for those who hold it.

    ROOT/<model>/<dtype>/layer_<layer>/<random>.safetensors
        hidden  [tokens, model_dim]   rows of all trees, one after another
        ends    [trees]  int64        where each tree's rows end
        digests [trees, 16]  uint8    whose rows they are
        metadata: checksums (crc32) of the rows, and of the two parts of the index
    ROOT/<model>/<dtype>/nll/<digest of texts>.txt
        the pretrained model's mean NLL over their target tokens
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
import uuid
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.node.cache_dir import cache_dir
from trainables.node.node_lock import node_lock

logger = logging.getLogger(__name__)

ABANDONED_S = 3600.0
"""Age at which an unfinished file belongs to a process that died."""


class _BrokenShard(Exception):
    """The file is not what was written."""


class _Shard:
    """One open file. The index is verified at once, the rows when they are first used."""

    def __init__(self, path: Path, verified: bool = False) -> None:
        self.path = path
        try:
            file: Any = safe_open(str(path), framework="pt")
            self._metadata: dict[str, str] = file.metadata()
            index_crc = self._metadata["index_crc32"]
            self._hidden, ends, digests = (file.get_tensor(name) for name in ("hidden", "ends", "digests"))
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise _BrokenShard(str(error)) from error
        if index_crc != _crc32(ends, digests):
            raise _BrokenShard("the checksum of its index is wrong")
        self._verified = verified
        self._rows = list(zip([0, *ends.tolist()], ends.tolist(), strict=False))
        self.digests = [bytes(row).hex() for row in digests.numpy()]

    def read(self, index: int) -> Tensor:
        """Return the rows of one tree, `[nodes, model_dim]`: a view of the mapped file."""
        if not self._verified:
            if self._metadata.get("hidden_crc32") != _crc32(self._hidden):
                raise _BrokenShard("the checksum of its rows is wrong")
            self._verified = True
        start, end = self._rows[index]
        rows: Tensor = self._hidden[start:end]
        return rows


class HiddenCache:
    """Hidden states by group (a relative folder) and tree digest.

    An object is for one thread; any number of processes may share a root.
    """

    def __init__(self, root: Path | None = None, limit_bytes: int | None = None) -> None:
        """Use, and make if need be, the folder `root`.

        Args:
            root: default `hidden` in the node's cache folder. On a disk of the node rather than a shared one.
            limit_bytes: most bytes kept; default half of what the disk would have free without them.
        """
        self.root = cache_dir() / "hidden" if root is None else root
        self._limit_bytes = limit_bytes
        self._shards: dict[str, dict[str, _Shard]] = {}
        self._places: dict[str, dict[str, tuple[_Shard, int]]] = {}
        self.trouble = ""

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a lock that one process of the node can have; see `trainables.node.node_lock`."""
        with node_lock(self.root / name / ".lock", self.give_up):
            yield

    def give_up(self, error: Exception) -> None:
        """Note that the folder cannot be written; what needs it is computed without being kept."""
        if not self.trouble:
            reason = getattr(error, "strerror", None) or str(error)
            self.trouble = f"{self.root}: cannot be written ({reason}); hidden states are computed and not kept"
            logger.warning("%s", self.trouble)

    def limit_bytes(self) -> int:
        """Return the most bytes that the cache may keep now."""
        return self._limit(sum(size for _, size, _ in self._files()))

    def layers(self, model: str) -> list[int]:
        """Return the blocks of which a model, in one dtype, has hidden states here.

        Args:
            model: relative folder of the model and dtype.
        """
        numbers = (path.name.removeprefix("layer_") for path in (self.root / model).glob("layer_*"))
        return [int(number) for number in numbers if number.isdigit()]

    def missing(self, group: str, digests: Iterable[str]) -> set[str]:
        """Return those of `digests` that are not in the cache."""
        return set(digests) - self._index(group).keys()

    def get(self, group: str, digests: Iterable[str]) -> dict[str, Tensor]:
        """Return what the cache has of `digests`.

        A file that is not what was written is deleted with a warning, and what it held counts as missing.

        Returns:
            `[nodes, model_dim]` by digest, on the CPU, views of mapped files: not to be written to.
        """
        index = self._index(group)
        found: dict[str, Tensor] = {}
        used: dict[Path, _Shard] = {}
        broken: set[Path] = set()
        for digest in digests:
            if digest not in index or index[digest][0].path in broken:
                continue
            shard, row = index[digest]
            try:
                found[digest] = shard.read(row)
                used[shard.path] = shard
            except _BrokenShard as error:
                broken.add(shard.path)
                self._discard(group, shard.path, error)
        for path in used:
            _touch(path)
        return found

    def put(self, group: str, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Write hidden states as one shard, and delete the least recently used shards above the limit.

        Args:
            group: relative folder.
            hidden: `[nodes, model_dim]` by digest, not empty.

        Returns:
            The same, read from the cache.

        Raises:
            OSError: the disk is full or cannot be written to.
        """
        folder = self.root / group
        folder.mkdir(parents=True, exist_ok=True)
        rows = torch.cat(list(hidden.values()))
        ends = torch.tensor([len(part) for part in hidden.values()]).cumsum(0)
        digests = torch.tensor([list(bytes.fromhex(digest)) for digest in hidden], dtype=torch.uint8)
        name = f"{uuid.uuid4().hex}.safetensors"
        unfinished = folder / f"{name}.tmp"
        try:
            save_file(
                {"hidden": rows, "ends": ends, "digests": digests},
                str(unfinished),
                metadata={"hidden_crc32": _crc32(rows), "index_crc32": _crc32(ends, digests)},
            )
        except (SafetensorError, OSError) as error:
            _unlink(unfinished)
            raise OSError(f"{folder}: cannot write hidden states ({error})") from error
        os.replace(unfinished, folder / name)
        shard = _Shard(folder / name, verified=True)
        self._add(group, shard)
        self._evict(keep=folder / name)
        return {digest: shard.read(row) for row, digest in enumerate(shard.digests)}

    def number(self, group: str, key: str) -> float | None:
        """Return a number that was kept beside the hidden states of a group; None where there is none."""
        try:
            found = float((self.root / group / f"{key}.txt").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return found if math.isfinite(found) else None

    def keep_number(self, group: str, key: str, value: float) -> None:
        """Keep a number beside the hidden states of a group, whole or not at all; its few bytes are never evicted."""
        if not math.isfinite(value):
            return
        file = self.root / group / f"{key}.txt"
        unfinished = file.with_name(f"{uuid.uuid4().hex}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(repr(value), encoding="ascii")
            os.replace(unfinished, file)
        except OSError as error:
            _unlink(unfinished)
            self.give_up(error)

    def _index(self, group: str) -> Mapping[str, tuple[_Shard, int]]:
        """Return where every digest of a group is, as the folder is now: only shards that are new are looked at."""
        folder = self.root / group
        names = {path.name for path in folder.glob("*.safetensors")}
        shards = self._shards.setdefault(group, {})
        for gone in shards.keys() - names:
            self._forget(group, gone)
        for new in names - shards.keys():
            try:
                self._add(group, _Shard(folder / new))
            except FileNotFoundError:
                continue
            except _BrokenShard as error:
                self._discard(group, folder / new, error)
        return self._places.setdefault(group, {})

    def _add(self, group: str, shard: _Shard) -> None:
        self._shards.setdefault(group, {})[shard.path.name] = shard
        places = self._places.setdefault(group, {})
        places.update({digest: (shard, row) for row, digest in enumerate(shard.digests)})

    def _forget(self, group: str, name: str) -> None:
        """Drop a shard, and find what it held in those that are left."""
        if self._shards[group].pop(name, None) is not None:
            left = self._shards[group].values()
            self._places[group] = {digest: (shard, row) for shard in left for row, digest in enumerate(shard.digests)}

    def _discard(self, group: str, path: Path, error: _BrokenShard) -> None:
        warnings.warn(f"{path}: deleted from the cache, to be computed again ({error})", stacklevel=3)
        self._forget(group, path.name)
        _unlink(path)

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, bytes and path of every shard, the least recently used first."""
        return sorted((*_stat(path), path) for path in self.root.rglob("*.safetensors"))

    def _limit(self, total_bytes: int) -> int:
        if self._limit_bytes is not None:
            return self._limit_bytes
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        return (shutil.disk_usage(there).free + total_bytes) // 2

    def _evict(self, keep: Path) -> None:
        with self.lock("."):
            for unfinished in self.root.rglob("*.safetensors.tmp"):
                if time.time() - _stat(unfinished)[0] > ABANDONED_S:
                    _unlink(unfinished)
            by_age = self._files()
            total = sum(size for _, size, _ in by_age)
            limit = self._limit(total)
            for _, size, path in by_age:
                if total <= limit:
                    break
                if path != keep:
                    logger.info("evicting %s (%d bytes)", path, size)
                    _unlink(path)
                    total -= size


def _crc32(*parts: Tensor) -> str:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"


def _stat(path: Path) -> tuple[float, int]:
    """Return time of last use and size; of a file that has just gone, now and 0."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return time.time(), 0
    return stat.st_mtime, stat.st_size


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:  # gone, or a file system that is only read
        return


def _unlink(path: Path) -> None:
    """Delete a file; one that is gone, or cannot be deleted, is left to others."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
