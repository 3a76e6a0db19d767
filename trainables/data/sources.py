"""Find the files that a trial's `data` names.

`data` joins sources by commas. A source is `sample` (the generated world), `fever` or `counterfact` (the official
files, downloaded at first use), `hub` or `hub:OWNER/NAME` (FEVER from the Hugging Face Hub) or a folder, in which files
are recognised by name, there or one level below:

    train, paper_dev            FEVER claims, per claim or in table form
    wiki-pages/*                Wikipedia pages: FEVER's, or a dump's
    wiki_docs, wiki_docs/*      further articles, without claims
    counterfact                 CounterFact records
    documents, documents/*      documents of your own (id, title, text); also `.txt` files, one document each
    questions                   questions about documents (id, document, question or prompt, choices, answer, split)
    template.json               how these questions are put

each as `.jsonl`, `.json` (lines or a list), `.csv` (these also with `.gz`, `.bz2`, `.xz` or `.zst`), `.parquet`, or a
folder that `datasets` has saved (`save_to_disk`). A source may also be such a table itself, or a folder of `.txt`
files: documents of your own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from trainables.data.fingerprint import fingerprint_files
from trainables.data.ready import read_manifest
from trainables.data.source_files import SourceFiles
from trainables.data.tables import is_saved, is_table, table_files, table_names
from trainables.errors import ConfigError, DataError, nearest
from trainables.node.cache_dir import user_path

PAGES_FOLDER, ARTICLES, COUNTERFACT = "wiki-pages", "wiki_docs", "counterfact"
DOCUMENTS, QUESTIONS, TEMPLATE = "documents", "questions", "template.json"
TEXT_SUFFIX = ".txt"
_FORMS = "(.jsonl, .json, .csv, .parquet, or a folder saved by `datasets`)"
_SAVED_TABLES = (PAGES_FOLDER, ARTICLES, COUNTERFACT, DOCUMENTS, QUESTIONS)
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
        Keys joined by commas: `sample@v1`, or `fever@`, `counterfact@`, `hub@`, `files@`, `questions@` and 16 hex
        digits.

    Raises:
        ConfigError: as `resolve_sources`.
        DataError: as `resolve_sources`.
    """
    keys = [key for name in _names(data) for key in _keys(name, data)]
    if {key.partition("@")[0] for key in keys} <= set(OFFICIAL_NAMES):
        keys.sort(key=lambda key: OFFICIAL_NAMES.index(key.partition("@")[0]))
    return ",".join(keys)


@lru_cache(maxsize=256)
def used_key(key: str, counterfact: bool, questions: bool = False) -> str:
    """Return the part of a key that decides a trial's result.

    Args:
        key: from `data_key`.
        counterfact: whether the trial asks for CounterFact records.
        questions: whether it asks questions of the user's own, or trains on them.
    """
    unused = {kind for kind, uses in (("counterfact", counterfact), ("questions", questions)) if not uses}
    parts = key.split(",")
    used = [part for part in parts if part.partition("@")[0] not in unused]
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
    folder = user_path(name)
    manifest = read_manifest(folder)
    keys = [manifest.keys[kind] for kind in sorted(manifest.keys, reverse=True)] if manifest else []
    listed = {folder / path for path in manifest.files} if manifest else set()
    others = [path for path in source.tables if path not in listed]
    asked = [path for path in source.asked if path not in listed]
    keys += [f"files@{_fingerprint(others)[:16]}"] if others else []
    return keys + ([f"questions@{_fingerprint(asked)[:16]}"] if asked else [])


def _fingerprint(tables: Sequence[Path]) -> str:
    """Hash the contents of tables; files as they lie there, so that the same text compressed is other data.

    The files in a folder saved by `datasets` are called alike whatever they hold, so the folder's name goes in as well.
    """
    plain = fingerprint_files(path for path in tables if not path.is_dir())
    saved = sorted(f"{path.name}\t{fingerprint_files(table_files(path))}" for path in tables if path.is_dir())
    return hashlib.sha256("\n".join([plain, *saved]).encode()).hexdigest() if saved else plain


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
    folder = user_path(name)
    if is_table(folder) and not (folder / "paper_dev").exists():  # FEVER's claims saved by `datasets` are no documents
        return SourceFiles(name, documents=(folder,))
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
        train=_only(levels, "train"),
        valid=_only(levels, "paper_dev"),
        wiki_pages=_tables_in(levels, PAGES_FOLDER),
        wiki_docs=_articles(levels),
        counterfact=_only(levels, COUNTERFACT),
        documents=_documents(levels),
        questions=_only(levels, QUESTIONS),
        template=next((f / TEMPLATE for folders in levels for f in folders if (f / TEMPLATE).is_file()), None),
    )
    if not source.tables and not source.questions:
        texts = _texts_in(folder)
        if texts:
            return replace(source, documents=texts)
        raise DataError(
            f"{folder}: no data found; looked for train with paper_dev, {PAGES_FOLDER}/*, {ARTICLES}, {COUNTERFACT}, "
            f"{DOCUMENTS} and {QUESTIONS} {_FORMS}, there and one level below, and for *{TEXT_SUFFIX} there"
        )
    if (source.train is None) != (source.valid is None):
        missing, found = ("train", source.valid) if source.train is None else ("paper_dev", source.train)
        raise DataError(
            f"{folder}: {found} has no {missing} beside it; looked for {missing} {_FORMS}, there and one level below"
        )
    return source


def _only(levels: Iterable[list[Path]], stem: str) -> Path | None:
    """Return the one table of this name on the first level that has any."""
    for folders in levels:
        # A folder of pages, articles or documents may have a split called `train`, which holds no claims.
        holders = [f for f in folders if f.name not in _SAVED_TABLES or not is_saved(f)]
        found = [folder / name for folder in holders for name in table_names(stem) if is_table(folder / name)]
        if len(found) > 1:
            raise ConfigError(f"data: {found[0]} and {found[1]} serve the same purpose; keep one of them")
        if found:
            return found[0]
    return None


def _documents(levels: Sequence[list[Path]]) -> tuple[Path, ...]:
    """Return the tables of documents: one, those of a folder, or the texts in it."""
    one = _only(levels, DOCUMENTS)
    if one:
        return (one,)
    found = _tables_in(levels, DOCUMENTS)
    return found or next((t for fs in levels for f in fs if (t := _texts_in(f / DOCUMENTS))), ())


def _texts_in(folder: Path) -> tuple[Path, ...]:
    """Return the text files of a folder, sorted."""
    found = folder.glob(f"*{TEXT_SUFFIX}") if folder.is_dir() else ()
    return tuple(sorted(path for path in found if path.is_file() and not path.name.startswith(".")))


def _articles(levels: Sequence[list[Path]]) -> tuple[Path, ...]:
    """Return the tables of articles: one, or those of a folder."""
    one = _only(levels, ARTICLES)
    return (one,) if one else _tables_in(levels, ARTICLES)


def _tables_in(levels: Iterable[list[Path]], name: str) -> tuple[Path, ...]:
    """Return the tables of the first folder of this name that has any; it may be one table itself."""
    for folders in levels:
        for folder in folders:
            place = folder if folder.name == name else folder / name
            if is_saved(place):
                return (place,)
            found = sorted(p for p in place.glob("*") if is_table(p) and not p.name.startswith("."))
            if found:
                return tuple(found)
    return ()
