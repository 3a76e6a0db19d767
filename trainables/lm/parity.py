"""What the whole model gives for two short texts: every part that is loaded alone is held against it.

Made once per node for each model, type of numbers, library version and kind of device, by the whole model as
`transformers` loads it, and kept with the node's cache. A trunk or an upper part is checked when it is first loaded
there, by a few short texts through it; what was found (the way in which it agrees) is kept beside.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.cut import find_blocks, load_part
from trainables.lm.placement import placement
from trainables.lm.token_tree import Batch, TokenTree, build_trees, collate
from trainables.lm.weight_budget import WeightBudget, model_bytes
from trainables.lm.weights import model_fingerprint
from trainables.node.cache_dir import cache_dir
from trainables.node.storage import write_bytes

logger = logging.getLogger(__name__)

LIMITS = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Largest difference from the whole model, relative to what it gives. (Equal parts came to 1e-6 in float32 and to 1e-2
in bfloat16; a wrong layer type of a small model to 4e-4 and more.)"""
SHARE = 0.8
"""Share of the tokens that must keep to the limit in 16 bits, where rounding sends a token to another expert now and
then (one of 38 in a tiny Granite). What is wrong in kind is wrong for the whole second text, or for its own part."""
_VERSION = "3"
_LONG, _SHARED, _TAIL = 24, 9, 12


@dataclass(frozen=True)
class Reference:
    """What the whole model gives for two texts that begin alike.

    Attributes:
        texts: their token ids.
        hidden: for each text the outputs of all blocks, `[blocks, tokens, model_dim]`.
        logits: for each text `[tokens, vocab]`.
        outputs: what a block returns: 0 for a tensor, else a tuple of so many.
    """

    texts: list[list[int]]
    hidden: list[Tensor]
    logits: list[Tensor]
    outputs: int

    def tree(self) -> tuple[Batch, list[int]]:
        """Return both texts as one tree, and its nodes in the order of the first text, then the second."""
        (tree,), ends = build_trees(self.texts, sum(map(len, self.texts)))
        return collate([tree]), [node for _, end in ends for node in tree.path(end)]

    def padded(self) -> Batch:
        """Return both texts as two rows."""
        return collate([TokenTree.chain(text) for text in self.texts])


def alike(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Say whether a part gives what the whole model gives, as far as its numbers can tell."""
    found, expected = found.float().cpu().nan_to_num(), expected.float().cpu().nan_to_num()
    if found.shape != expected.shape:
        return False
    if dtype == torch.float32:
        return bool((found - expected).norm() <= LIMITS[dtype] * expected.norm().clamp(min=1e-12))
    errors = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-12)
    return bool(errors.flatten().quantile(SHARE) <= LIMITS.get(dtype, LIMITS[torch.bfloat16]))


@lru_cache(maxsize=2)
def reference(
    card: ModelCard, dtype: torch.dtype, device: torch.device, budget: WeightBudget | None = None
) -> Reference:
    """Return what the whole model gives, from the node's cache or by loading it once.

    Args:
        card: the model.
        dtype: of its weights.
        device: where it runs.
        budget: asked for room before it is loaded.

    Raises:
        ConfigError: a model of another kind.
        DataError: weights that are missing or broken.
    """
    file = _folder(card, dtype, device) / "whole.safetensors"
    with ExitStack() as lock:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.enter_context(FileLock(f"{file}.lock"))
        except OSError as error:  # a cache that cannot be written: each process makes what is not there
            logger.warning("%s: not locked (%s)", file, error)
        held = _read(file)
        if held is None:
            if budget is not None:
                budget.make_room(model_bytes(card, dtype))
            held = _make(card, dtype, device)
            if device.type == "cuda":  # the memory is others' again, on a shared device other processes'
                gc.collect()
                torch.cuda.empty_cache()
            _write(file, held)
    return held


def kept_verdict(card: ModelCard, dtype: torch.dtype, device: torch.device, part: str) -> dict[str, Any] | None:
    """Return what an earlier check of a part found on this node; None where there was none.

    Args:
        card: the model.
        dtype: of the part.
        device: where it runs.
        part: which part of the model.
    """
    try:
        found = json.loads((_folder(card, dtype, device) / f"{part}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("way"), str) else None


def keep_verdict(
    card: ModelCard, dtype: torch.dtype, device: torch.device, part: str, verdict: Mapping[str, Any]
) -> None:
    """Keep what a check of a part found: the `way` in which it agrees, and what else the next load wants to know."""
    file = _folder(card, dtype, device) / f"{part}.json"
    try:
        write_bytes(str(file), json.dumps(dict(verdict), indent=1).encode())
    except OSError as error:
        logger.warning("%s: not kept (%s)", file, error)


def _folder(card: ModelCard, dtype: torch.dtype, device: torch.device) -> Path:
    libraries = f"torch{torch.__version__}_transformers{transformers.__version__}"
    name = f"v{_VERSION}_{str(dtype).removeprefix('torch.')}_{device.type}_{libraries}"
    return cache_dir() / "parity" / model_fingerprint(card) / name


def _texts(card: ModelCard) -> list[list[int]]:
    """Return two texts of any tokens: short, and within the positions the model has."""
    most = min(_LONG, card.positions or _LONG)
    shared = min(_SHARED, max(1, most - _TAIL))
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, card.vocab_size, (most + _TAIL,), generator=generator).tolist()
    first, other = ids[:most], ids[most:]
    if other[0] == first[shared % most]:
        other[0] = (other[0] + 1) % card.vocab_size
    return [first, [*first[:shared], *other[: max(1, most - shared)]]]


@torch.no_grad()
def _make(card: ModelCard, dtype: torch.dtype, device: torch.device) -> Reference:
    logger.info("%s: the whole model runs once, for its parts to be held against", card.name)
    model, _ = load_part(card, dtype, placement(card, dtype, device))
    _, _, blocks = find_blocks(model)
    texts, hidden, logits, returned = _texts(card), [], [], set()
    for text in texts:
        found, outputs = _outputs(model, blocks, torch.tensor([text], device=device))
        returned |= {len(output) if isinstance(output, tuple) else 0 for output in outputs}
        states = [output[0] if isinstance(output, tuple) else output for output in outputs]
        wanted = (1, len(text), card.model_dim)
        if any(state.shape != wanted for state in states) or len(states) != card.num_blocks:
            raise ConfigError(
                f"model={card.name!r}: a block of {type(model).__name__} gives {list(states[0].shape)} rather than one "
                f"hidden state a token, {list(wanted)}: there is no place for a memory; choose another model"
            )
        hidden.append(torch.stack([state[0].cpu() for state in states]))
        logits.append(found.logits[0].cpu())
    return Reference(texts, hidden, logits, max(returned))


def _outputs(model: Any, blocks: Any, tokens: Tensor) -> tuple[Any, list[Any]]:
    """Return what a model gives, and what each of its blocks gives on the way."""
    outputs: list[Any] = []
    handles = [block.register_forward_hook(lambda _, __, output: outputs.append(output)) for block in blocks]
    try:
        return model(input_ids=tokens, use_cache=False), outputs
    finally:
        for handle in handles:
            handle.remove()


def _read(file: Path) -> Reference | None:
    try:
        with safe_open(str(file), framework="pt") as held:
            found = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
        texts = [found[f"text_{at}"].tolist() for at in range(2)]
        return Reference(
            texts,
            [found[f"hidden_{at}"] for at in range(2)],
            [found[f"logits_{at}"] for at in range(2)],
            int(found["outputs"]),
        )
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError) as error:
        logger.warning("%s: made again (%s)", file, error)
        return None


def _write(file: Path, made: Reference) -> None:
    tensors = {"outputs": torch.tensor(made.outputs)}
    for at in range(2):
        tensors[f"text_{at}"] = torch.tensor(made.texts[at])
        tensors[f"hidden_{at}"], tensors[f"logits_{at}"] = made.hidden[at], made.logits[at].contiguous()
    unfinished = file.with_suffix(".tmp")
    try:
        save_file(tensors, str(unfinished))
        unfinished.replace(file)
    except (SafetensorError, OSError) as error:
        logger.warning("%s: not kept (%s)", file, error)
