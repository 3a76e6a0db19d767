"""A tuned prompt as an adapter: peft's prompt tuning, one member at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from trainables.adapters.adapter import ModelParts, PackTexts
from trainables.adapters.prompt.model import PromptedModel
from trainables.adapters.prompt.plan import PromptPlan
from trainables.adapters.shapes import check_same
from trainables.adapters.whole import TrainedWholeModel
from trainables.errors import ConfigError, DataError
from trainables.lm.reference import WholeModel

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_NAME = "prompt_embeddings"
"""As peft names it."""


class PromptAdapter(TrainedWholeModel[PromptPlan]):
    """Vectors before every text; the model's weights stay as they are.

    Raises:
        ConfigError: the vectors leave too few positions for a text.

    Attributes:
        model_type: what puts the vectors before the model.
        what: the vectors, for messages.
    """

    model_type: ClassVar[type[PromptedModel]] = PromptedModel
    what: ClassVar[str] = "vectors of a prompt"

    def __init__(self, plans: Sequence[PromptPlan], parts: ModelParts, texts: PackTexts) -> None:
        """Put the vectors before the shared model."""
        (plan,) = plans
        whole, card = parts.whole_model(), parts.card
        longest = _longest(texts)
        if card.positions is not None and longest + plan.virtual_tokens > card.positions:
            raise ConfigError(
                f"virtual_tokens={plan.virtual_tokens}: with a text of {longest} tokens more than the {card.positions} "
                f"that {card.name} takes; lower virtual_tokens, segment_tokens or num_shots"
            )
        super().__init__(plans, parts, texts, whole, plan.batch_size)
        self._prompted = self.model_type(whole, card, plan.virtual_tokens, plan.seed)
        self.whole = self._prompted
        self.train_these({_NAME: self._prompted.vectors})

    def train_flops(self, epochs: int, member: int = 0) -> float:
        """Count the texts and the vectors before each of them."""
        train = self.texts.train
        tokens = sum(len(text.tree) for text in train)
        return self.plans[0].train_flops(self.parts.card, tokens, len(train)) * epochs

    def stored(self, member: int) -> dict[str, bytes]:
        """Return the vectors as files that peft reads."""
        card = self.parts.card
        described = self._prompted.config.to_dict() | {
            "inference_mode": True, "base_model_name_or_path": card.source or card.name
        }  # fmt: skip
        config = json.dumps(described, indent=2, sort_keys=True).encode()
        return {WEIGHTS: save(dict(self.state(member).weights), {"format": "pt"}), CONFIG: config}

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        """Set the vectors from their files."""
        try:
            found = load(files[WEIGHTS])
        except (KeyError, SafetensorError, RuntimeError, ValueError) as error:
            raise DataError(f"{WEIGHTS}: missing or not readable ({error}); train the trial again") from None
        own = self._prompted.vectors.detach()
        check_same({name: value.to(own.device) for name, value in found.items()}, {_NAME: own}, self.what)
        with torch.no_grad():
            self._prompted.vectors.copy_(found[_NAME])

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Return the model behind its vectors."""
        yield self._prompted


def _longest(texts: PackTexts) -> int:
    """Return the tokens of the longest text or prompt."""
    trees = [*(text.tree for text in (*texts.train, *texts.segments)), *texts.prompts]
    return max(int(tree.positions.max()) for tree in trees) + 1
