"""The official data sets by name: where their files are, how large they are, and their checksums.

The sizes and checksums are those of the files that all published work uses; where each was found is told in
docs/data.md. They are pinned: a file that differs is refused, and they decide a trial's id, so that the id is known
before anything is downloaded.

Settings (environment): `MEMORY_SWEEP_FEVER_URL` and `MEMORY_SWEEP_COUNTERFACT_URL` name a mirror, a folder on a server
that holds the same files; `MEMORY_SWEEP_DATA_SOURCES` names a JSON file with sources of your own, in the form of
`{"fever": {"files": {"train.jsonl": {"url": …, "size": …, "sha256": …}, …}, "facts": {…}}}`. A file that it leaves
out stays as here; a size or checksum that is null is not known: it is taken at the first download and kept with the
data.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trainables.data.fetch import RemoteFile
from trainables.errors import ConfigError, DataError, nearest
from trainables.node.cache_dir import cache_dir, user_path

SOURCES_VARIABLE = "MEMORY_SWEEP_DATA_SOURCES"
URL_VARIABLES = {"fever": "MEMORY_SWEEP_FEVER_URL", "counterfact": "MEMORY_SWEEP_COUNTERFACT_URL"}
CACHE_VARIABLE = "MEMORY_SWEEP_DATA_CACHE"
WIKI_PAGES = "wiki-pages.zip"


@dataclass(frozen=True)
class DataSet:
    """A data set by name.

    Attributes:
        name: `fever` or `counterfact`.
        files: where its files are; `wiki-pages.zip` is read in passing, the others are kept.
        facts: counts that the files are known to give, for `sweep.data check`.
        licence: of the data.
    """

    name: str
    files: tuple[RemoteFile, ...]
    facts: Mapping[str, int] = field(default_factory=dict)
    licence: str = ""

    @property
    def key(self) -> str | None:
        """What identifies the content; None while a checksum is not known."""
        sums = {file.name: file.sha256 for file in self.files}
        return None if None in sums.values() else content_key(self.name, sums)

    @property
    def folder_name(self) -> str:
        """Name of its folder in the data cache: by content, or by address where that is not known."""
        told = [f"{file.name} {file.sha256 or file.url}" for file in self.files]
        return f"{self.name}-{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:16]}"

    @property
    def bytes(self) -> int:
        """Size of the download, as far as it is known."""
        return sum(file.size or 0 for file in self.files)


def content_key(name: str, sums: Mapping[str, str | None]) -> str:
    """Return the key of a data set by its files' checksums: part of a trial's identity."""
    lines = "\n".join(f"{file}\t{sha256}" for file, sha256 in sorted(sums.items()))
    return f"{name}@{hashlib.sha256(lines.encode()).hexdigest()[:16]}"


_FEVER = "https://fever.ai/download/fever/"
_ROME = "https://rome.baulab.info/data/dsets/"
OFFICIAL = {
    "fever": DataSet(
        "fever",
        (
            RemoteFile(
                "train.jsonl",
                f"{_FEVER}train.jsonl",
                33_024_303,
                "eba7e8f87076753f8494718b9a857827af7bf73e76c9e4b75420207d26e588b6",
            ),
            RemoteFile(
                "paper_dev.jsonl",
                f"{_FEVER}paper_dev.jsonl",
                2_168_767,
                "41158707810008747946bf23471e82df53e77a513524b9e3ec1c2e674ef5ef8c",
            ),
            RemoteFile(
                WIKI_PAGES,
                f"{_FEVER}{WIKI_PAGES}",
                1_713_485_474,
                "4b06d95da6adf7fe02d2796176c670dacccb21348da89cba4c50676ab99665f2",
            ),
        ),
        {
            "claims": 9_999,
            "claims SUPPORTS": 3_333,
            "claims REFUTES": 3_333,
            "claims NOT ENOUGH INFO": 3_333,
            "rows": 18_999,
            "pages": 1_460,
            "training rows": 311_431,
        },
        "CC BY-SA 3.0",
    ),
    "counterfact": DataSet(
        "counterfact",
        (
            RemoteFile(
                "counterfact.json",
                f"{_ROME}counterfact.json",
                45_108_470,
                "d017056125178a13728594e66a801357a8db9ed7973a7425554bb4271de9fc6f",
            ),
        ),
        {"records": 21_919},
        "MIT",
    ),
}


def data_set(name: str) -> DataSet:
    """Return a data set, as the settings have it.

    Raises:
        ConfigError: there is none of this name, or the settings cannot be read.
    """
    if name not in OFFICIAL:
        raise ConfigError(f"{name!r}: no such data set{nearest(name, OFFICIAL)}; there are {', '.join(OFFICIAL)}")
    found = OFFICIAL[name]
    base = os.environ.get(URL_VARIABLES[name])
    if base:
        moved = (replace(file, url=f"{base.rstrip('/')}/{file.name}") for file in found.files)
        found = replace(found, files=tuple(moved))
    table = os.environ.get(SOURCES_VARIABLE)
    return _override(found, user_path(table)) if table else found


def data_cache() -> Path:
    """Return the folder for downloaded data: `--data-cache`, else a part of the node's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    return user_path(named) if named else cache_dir() / "data"


def _override(found: DataSet, table: Path) -> DataSet:
    try:
        own: Any = json.loads(table.read_text(encoding="utf-8")).get(found.name)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{SOURCES_VARIABLE}={str(table)!r}: cannot be read as a JSON object ({error})") from None
    if own is None:
        return found
    try:
        files = []
        for file in found.files:
            stated = own["files"].get(file.name, {})
            unknown = set(stated) - {"url", "size", "sha256"}
            if unknown:
                raise DataError(f"{table}: {file.name}: {unknown.pop()!r} is none of url, size and sha256")
            files.append(replace(file, **stated))
        strange = set(own["files"]) - {file.name for file in found.files}
        if strange:
            raise DataError(f"{table}: {found.name} has no file {strange.pop()!r}")
        return replace(found, files=tuple(files), facts=dict(own.get("facts", {})))
    except (KeyError, TypeError, AttributeError, ValueError):
        raise DataError(
            f'{table}: {found.name} must be {{"files": {{NAME: {{"url": …, "size": …, "sha256": …}}}}, "facts": {{}}}}'
        ) from None
