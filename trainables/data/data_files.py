"""Open data files, compressed or not, and say which encoding a file has that is not UTF-8."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from trainables.errors import DataError

COMPRESSIONS = ("", ".gz", ".bz2", ".xz", ".zst")
READ_BYTES = 2**20
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SHOWN_CHARS = 12


def plain_suffix(path: Path) -> str:
    """Return a file's suffix, that of its compression left out: `.jsonl` of `train.jsonl.gz`."""
    return Path(path.stem).suffix if path.suffix in COMPRESSIONS[1:] else path.suffix


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read its content, unpacked, from behind a UTF-8 byte order mark.

    Raises:
        DataError: it cannot be read or unpacked (also while it is read), or is in UTF-16 or UTF-32.
    """
    try:
        with _unpacked(path) as file:
            buffered = io.BufferedReader(cast(io.RawIOBase, file), READ_BYTES)
            head = buffered.peek(4)[:4]
            if head.startswith(codecs.BOM_UTF8):
                buffered.read(len(codecs.BOM_UTF8))
            name = next((name for mark, name in _MARKS if head.startswith(mark)), None)
            if name is None and b"\0" in head:
                name = "UTF-32" if head.count(b"\0") > 2 else "UTF-16"
            if name:
                raise DataError(f"{path}: in {name}; UTF-8 is needed (iconv -f {name} -t UTF-8)")
            yield buffered
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); is the file cut off?") from None
    except OSError as error:
        reason = error.strerror or str(error)
        told = "unpacked" if path.suffix in COMPRESSIONS[1:] and error.errno is None else "read"
        raise DataError(f"{path}: cannot be {told} ({reason}); check the file and its permissions") from None


def decoded(where: str, content: bytes) -> str:
    """Return a text that is in UTF-8.

    Raises:
        DataError: it is not; the message says what it would be in Latin-1.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        start = max(0, error.start - _SHOWN_CHARS)
        near = content[start : error.start + _SHOWN_CHARS].decode("cp1252", "replace").strip()
        raise DataError(
            f"{where}: not in UTF-8 (byte 0x{content[error.start]:02x}; in Latin-1 or Windows-1252 it reads {near!r}); "
            "convert the file (iconv -f LATIN1 -t UTF-8)"
        ) from None


def _unpacked(path: Path) -> Any:
    if path.suffix == ".zst":
        import pyarrow  # the zstandard packages end a file that is cut off without an error, Arrow does not

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path), "rb"), "zstd")
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".bz2":
        return bz2.open(path)
    return lzma.open(path) if path.suffix == ".xz" else open(path, "rb", buffering=0)
