"""What planning needs to know of an adapter: settings, FLOPs, bytes. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.lm.pass_sizes import block_numbers, head_bytes
from trainables.registry import PluginPlan

if TYPE_CHECKING:
    from trainables.adapters.adapter import Adapter

TRAINED_PARAMETER_BYTES = 16
"""Value, gradient and AdamW's two moments, float32 each."""


@dataclass(frozen=True, kw_only=True)
class AdapterPlan(PluginPlan, ABC):
    """An adapter with its settings, before anything is loaded.

    To add an adapter: one file with a subclass of this and one of `trainables.adapters.adapter.Adapter` (two files,
    where the second's imports would slow planning down), the plan's name in `trainables.adapters.registry`, and its
    settings in the list of `tests/trainables/adapters/test_conformance.py`.

    Counted are the multiplications with weights, two FLOPs each; attention scores and norms are left out.

    Attributes:
        name: the trial field `method` that means it.
        packs: whether members of one pack may share forward passes; else each trial is a run of its own. Members of
            a pack agree in all fields that are not marked as free within a pack.
        unequal: those of the fields marked so that only some adapters leave free, and this one does.
        own_texts: whether a step may give each member texts of its own, so that members may be at different epochs:
            a trial can take the place of one that has left its pack. Needed where seeds are free.
        trains: whether there are epochs at all.
        has_error: whether a memorisation error is measured; else only what the adapter finds, and what it is asked.
        files: what a finished training leaves of its weights beside its record, by name.
        starts: the methods whose stored weights it can start from, each with the fields that must then be the same.
    """

    packs: ClassVar[bool]
    unequal: ClassVar[tuple[str, ...]] = ()
    own_texts: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    has_error: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ()
    starts: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @abstractmethod
    def trunk_layer(self, card: ModelCard) -> int | None:
        """Return the block up to which the model stays as it is, so that its output can be kept; None for nowhere."""

    @abstractmethod
    def train_token_flops(self, card: ModelCard) -> float:
        """Return the FLOPs of training on one token: forward and backward, that of the trunk left out."""

    def train_flops(self, card: ModelCard, tokens: float, texts: float) -> float:
        """Return the FLOPs of training on so many tokens in so many texts, once."""
        return self.train_token_flops(card) * tokens

    @property
    def added_tokens(self) -> int:
        """Positions that come before every text, of those that the model has."""
        return 0

    def check(self, card: ModelCard) -> None:
        """Refuse settings at odds with a model, on the driver, before anything starts; torch may be imported.

        Raises:
            ConfigError: names the field and what to do.
        """

    def check_start(self, earlier: AdapterPlan) -> None:
        """Refuse to start from the weights of an earlier training that do not fit.

        Raises:
            ConfigError: another method than those of `starts`, or another shape.
        """
        if earlier.name not in self.starts:
            told = f"only from those of {' or '.join(self.starts)}" if self.starts else "nor from any others"
            raise ConfigError(f"method={self.name}: cannot start from the weights of a {earlier.name}, {told}")
        for name in self.starts[earlier.name]:
            own, other = getattr(self, name), getattr(earlier, name)
            if own != other:
                raise ConfigError(f"{name}={own}: the weights to start from are of {name}={other}; set it to that")

    def added_params(self, card: ModelCard) -> int:
        """Return the parameters that come on top of the model's, in every forward pass."""
        return 0

    @property
    def begins_as(self) -> Hashable | None:
        """What a member's forward pass depends on before it is trained, besides model and texts.

        Members of which this is equal have one error then, measured once; of None it is measured for each.
        """
        return None

    def stored_params(self, card: ModelCard) -> int:
        """Return the parameters that are stored with a trial's record, float32."""
        return self.added_params(card)

    def trial_blocks(self, card: ModelCard) -> int:
        """Return the blocks that run in each trial again, rather than once in the trunk."""
        layer = self.trunk_layer(card)
        return card.num_blocks if layer is None else card.num_blocks - 1 - layer

    @property
    def own_precision(self) -> str:
        """How the products of the adapter's own weights are computed, whatever the frozen model's numbers are."""
        return "float32"

    def own_token_flops(self, card: ModelCard) -> float:
        """Return what of `train_token_flops` the products of the adapter's own weights are."""
        return 6.0 * self.added_params(card)

    def weight_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes of the model's weights that are held while it is trained: blocks above the trunk, and head.

        Args:
            card: the model.
            number_bytes: of one of the frozen model's numbers.
        """
        return number_bytes * (card.block_params * self.trial_blocks(card) + card.head_params)

    def member_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes of what one member trains: values, gradients and moments."""
        return float(self.added_params(card) * TRAINED_PARAMETER_BYTES)

    def token_bytes(self, card: ModelCard, number_bytes: int) -> float:
        """Return the bytes that a pass forward and backward takes for each token of a member, the head left out."""
        return float(number_bytes * self.trial_blocks(card) * block_numbers(card))

    def head_pass_bytes(self, card: ModelCard, number_bytes: int, tokens: float, on_gpu: bool) -> float:
        """Return the bytes that the loss of so many tokens takes."""
        return head_bytes(card, number_bytes, tokens, on_gpu)

    def metrics(self) -> tuple[str, ...]:
        """Return the full names of the metrics that the adapter itself reports, as `train/nll`.

        Only what is named here may decide between stages or steer a sampler.
        """
        return ()

    @classmethod
    def words(cls, identity: Mapping[str, Any]) -> list[str]:
        """Return a few short words that tell this trial from its neighbours, for the names of runs.

        Args:
            identity: of the trial, as a record holds it.
        """
        return [cls.name]

    @classmethod
    @abstractmethod
    def load(cls) -> type[Adapter[Any]]:
        """Import and return the adapter itself, in a worker."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(AdapterPlan):
    """What every adapter that is trained is set to.

    Attributes:
        epochs: passes over the texts.
        batch_size: texts a step.
        lr: peak learning rate.
        weight_decay: decoupled.
        warmup_steps: of the cosine schedule.
        grad_clip: largest gradient norm.
        seed: of initial values and of the order of texts.
        epoch_order: how the texts of an epoch are ordered (`trainables.lm.batches.epoch_order`).
        micro_batch_tokens: tokens, over all members, in one forward pass.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_steps: int
    grad_clip: float
    seed: int
    epoch_order: str = "shuffled"
    micro_batch_tokens: int

    def metrics(self) -> tuple[str, ...]:
        """Return what is reported after each epoch."""
        return ("train/nll", "train/loss")
