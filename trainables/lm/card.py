"""Which model a name means, and its shape, without loading it.

A model is an alias (`aliases.MODELS`), a hub id, a local folder, or one of the two sample models.
`ModelCard` has what planning needs: how many blocks there are and how large they are.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from trainables.data.sample.facts import SAMPLE_VERSION
from trainables.errors import ConfigError, nearest
from trainables.lm.aliases import MODELS, find_alias, plain_name
from trainables.lm.config_shape import TWO_MATRICES, shape_of
from trainables.lm.folder_identity import folder_key, tokenizer_files, weight_files
from trainables.lm.hub_commit import hub_commit
from trainables.lm.sample.configs import SAMPLE_MODELS
from trainables.node.cache_dir import user_path

ALIASES = {name: alias for name, alias in MODELS.items() if alias.study}
"""The study's models."""


@dataclass(frozen=True)
class ModelCard:
    """A model's name, origin and shape.

    Attributes:
        name: short name, as in result folders (`lm_<name>`).
        key: what identifies it: hub id and commit, or a folder's content; for a hub model whose commit cannot be
            found out here, hub id and revision.
        source: hub id or folder; empty for a sample model.
        revision: branch, tag or commit of a hub model, as the user named it.
        family: `model_type` of `transformers`.
        num_kv_heads: key-value heads (fewer than heads with grouped-query attention).
        tied: the head's weight is the embedding's.
        is_gated: its repository asks for a licence to be accepted, as far as is known without asking.
        commit: of a hub model, where it is known.
        positions: longest text that the model takes; None for no limit.
        experts_dim: width of all experts of a block together; 0 without experts.
        experts_used_dim: width of those that one token goes through.
    """

    name: str
    key: str
    source: str
    revision: str
    family: str
    num_blocks: int
    model_dim: int
    intermediate_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    is_hub: bool = False
    is_sample: bool = False
    is_gated: bool = False
    commit: str = ""
    positions: int | None = None
    experts_dim: int = 0
    experts_used_dim: int = 0

    @property
    def block_params(self) -> int:
        """Weights of one block (linear maps only; norms are negligible)."""
        return self._block(self.experts_dim or self.intermediate_dim)

    @property
    def active_block_params(self) -> int:
        """Weights of one block that a token is multiplied by: of the experts, those it is sent to."""
        return self._block(self.experts_used_dim or self.intermediate_dim)

    def _block(self, inner: int) -> int:
        d = self.model_dim
        query, key_value = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return 2 * d * query + 2 * d * key_value + (2 if self.family in TWO_MATRICES else 3) * d * inner

    @property
    def head_params(self) -> int:
        """Weights of the output head."""
        return self.vocab_size * self.model_dim

    @property
    def params(self) -> int:
        """All weights: blocks, embedding and head."""
        return self.num_blocks * self.block_params + self.head_params * (1 if self.tied else 2)


def is_known_model(model: str) -> bool:
    """Say whether a name is an alias or a sample model, rather than a folder or a hub id."""
    return model in SAMPLE_MODELS or find_alias(model) is not None


def hub_id(model: str) -> str | None:
    """Return the repository that a name means; None for sample models, folders and what is no name of a model."""
    alias = find_alias(model)
    if model in SAMPLE_MODELS or alias is not None:
        return MODELS[alias].source if alias else None
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+", model) and model[0] not in "./~"
    return model if is_id and not user_path(model).exists() else None


@lru_cache(maxsize=256)
def model_card(model: str, revision: str = "main", commit: str = "") -> ModelCard:
    """Say what a model name means.

    Args:
        model: alias (`pythia-6.9b`, `llama2_chat 7b`), `sample-llama`, `sample-neox`, hub id or folder.
        revision: of a hub model.
        commit: at which a hub model is taken; empty for the one at which its revision stands.

    Raises:
        ConfigError: no such alias or folder, or not a causal language model.
        DataError: a folder whose files cannot be read.
    """
    if model in SAMPLE_MODELS:
        shape = dict(SAMPLE_MODELS[model])
        head_dim = shape["model_dim"] // shape["num_heads"]
        return ModelCard(
            name=model,
            key=f"{model}@v{SAMPLE_VERSION}",
            source="",
            revision="main",
            head_dim=head_dim,
            is_sample=True,
            **shape,
        )
    alias = find_alias(model)
    if alias is not None:
        shape = asdict(MODELS[alias])
        for field in ("licence", "study"):
            del shape[field]
        commit = commit or hub_commit(shape["source"], revision)
        key = f"{shape['source']}@{commit or revision}"
        return ModelCard(name=alias, key=key, revision=revision, is_hub=True, commit=commit, **shape)
    folder = user_path(model)
    if folder.is_dir():
        return _folder_card(folder)
    if hub_id(model):
        return _hub_card(model, revision, commit)
    known = [*MODELS, *SAMPLE_MODELS]
    raise ConfigError(
        f"model={model!r}: no such folder, alias or hub id{nearest(model, known)}; aliases: {', '.join(known)}"
    )


def _folder_card(folder: Path) -> ModelCard:
    config_file = folder / "config.json"
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and not (config_file.is_file() and weight_files(folder)):
        raise ConfigError(
            f"model={str(folder)!r}: an adapter without its base model (adapter_config.json); "
            "merge it (peft: `merge_and_unload()`), save the whole model and name that folder"
        )
    weights, tokenizer = weight_files(folder), tokenizer_files(folder)
    if not config_file.is_file() or not weights:
        missing = (
            "config.json" if not config_file.is_file() else "model.safetensors or pytorch_model.bin, whole or in shards"
        )
        raise ConfigError(f"model={str(folder)!r}: not a model folder, it has no {missing}")
    if not tokenizer:
        raise ConfigError(f"model={str(folder)!r}: not a model folder, it has no tokenizer.json or tokenizer.model")
    shape = shape_of(config_file)
    key = f"{shape['family']}:{folder_key(folder, weights, tokenizer)[:16]}"
    real = folder.resolve()
    name, commit = _folder_name(real)
    return ModelCard(name=name, key=key, source=str(real), revision="main", commit=commit, **shape)


def _folder_name(folder: Path) -> tuple[str, str]:
    """Return what to call a folder, and its commit: the hub's cache has both in its path."""
    snapshot, kind, repository = folder.name, folder.parent.name, folder.parent.parent.name
    if kind == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/"), snapshot
    if is_known_model(folder.name) or plain_name(folder.name) in map(plain_name, SAMPLE_MODELS):
        return f"{folder.name} (local folder)", ""
    return folder.name, ""


def _hub_card(model: str, revision: str, pinned: str) -> ModelCard:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    from trainables.data.hub_client import ask_hub

    known = pinned or hub_commit(model, revision)
    held = try_to_load_from_cache(model, "config.json", revision=known or revision)
    if not isinstance(held, str):
        at = pinned or revision
        held = ask_hub(f"model={model!r}", model, lambda: hf_hub_download(model, "config.json", revision=at))
    config_file = Path(held)
    commit = config_file.parent.name
    return ModelCard(
        name=model.split("/")[-1],
        key=f"{model}@{commit}",
        source=model,
        revision=revision,
        is_hub=True,
        commit=commit,
        **shape_of(config_file),
    )
