"""What would go wrong with a model, found on the driver in seconds: from headers and indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from trainables.errors import ConfigError, DataError
from trainables.lm.card import ModelCard
from trainables.lm.config_shape import is_lfs_pointer, read_config
from trainables.lm.cut import causal_class, first_line
from trainables.lm.cut import config_of as transformers_config
from trainables.lm.download import folder_here
from trainables.lm.folder_identity import tokenizer_files, weight_files
from trainables.lm.tokens import encode, end_tokens, load_tokenizer
from trainables.lm.weight_headers import tensors_of
from trainables.lm.weights import quiet_transformers

_ADAPTER = re.compile(r"\.(base_layer|lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|modules_to_save)\b")
_BUFFER = re.compile(
    r"\.(attn|attention|self_attn|self_attention)\.(bias|masked_bias)$|rotary_emb\.|inv_freq$|_proj_scale$"
)
_BLOCK = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


def check_models(cards: Iterable[ModelCard]) -> list[str]:
    """Refuse models that could not be loaded whole, or not as their files mean it.

    Models of the hub are checked where this machine has them already.

    Args:
        cards: the models of a sweep; equal ones are checked once.

    Returns:
        Notes on what is odd and does not matter to the result.

    Raises:
        ConfigError: a model of a kind that cannot be used.
        DataError: a file or tensor that is missing, broken or of the wrong shape; it is named.
    """
    notes: list[str] = []
    for card in {card.key: card for card in cards}.values():
        folder = _folder_here(card)
        if folder is not None:
            notes += check_folder(card, folder)
    return notes


def _folder_here(card: ModelCard) -> Path | None:
    """Return a model's folder if this machine has its weights; None for sample models, which are made."""
    if card.is_sample:
        return None
    if not card.is_hub:
        return Path(card.source)
    return folder_here(card)


def check_folder(card: ModelCard, folder: Path) -> list[str]:
    """Check one model; arguments and errors as for `check_models`."""
    for file in [*tokenizer_files(folder), folder / "tokenizer_config.json", folder / "generation_config.json"]:
        if is_lfs_pointer(file):
            raise DataError(f"{file}: a Git LFS pointer, not the file itself; run `git lfs pull` in its folder")
    stated = read_config(folder / "config.json")
    if stated.get("quantization_config"):
        raise ConfigError(
            f"{folder / 'config.json'}: quantised weights ({stated['quantization_config'].get('quant_method')}); "
            "memories are trained on weights in float32 or bfloat16: name the model without quantisation"
        )
    if "auto_map" in stated and "model_type" not in stated:
        raise ConfigError(f"{folder / 'config.json'}: code of its own is needed, which is not run; choose another")
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{folder / 'adapter_config.json'}: an adapter beside a whole model, which transformers would add to it; "
            "merge it (peft: `merge_and_unload()`) and save the model alone, or take the adapter's files away"
        )
    tensors, places = tensors_of(folder)
    adapted = next((name for name in tensors if _ADAPTER.search(name)), None)
    if adapted is not None:
        raise DataError(
            f"{places[adapted]}: tensor {adapted!r} belongs to an adapter that was not merged; merge it (peft: "
            "`merge_and_unload()`) and save the model again"
        )
    notes = _check_names(card, folder, tensors, places)
    _check_tokenizer(card, folder)
    return notes


def _check_names(card: ModelCard, folder: Path, tensors: Mapping[str, Tensor], places: Mapping[str, Path]) -> list[str]:
    """Ask `transformers` what it would do with tensors of these names and shapes."""
    config = transformers_config(card)
    whole = weight_files(folder)[0]
    try:
        with quiet_transformers():
            _, told = causal_class(config).from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                device_map={"": "meta"},
            )
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{whole}: does not fit config.json ({first_line(error)})") from None
    if told["missing_keys"]:
        name, more = min(told["missing_keys"]), len(told["missing_keys"]) - 1
        raise DataError(
            f"{whole}: no tensor {name!r}" + (f" (nor {more} others)" if more else "") + ", which config.json wants; "
            "the files are incomplete, or config.json belongs to another model"
        )
    if told["mismatched_keys"]:
        name, found, wanted = min(told["mismatched_keys"], key=lambda key: str(key[0]))
        raise DataError(
            f"{places.get(name, whole)}: tensor {name!r} is {list(found)}, config.json wants {list(wanted)}; "
            "it belongs to another model"
        )
    extra = sorted(name for name in told["unexpected_keys"] if not _BUFFER.search(name))
    ahead = stated_ahead(config)
    for name in extra:
        block = _BLOCK.search(f".{name}")
        if block and name.endswith((".weight", ".bias")) and int(block[1]) not in ahead:
            raise DataError(
                f"{places.get(name, whole)}: tensor {name!r} has no place in the model that config.json describes; "
                "config.json belongs to another model"
            )
    if not extra:
        return []
    return [f"{card.name}: {len(extra)} tensors of its files are not used by the language model, such as {extra[0]!r}"]


def stated_ahead(config: Any) -> range:
    """Return the indices of blocks that predict further tokens, which `transformers` leaves out (DeepSeek, GLM)."""
    count = int(
        getattr(config, "num_nextn_predict_layers", None) or getattr(config, "mtp_num_hidden_layers", None) or 0
    )
    return range(config.num_hidden_layers, config.num_hidden_layers + count)


def _check_tokenizer(card: ModelCard, folder: Path) -> None:
    try:
        with quiet_transformers():
            tokenizer = load_tokenizer(card)
        encode(tokenizer, "a")
        end_tokens(tokenizer)
    except DataError:
        raise
    except Exception as error:  # each kind of tokenizer has errors of its own for files that are broken
        raise DataError(f"{folder}: its tokenizer cannot be loaded ({first_line(error)})") from None
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    vocabulary.pop(tokenizer.pad_token or "", None)  # often added last, and in no text
    token = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[token] >= card.vocab_size:
        raise DataError(
            f"{folder}: its tokenizer has ids up to {vocabulary[token]} ({token!r}), its embedding {card.vocab_size} "
            "rows; the tokenizer belongs to another model, or the embedding was not resized"
        )
