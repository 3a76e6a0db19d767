"""What it costs to know a model by every byte of its weights: the first time, and once it is remembered.

The rival is `hashlib` over the same file: SHA-256, as for small files, and BLAKE2b. All read from the page cache as far
as it holds the file; on a slow disk the disk decides.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer

from benchmarks.common import OUT, NotTheSame, OutFile, Repeats, Table, in_turn, keep, ratio, seconds, spread, told
from trainables.data.fingerprint import fingerprint_files

BLOCK_BYTES = 2**24
RIVALS = ("sha256", "blake2b")


def measure(size_bytes: int, repeats: int) -> Table:
    """Hash a file of random bytes: the whole of it, again when it is remembered, and by the rivals.

    Raises:
        NotTheSame: an edited byte does not show.
    """
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, MEMORY_SWEEP_CACHE=f"{folder}/cache"):
        file = Path(folder) / "model.safetensors"
        with open(file, "wb") as stream:
            for _ in range(-(-size_bytes // BLOCK_BYTES)):
                stream.write(os.urandom(BLOCK_BYTES))
        time.sleep(3)  # a file that has just changed is not remembered
        first = seconds(lambda: fingerprint_files([file]))
        contenders: dict[str, Callable[[], float]] = {
            "remembered": lambda: seconds(lambda: fingerprint_files([file])),
            "first": lambda: _anew(file),
            **{name: partial(_by_hashlib, name, file) for name in RIVALS},
        }
        found = in_turn(contenders, repeats)
        _check_edit(file)
        size = file.stat().st_size
    return {
        "bytes": size,
        "cold_seconds": first,
        "seconds": {name: spread(values) for name, values in found.items()},
        "speedup": {name: ratio(found[name], found["first"]) for name in RIVALS},
    }


def _anew(file: Path) -> float:
    with mock.patch.dict(os.environ, MEMORY_SWEEP_CACHE=tempfile.mkdtemp(dir=file.parent)):
        return seconds(lambda: fingerprint_files([file]))


def _by_hashlib(name: str, file: Path) -> float:
    def run() -> Any:
        with open(file, "rb") as stream:
            return _digest(name, stream)

    return seconds(run)


def _digest(name: str, stream: Any) -> str:
    digest = hashlib.new(name)
    while block := stream.read(BLOCK_BYTES):
        digest.update(block)
    return digest.hexdigest()


def _check_edit(file: Path) -> None:
    before, times = fingerprint_files([file]), file.stat()
    with open(file, "r+b") as stream:
        stream.seek(times.st_size // 3)
        byte = stream.read(1)
        stream.seek(times.st_size // 3)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    if fingerprint_files([file]) == before:
        raise NotTheSame("a flipped bit in a third of the file does not change its fingerprint")


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    size = table["bytes"] / 1e9
    shown = [f"{size:.1f} GB of weights; the first reading took {table['cold_seconds']:.2f} s"]
    for name, found in table["seconds"].items():
        rate = "" if name == "remembered" else f"  {size / found['median']:.2f} GB/s"
        faster = f", ours is {told(table['speedup'][name])} times faster" if name in table["speedup"] else ""
        shown.append(f"  {name:<12}{found['median']:10.4f} s{rate}{faster}")
    return shown


def command(
    gigabytes: Annotated[float, typer.Option(min=0.1, help="size of the file, about 10^9 bytes each")] = 2.0,
    repeats: Repeats = 3,
    out: OutFile = OUT,
) -> None:
    """Price of a model's identity: every byte hashed once, then remembered, against hashlib."""
    table = measure(int(gigabytes * 1e9), repeats)
    typer.echo("\n".join(lines(table)))
    keep(out, "identity", table)
