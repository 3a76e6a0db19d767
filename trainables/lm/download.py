"""A model on the Hub: which commit and which of its files, downloaded once per node before the first trial needs it.

Repositories are laid out in several ways: safetensors, PyTorch files or both, one file or shards with an index, beside
files of no use here (`onnx/…`, `consolidated.00.pth`, `*.gguf`). Their list decides what is downloaded: one kind of
weights, safetensors before PyTorch's, an index before a single file of the same kind.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainables.data.hub_client import GatedRepository, ask_hub
from trainables.data.online import Unreachable, say
from trainables.errors import ConfigError, DataError
from trainables.lm.card import ModelCard
from trainables.lm.folder_identity import SINGLE_FILES
from trainables.lm.hub_commit import hub_commit

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")
_SMALL = re.compile(r"[^/]+\.(?:json|model|txt)")
_SHARD = re.compile(r"(?:model|pytorch_model)-\d+-of-(\d+)\.(safetensors|bin)")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model at a commit.

    Attributes:
        repo: OWNER/NAME.
        commit: that the revision names.
        small: configuration and tokenizer.
        weights: one kind of weights, with the index if there is one.
        sizes: bytes of each, where known.
    """

    repo: str
    commit: str
    small: tuple[str, ...]
    weights: tuple[str, ...]
    sizes: dict[str, int]

    @property
    def bytes(self) -> int:
        """Size of the download."""
        return sum(self.sizes.get(name, 0) for name in (*self.small, *self.weights))


def choose_weights(names: Collection[str], read: Callable[[str], str], where: str) -> tuple[str, ...]:
    """Choose the weight files of a model.

    Args:
        names: files there are, those in folders left out.
        read: returns a file's text; asked for an index only.
        where: the files are, for messages.

    Returns:
        The index, if there is one, and the files with weights.

    Raises:
        DataError: no weights, an index that cannot be read, or one whose shards are not all there.
    """
    problem = ""
    for single in SINGLE_FILES:
        index = f"{single}.index.json"
        if index in names:
            try:
                shards = sorted(set(json.loads(read(index))["weight_map"].values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise DataError(f"{where}/{index}: not an index of weight files ({error})") from None
            missing = [shard for shard in shards if shard not in names]
            if not missing:
                return (index, *shards)
            problem = problem or f"{index} names {missing[0]}, which is not there"
        if single in names:
            return (single,)
        suffix = Path(single).suffix[1:]
        shards = sorted(name for name in names if (match := _SHARD.fullmatch(name)) and match[2] == suffix)
        if index not in names and shards and len(shards) == int(_SHARD.fullmatch(shards[0])[1]):  # type: ignore[index]
            return tuple(shards)
    raise DataError(
        f"{where}: no complete weights; looked for model.safetensors and pytorch_model.bin, whole or in shards"
        + (f" ({problem})" if problem else "")
    )


def find_model(card: ModelCard) -> ModelFiles:
    """Find a model on the Hub and make sure that it opens for this machine; nothing large is downloaded.

    Without a network, or without access, a model that was downloaded before is taken as it was.

    Raises:
        ConfigError: no such repository or revision, no access to a gated one, or no network.
        DataError: it holds no weights or tokenizer of a kind that is read here.
    """
    from huggingface_hub import HfApi

    what, now = f"model={card.name!r}", hub_commit(card.source, card.revision)

    def ask() -> Any:
        info = HfApi().model_info(card.source, revision=card.commit or card.revision, files_metadata=True)
        # A gated repository shows its list to all. Asked for by the branch's name, the file lets the Hub's cache know
        # the commit, so that the next plan finds it without a network.
        _get(card.source, "config.json", card.revision if info.sha == now else str(info.sha))
        return info

    try:
        info = ask_hub(what, card.source, ask)
    except (Unreachable, GatedRepository) as error:
        found = _downloaded(card)
        if found is None:
            raise
        why = "is gated here" if isinstance(error, GatedRepository) else "cannot be looked up, the Hub is out of reach"
        say(f"{what}: {card.source} {why}; it is used as it was downloaded, at {found.commit[:8]}")
        return found
    sizes = {file.rfilename: file.size or 0 for file in info.siblings if "/" not in file.rfilename}
    commit = str(info.sha)
    return _chosen(
        card,
        commit,
        sizes,
        lambda name: Path(ask_hub(what, card.source, lambda: _get(card.source, name, commit))).read_text("utf-8"),
    )


def download_model(card: ModelCard, with_weights: bool = True) -> Path:
    """Return the folder of a model's files, downloading them if need be; a known commit asks the Hub for nothing.

    Several processes may ask at once: `huggingface_hub` locks each file.

    Raises:
        ConfigError: as `find_model`, or the disk is too small.
        DataError: as `find_model`.
    """
    from huggingface_hub import snapshot_download

    if card.commit and (held := _downloaded(card, with_weights)):
        return _folder(held)
    files = find_model(card)
    if held := _downloaded(replace(card, commit=files.commit), with_weights):
        return _folder(held)
    names = [*files.small, *(files.weights if with_weights else ())]
    if with_weights:
        _check_disk(card, files)
        told = f"{files.bytes / 1e9:,.2f} GB" if files.bytes else "weights"
        say(f"{card.name}: downloading {told} of {card.source} at {card.revision} ({files.commit[:8]})")
    folder = ask_hub(
        f"model={card.name!r}",
        card.source,
        lambda: snapshot_download(card.source, revision=files.commit, allow_patterns=names),
    )
    return Path(folder)


def folder_here(card: ModelCard) -> Path | None:
    """Return the folder of a hub model if this machine has all its files; nothing is asked or downloaded."""
    held = _downloaded(card)
    return None if held is None else _folder(held)


def _downloaded(card: ModelCard, with_weights: bool = True) -> ModelFiles | None:
    """Return what the Hub's cache holds of a model, if that is all of it."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(card.source, "config.json", revision=card.commit or card.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    try:
        found = _chosen(card, folder.name, sizes, lambda name: (folder / name).read_text("utf-8"), with_weights)
    except (DataError, OSError):
        return None
    return found


def _folder(files: ModelFiles) -> Path:
    from huggingface_hub import try_to_load_from_cache

    return Path(str(try_to_load_from_cache(files.repo, "config.json", revision=files.commit))).parent


def _chosen(
    card: ModelCard, commit: str, sizes: dict[str, int], read: Callable[[str], str], with_weights: bool = True
) -> ModelFiles:
    where = f"{card.source}@{card.revision}"
    if not set(TOKENIZER_FILES) & set(sizes):
        raise DataError(f"{where}: no tokenizer.json or tokenizer.model; name a repository that has one")
    indices = {f"{name}.index.json" for name in SINGLE_FILES}
    small = tuple(sorted(name for name in sizes if _SMALL.fullmatch(name) and name not in indices))
    weights = choose_weights(sizes, read, where) if with_weights else ()
    return ModelFiles(card.source, commit, small, weights, sizes)


def _get(repo: str, name: str, commit: str) -> str:
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(repo, name, revision=commit))


def _check_disk(card: ModelCard, files: ModelFiles) -> None:
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE)
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if files.bytes > free:
        raise ConfigError(
            f"model={card.name!r}: needs {files.bytes / 1e9:.1f} GB in {constants.HF_HUB_CACHE}, of which "
            f"{free / 1e9:.1f} GB are free; make room, or set HF_HOME to another disk"
        )
