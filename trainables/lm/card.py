"""Which model a name means, and its shape, without loading it.

A model is an alias of the study's tables, a hub id, a local folder, or one of the two sample models.
`ModelCard` carries what planning needs: how many blocks there are and how large they are.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainables.data.sample.facts import SAMPLE_VERSION
from trainables.errors import ConfigError, DataError, nearest
from trainables.lm.sample.configs import SAMPLE_MODELS

FAMILIES = ("llama", "gpt_neox")


@dataclass(frozen=True)
class ModelCard:
    """A model's name, origin and shape.

    Attributes:
        name: short name, as in result folders (`lm_<name>`).
        key: what identifies its weights: hub id and revision, or a folder's content.
        source: hub id or folder; empty for a sample model.
        family: `llama` or `gpt_neox`.
        num_kv_heads: key-value heads (fewer than heads with grouped-query attention).
        tied: the head's weight is the embedding's.
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

    @property
    def block_params(self) -> int:
        """Weights of one block (linear maps only; norms are negligible)."""
        d, i = self.model_dim, self.intermediate_dim
        query, key_value = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = 2 * d * query + 2 * d * key_value
        return attention + (3 if self.family == "llama" else 2) * d * i

    @property
    def head_params(self) -> int:
        """Weights of the output head."""
        return self.vocab_size * self.model_dim

    @property
    def params(self) -> int:
        """All weights: blocks, embedding and head."""
        return self.num_blocks * self.block_params + self.head_params * (1 if self.tied else 2)


def _neox(size: str, blocks: int, dim: int, heads: int, vocab: int = 50304) -> dict[str, Any]:
    return {
        "source": f"EleutherAI/pythia-{size}",
        "family": "gpt_neox",
        "num_blocks": blocks,
        "model_dim": dim,
        "intermediate_dim": 4 * dim,
        "num_heads": heads,
        "num_kv_heads": heads,
        "vocab_size": vocab,
        "tied": False,
    }


def _llama2(suffix: str, blocks: int, dim: int, heads: int, intermediate: int) -> dict[str, Any]:
    return {
        "source": f"meta-llama/Llama-2-{suffix}-hf",
        "family": "llama",
        "num_blocks": blocks,
        "model_dim": dim,
        "intermediate_dim": intermediate,
        "num_heads": heads,
        "num_kv_heads": heads,
        "vocab_size": 32000,
        "tied": False,
    }


ALIASES: dict[str, dict[str, Any]] = {
    "llama2-13b": _llama2("13b", 40, 5120, 40, 13824),
    "llama2-7b": _llama2("7b", 32, 4096, 32, 11008),
    "llama2_chat-13b": _llama2("13b-chat", 40, 5120, 40, 13824),
    "llama2_chat-7b": _llama2("7b-chat", 32, 4096, 32, 11008),
    "pythia-12b": _neox("12b", 36, 5120, 40, 50688),
    "pythia-6.9b": _neox("6.9b", 32, 4096, 32, 50432),
    "pythia-2.8b": _neox("2.8b", 32, 2560, 32),
    "pythia-1.4b": _neox("1.4b", 24, 2048, 16),
    "pythia-1b": _neox("1b", 16, 2048, 8),
    "pythia-410m": _neox("410m", 24, 1024, 16),
    "pythia-160m": _neox("160m", 12, 768, 12),
    "pythia-70m": _neox("70m", 6, 512, 8),
}


def _plain(name: str) -> str:
    return re.sub(r"[ _-]+", "-", name.strip().lower())


_BY_PLAIN_NAME = {_plain(name): name for name in ALIASES}


def is_known_model(model: str) -> bool:
    """Say whether a name is an alias or a sample model, rather than a folder or a hub id."""
    return model in SAMPLE_MODELS or _plain(model) in _BY_PLAIN_NAME


@lru_cache(maxsize=256)
def model_card(model: str, revision: str = "main") -> ModelCard:
    """Say what a model name means.

    Args:
        model: alias (`pythia-6.9b`, `llama2_chat 7b`), `sample-llama`, `sample-neox`, hub id or folder.
        revision: of a hub model.

    Raises:
        ConfigError: no such alias or folder, or a model of another type.
        DataError: a folder whose `config.json` cannot be read.
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
    alias = _BY_PLAIN_NAME.get(_plain(model))
    if alias is not None:
        shape = dict(ALIASES[alias])
        head_dim = shape["model_dim"] // shape["num_heads"]
        return ModelCard(
            name=alias,
            key=f"{shape['source']}@{revision}",
            revision=revision,
            head_dim=head_dim,
            is_hub=True,
            **shape,
        )
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _folder_card(folder)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not folder.exists() and model[0] not in "./~":
        return _hub_card(model, revision)
    known = [*ALIASES, *SAMPLE_MODELS]
    raise ConfigError(
        f"model={model!r}: no such folder, alias or hub id{nearest(model, known)}; aliases: {', '.join(known)}"
    )


def _folder_card(folder: Path) -> ModelCard:
    from trainables.data.fingerprint import fingerprint_files

    config_file = folder / "config.json"
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    if not config_file.is_file() or not weights:
        missing = "config.json" if not config_file.is_file() else "*.safetensors or pytorch_model*.bin"
        raise ConfigError(f"model={str(folder)!r}: not a model folder, it has no {missing}")
    tokenizer = [p for n in ("tokenizer.json", "tokenizer.model") if (p := folder / n).is_file()]
    if not tokenizer:
        raise ConfigError(f"model={str(folder)!r}: not a model folder, it has no tokenizer.json or tokenizer.model")
    shape = _shape(config_file)
    key = f"{shape['family']}:{fingerprint_files([config_file, *weights, *tokenizer])[:16]}"
    return ModelCard(name=folder.resolve().name, key=key, source=str(folder.resolve()), revision="main", **shape)


def _hub_card(model: str, revision: str) -> ModelCard:
    from huggingface_hub import hf_hub_download

    try:
        config_file = Path(hf_hub_download(model, "config.json", revision=revision))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"model={model!r}: no such folder, and its config.json cannot be had from the hub ({first[:120]})"
        ) from None
    name = model.split("/")[-1]
    return ModelCard(
        name=name,
        key=f"{model}@{revision}",
        source=model,
        revision=revision,
        is_hub=True,
        **_shape(config_file),
    )


def _shape(config_file: Path) -> dict[str, Any]:
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        family = config["model_type"]
        if family not in FAMILIES:
            raise ConfigError(
                f"{config_file}: model_type {family!r} is not supported; Llama and GPT-NeoX type models are"
            )
        heads, dim = int(config["num_attention_heads"]), int(config["hidden_size"])
        return {
            "family": family,
            "num_blocks": int(config["num_hidden_layers"]),
            "model_dim": dim,
            "intermediate_dim": int(config["intermediate_size"]),
            "num_heads": heads,
            "num_kv_heads": int(config.get("num_key_value_heads") or heads),
            "head_dim": int(config.get("head_dim") or dim // heads),
            "vocab_size": int(config["vocab_size"]),
            "tied": bool(config.get("tie_word_embeddings", False)),
        }
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{config_file}: not a model configuration ({error})") from None
