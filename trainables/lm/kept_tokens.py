"""Files of tokens in this machine's cache folder: one process makes a corpus's, the others wait for it and map it.

CACHE/tokens/<what the tokens follow from>-<crc32 of the file>.arrow
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers

from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.token_files import map_tokens, memory_tokens, write_tokens
from trainables.lm.tokens import text_start
from trainables.node.map_batches import MapBatches, map_here
from trainables.node.node_lock import node_lock

logger = logging.getLogger(__name__)

KEPT_FILES = 4
"""Files that stay, the last used; who has mapped one that goes keeps it. A sweep asks for one or two corpora at a time;
of a million documents of 400 tokens a file has 1.6 GB (ours)."""
VERSION = 1
"""Raised when the same texts are cut into other segments, or a file looks otherwise."""
ABANDONED_S = 3600.0
"""Age at which an unfinished file belongs to a process that died."""
_CHUNK_BYTES = 1 << 24


def kept_tokens(
    folder: Path,
    texts: Callable[[], Iterable[str]],
    tokenizer: Any,
    segment_tokens: int,
    max_segments: int,
    map_batches: MapBatches = map_here,
) -> CorpusTokens:
    """Return the tokens of a corpus, which one process of this machine makes; see `write_tokens`.

    Where the folder cannot be written or is full they are made and held in memory, which is said.

    Args:
        folder: of the files; made if need be.
        texts: gives the texts, one a document, each time that it is called.
        tokenizer: as from `load_tokenizer`.
        segment_tokens: most tokens of a segment, what comes before a text included.
        max_segments: the text beyond is left out.
        map_batches: where to compute.
    """
    key = _key(texts(), tokenizer, segment_tokens, max_segments)
    told = tokenizer, segment_tokens, max_segments, map_batches
    trouble: list[Exception] = []
    with node_lock(folder / ".lock", trouble.append):
        found = None if trouble else _kept(folder, key)
        if found is None and not trouble:
            try:
                found = _written(folder, key, lambda path: write_tokens(path, texts(), *told))
            except OSError as error:
                trouble.append(error)
    if found is None:
        reason = getattr(trouble[0], "strerror", None) or trouble[0]
        logger.warning("%s: cannot be written (%s); tokens are made and not kept", folder, reason)
        found = memory_tokens(texts(), *told)
    return found


def _key(texts: Iterable[str], tokenizer: Any, segment_tokens: int, max_segments: int) -> str:
    """Return a digest of all that the tokens follow from."""
    # what a slow tokenizer follows from cannot be told: its tokens are made anew each time
    core = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else uuid.uuid4().hex
    as_text = bool(getattr(tokenizer, "split_special_tokens", False))
    told = [VERSION, tokenizers.__version__, core, as_text, text_start(tokenizer), segment_tokens, max_segments]
    digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=16)
    for text in texts:
        content = text.encode(errors="surrogatepass")
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


def _kept(folder: Path, key: str) -> CorpusTokens | None:
    """Map the file that there is; one that is not what was written is deleted."""
    for path in folder.glob(f"{key}-*.arrow"):
        with suppress(FileNotFoundError):  # it was the least recently used a moment ago
            if path.stem == f"{key}-{_crc32(path)}":
                found = map_tokens(path)
                with suppress(OSError):
                    os.utime(path)
                return found
            logger.warning("%s: deleted, to be made again (it is not what was written)", path)
            path.unlink(missing_ok=True)
    return None


def _written(folder: Path, key: str, write: Callable[[Path], object]) -> CorpusTokens:
    """Have a file written, whole or not at all, delete the least recently used above `KEPT_FILES`, and map it.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    unfinished = folder / f"{uuid.uuid4().hex}.tmp"
    try:
        write(unfinished)
        found = map_tokens(unfinished)
        os.replace(unfinished, folder / f"{key}-{_crc32(unfinished)}.arrow")
    finally:
        unfinished.unlink(missing_ok=True)
    _clear(folder)
    return found


def _clear(folder: Path) -> None:
    files = sorted(folder.glob("*.arrow"), key=_last_used, reverse=True)
    left_over = [path for path in folder.glob("*.tmp") if time.time() - _last_used(path) > ABANDONED_S]
    for path in (*files[KEPT_FILES:], *left_over):
        with suppress(OSError):
            path.unlink()


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _crc32(path: Path) -> str:
    crc = 0
    with pa.OSFile(str(path), "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"
