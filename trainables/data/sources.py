"""Find the files that a trial's `data` names.

`data` joins sources by commas. A source is `sample` (the generated world), `fever` or `counterfact` (the official
files, downloaded at first use), `hub` or `hub:OWNER/NAME` (FEVER from the Hugging Face Hub) or a folder, in which files
are recognised by name, there or one level below:

    train.{jsonl,csv,parquet}, paper_dev.{jsonl,csv,parquet}     FEVER claims, per claim or in table form
    wiki-pages/*.jsonl                                          FEVER's Wikipedia pages
    wiki_docs.jsonl                                             further articles, without claims
    counterfact.json                                            CounterFact records
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from trainables.data.fingerprint import fingerprint_files
from trainables.data.ready import read_manifest
from trainables.data.source_files import SourceFiles
from trainables.errors import ConfigError, DataError, nearest

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
OFFICIAL_NAMES = ("fever", "counterfact")
NAMES = ("sample", *OFFICIAL_NAMES, "hub")


def is_named(source: str) -> bool:
    """Say whether a source is named (`sample`, `fever`, `hub:OWNER/NAME`, …) rather than a folder."""
    from trainables.data.hub import is_hub

    return source in NAMES or is_hub(source)


def _is_downloaded(source: str) -> bool:
    return source != "sample" and is_named(source)


def uses_hub(data: str) -> bool:
    """Say whether a source is a repository of the hub, which may lack pages."""
    return any(name.partition(":")[0] == "hub" for name in data.split(","))


def resolve_sources(data: str, allow_missing_pages: bool = False) -> tuple[SourceFiles, ...]:
    """Find the files of every source; download them, or generate the sample world, where they are not here yet.

    Args:
        data: sources joined by commas.
        allow_missing_pages: go on without the pages that a repository of the hub lacks.

    Raises:
        ConfigError: a source without a name, two sources of FEVER claims, or two files for the same thing; data that
            cannot be downloaded.
        DataError: a folder that is missing, or holds nothing of use or only one half of FEVER's claims; a download that
            is not what it should be.
    """
    names = _names(data)
    found = {name: _resolve(name, data) for name in names if not _is_downloaded(name)}
    with_claims = [name for name in names if (found[name].has_claims if name in found else name != "counterfact")]
    if len(with_claims) > 1:
        raise ConfigError(f"data={data!r}: FEVER claims in {' and '.join(with_claims)}; name just one")
    return tuple(found.get(name) or _resolve(name, data, allow_missing_pages) for name in names)


def data_key(data: str) -> str:
    """Fingerprint the content behind `data`, wherever it lies: part of a trial's identity.

    The official data sets and the folders that `sweep.data prepare` makes of them have the same keys; those of the
    official sets are known without a download, those of the hub after a look at its list of files.

    Returns:
        Keys joined by commas: `sample@v1`, or `fever@`, `counterfact@`, `hub@`, `files@` and 16 hex digits.

    Raises:
        ConfigError: as `resolve_sources`.
        DataError: as `resolve_sources`.
    """
    keys = [key for name in _names(data) for key in _keys(name, data)]
    if {key.partition("@")[0] for key in keys} <= set(OFFICIAL_NAMES):
        keys.sort(key=lambda key: OFFICIAL_NAMES.index(key.partition("@")[0]))
    return ",".join(keys)


def used_key(key: str, counterfact: bool) -> str:
    """Return the part of a key that decides a trial's result.

    Args:
        key: from `data_key`.
        counterfact: whether the trial asks for CounterFact records.
    """
    parts = key.split(",")
    used = [part for part in parts if counterfact or not part.startswith("counterfact@")]
    return ",".join(used or parts)


def pin_sources(data: str) -> str:
    """Return `data` with every branch of the hub replaced by the commit that it names at present.

    Raises:
        ConfigError: the Hub cannot be reached.
        DataError: a repository that does not hold FEVER.
    """
    from trainables.data.hub import hub_files, is_hub

    return ",".join(hub_files(name).name if is_hub(name) else name for name in _names(data))


def _keys(name: str, data: str) -> list[str]:
    from trainables.data.hub import hub_files, is_hub
    from trainables.data.obtain import key_of

    if name == "sample":
        from trainables.data.sample.facts import SAMPLE_VERSION

        return [f"sample@v{SAMPLE_VERSION}"]
    if name in OFFICIAL_NAMES:
        return [key_of(name)]
    if is_hub(name):
        return [hub_files(name).key]
    source = _resolve(name, data)
    folder = Path(name).expanduser()
    manifest = read_manifest(folder)
    keys = [manifest.keys[kind] for kind in sorted(manifest.keys, reverse=True)] if manifest else []
    listed = {folder / path for path in manifest.files} if manifest else set()
    others = [path for path in source.files if path not in listed]
    return keys + ([f"files@{fingerprint_files(others)[:16]}"] if others else [])


def _names(data: str) -> list[str]:
    names = [name.strip() for name in data.split(",")]
    if not all(names):
        raise ConfigError(f"data={data!r}: an empty source; name {', '.join(NAMES)} or folders, joined by commas")
    return names


def _resolve(name: str, data: str, allow_missing_pages: bool = False) -> SourceFiles:
    from trainables.data.hub import is_hub, ready_hub
    from trainables.data.obtain import ready_data

    if name in OFFICIAL_NAMES:
        return _scan(name, ready_data(name))
    if is_hub(name):
        return _scan(name, ready_hub(name, allow_missing_pages))
    if name == "sample":
        from trainables.data.sample.world import ensure_sample_data

        return _scan(name, ensure_sample_data())
    folder = Path(name).expanduser()
    if not folder.is_dir():
        hint = nearest(name, NAMES)
        raise DataError(f"{folder}: no such folder (data={data!r}); name {', '.join(NAMES)} or a folder{hint}")
    read_manifest(folder)
    return _scan(name, folder)


def _scan(name: str, folder: Path) -> SourceFiles:
    """Recognise a folder's files, there or one level below."""
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    levels = ([folder], below)
    source = SourceFiles(
        name=name,
        train=_only(levels, [f"train{suffix}" for suffix in TABLE_SUFFIXES]),
        valid=_only(levels, [f"paper_dev{suffix}" for suffix in TABLE_SUFFIXES]),
        wiki_pages=_wiki_pages(levels),
        wiki_docs=_only(levels, ["wiki_docs.jsonl"]),
        counterfact=_only(levels, ["counterfact.json"]),
    )
    if not source.files:
        raise DataError(
            f"{folder}: no data found; looked for train.jsonl with paper_dev.jsonl (or .csv, .parquet), "
            "wiki-pages/*.jsonl, wiki_docs.jsonl, counterfact.json, there and one level below"
        )
    if (source.train is None) != (source.valid is None):
        missing, found = ("train", source.valid) if source.train is None else ("paper_dev", source.train)
        raise DataError(
            f"{folder}: {found} has no {missing} beside it; looked for {missing}.jsonl, .csv and .parquet, "
            "there and one level below"
        )
    return source


def _only(levels: Iterable[list[Path]], names: list[str]) -> Path | None:
    """Return the one file of these names on the first level that has any."""
    for folders in levels:
        found = [folder / name for folder in folders for name in names if (folder / name).is_file()]
        if len(found) > 1:
            raise ConfigError(f"data: {found[0]} and {found[1]} serve the same purpose; keep one of them")
        if found:
            return found[0]
    return None


def _wiki_pages(levels: Iterable[list[Path]]) -> tuple[Path, ...]:
    """Return the page files of the first `wiki-pages` folder that has any."""
    for folders in levels:
        for folder in folders:
            pages = folder if folder.name == "wiki-pages" else folder / "wiki-pages"
            found = sorted(path for path in pages.glob("*.jsonl") if not path.name.startswith("."))
            if found:
                return tuple(found)
    return ()
