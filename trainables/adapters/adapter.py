"""The seam between a pack and what it trains: `Adapter`, what it is given, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.adapters.plan import AdapterPlan, TrainingPlan
from trainables.lm.card import ModelCard
from trainables.lm.hidden import HiddenStates
from trainables.lm.members import ModelMembers
from trainables.lm.reference import WholeModel
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.upper import Upper
from trainables.node.map_batches import MapBatches

T = TypeVar("T")
PlanT = TypeVar("PlanT", bound=AdapterPlan)
TrainingPlanT = TypeVar("TrainingPlanT", bound=TrainingPlan)


class ModelParts(Protocol):
    """What a process has of one frozen model, for an adapter to build on; loaded on demand, kept between packs.

    Attributes:
        card: the model.
        dtype: of its weights.
        device: where to compute.
        map_batches: where to compute what has to do with all documents and no model.
    """

    card: ModelCard
    dtype: torch.dtype
    device: torch.device
    map_batches: MapBatches

    def hidden_states(self) -> HiddenStates:
        """Return the source of hidden states."""

    def upper(self, layer: int) -> Upper:
        """Return the blocks above a layer, frozen, shared: never changed by an adapter."""

    def whole_model(self) -> WholeModel:
        """Return the whole model, frozen, shared: an adapter leaves it as it was."""

    def own_model(self) -> WholeModel:
        """Load a whole model that is the caller's own, to change as it likes."""

    def keep(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for the same model, texts and key if it was the latest of its kind, else make it."""

    def timing(self, part: str) -> AbstractContextManager[None]:
        """Count the time of a `with` block under a part's name."""


@dataclass(frozen=True)
class PackTexts:
    """The texts that all members of a pack share.

    Attributes:
        train: what is trained on; the same list as `segments` where only documents are.
        segments: the documents' segments, on which the memorisation error is evaluated.
        num_documents: documents there are, with or without text.
        prompts: what probes will read first; worth a place in the same trunk pass.
        trunk_layers: layers of the model that other packs will want; their hidden states are made along.
        titles: gives the documents' titles, in order, where a document has to be found again by its name.
    """

    train: Sequence[TrainingText]
    segments: Sequence[TrainingText]
    num_documents: int
    prompts: Sequence[TokenTree] = ()
    trunk_layers: tuple[int, ...] = ()
    titles: Callable[[], Sequence[str]] = tuple


@dataclass(frozen=True)
class MemberState:
    """Everything of one member that is needed to go on from an epoch's end, on the CPU.

    Attributes:
        weights: the trained parameters.
        optimiser: moments and step counts.
    """

    weights: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]


@dataclass(frozen=True)
class Findings:
    """What an adapter finds out about one of its members, beside the memorisation error.

    Attributes:
        metrics: by full name, `memory/leakage`.
        analysis: plain JSON values for `analysis.json`; None for no such file. The documents' `titles` are added.
        files: further files of the trial, by name.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    analysis: Mapping[str, Any] | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


class SomeMembers:
    """Some members of an adapter, as `ModelMembers`; the others are asked nothing where the adapter can leave them out.

    Args:
        adapter: all of them.
        members: which, ascending.
    """

    def __init__(self, adapter: Adapter[Any], members: Sequence[int]) -> None:
        """Keep both."""
        self._adapter, self._members = adapter, list(members)

    @property
    def num_members(self) -> int:
        """How many are asked."""
        return len(self._members)

    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next tokens (`ModelMembers`)."""
        with self._adapter.asking(self._members):
            return self._adapter.next_tokens(trees, documents, nodes)[self._members]

    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return each one's mean NLL over some texts (`ModelMembers`)."""
        with self._adapter.asking(self._members):
            found = self._adapter.nll(texts)
        return [found[member] for member in self._members]

    def text_nll(self, texts: Sequence[TrainingText]) -> NDArray[np.float64]:
        """Return each one's mean NLL of each text (`ModelMembers`)."""
        with self._adapter.asking(self._members):
            return self._adapter.text_nll(texts)[self._members]

    def is_masked(self, member: int, document: int) -> bool:
        """Tell whether one is confined to a document's entries (`ModelMembers`)."""
        return self._adapter.is_masked(self._members[member], document)

    def attached(self, member: int, document: int | None = None) -> AbstractContextManager[WholeModel]:
        """Return a context in which the whole model is one of them (`ModelMembers`)."""
        return self._adapter.attached(self._members[member], document)


class Adapter(ABC, Generic[PlanT]):
    """K members of a pack: what each trains, and the language models that come of it.

    This class is the contract; `tests/trainables/adapters/test_conformance.py` holds every adapter to it.

    - *Construction* draws initial values from each member's seed and changes no random state that another adapter
      could see; two adapters built from the same plans are bit for bit the same. Data, models and hidden states come
      from `parts`; nothing else is read. It may raise `ConfigError` (a plan at odds with the model or the texts).
    - *Members are apart.* Each one's weights, metrics and answers are those that it has alone, up to rounding, and
      one that diverges leaves the others alone. Where `plan.packs` is False there is one member only.
    - *Asking* (`next_tokens`, `nll`, `attached`, `findings`) follows `trainables.lm.members.ModelMembers`: it changes
      nothing. It is allowed at any epoch, before the first as well.
    - *Training* is a function of weights, optimiser and epoch number only: `load_state` of what `state` gave, in a
      new adapter of the same plans, goes on to the same result. On a GPU that takes gradients that are computed
      through `trainables.lm.repeatable.repeatably`.
    - *Running out of memory* raises `OutOfMemory` or torch's own error, after which the adapter is thrown away: the
      caller starts again from checkpoints with fewer members. Everything else that is raised is a bug.
    - *The shared frozen model* (`parts.upper`, `parts.whole_model`) is never changed beyond an `attached` context.
      What is trained belongs to the adapter, and goes when it goes.

    Attributes:
        plans: one per member.
        parts: the frozen model.
        texts: what the pack shares.
        active: False once a member has diverged: its loss was not a finite number. It is trained no further.
    """

    def __init__(self, plans: Sequence[PlanT], parts: ModelParts, texts: PackTexts) -> None:
        """Keep what is given, all members active."""
        self.plans, self.parts, self.texts = list(plans), parts, texts
        self.active = [True] * len(plans)

    @property
    def num_members(self) -> int:
        """K."""
        return len(self.plans)

    @property
    @abstractmethod
    def nll_before(self) -> float:
        """The memorisation error of the model as it comes."""

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train epoch number `epoch`, from 0; called only where `plan.trains`.

        Returns:
            For each member `train/nll` (mean over target tokens), `train/loss` and maybe more, all with `train/`:
            finite for active members. A member that diverged in this epoch is no longer active afterwards.
        """
        raise NotImplementedError(f"{type(self).__name__} trains nothing")

    def train_epochs(self, epochs: Sequence[int]) -> list[dict[str, float]]:
        """Train the members where they are at epochs of their own; called only where `plan.own_texts`.

        Args:
            epochs: the number of each member's epoch. A member's training depends on no other's.

        Returns:
            What `train_epoch` does.
        """
        raise NotImplementedError(f"{type(self).__name__}: members of one pack are at one epoch")

    def trained_params(self, member: int) -> int:
        """Return how many numbers a member trains."""
        return sum(value.numel() for value in self.state(member).weights.values())

    def train_flops(self, epochs: int, member: int = 0) -> float:
        """Return the FLOPs of a member's training so far: above 0 after one epoch."""
        return 0.0

    def counts(self) -> dict[str, int]:
        """Return what a record is to count of the way in which the pack ran, beside its texts."""
        return {}

    def state(self, member: int) -> MemberState:
        """Return copies of a member's weights and optimiser, for a checkpoint."""
        return MemberState({}, {})

    def load_state(self, member: int, state: MemberState) -> None:
        """Go on from what `state` gave; called before any training."""

    def stored(self, member: int) -> dict[str, bytes]:
        """Return the files that a finished member leaves beside its record, by name; none where nothing is kept.

        What they hold is what was trained: `load_stored` of them gives the same language model.
        """
        return {}

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        """Take a member's weights from what `stored` gave.

        Raises:
            DataError: files that are not of this adapter and shape.
        """

    def start(self, member: int, files: Mapping[str, bytes]) -> None:
        """Take over the weights that an earlier training has stored, before any of this one; its optimiser starts anew.

        Args:
            member: which.
            files: what `stored` gave there, of a training that `plan.check_start` has let pass.

        Raises:
            DataError: files that are not of this adapter and shape.
        """
        self.load_stored(member, files)

    def findings(self) -> list[Findings]:
        """Return what is worth noting about each member; metrics are finite for active ones.

        Within `asking`, that of the others may be anything.
        """
        return [Findings() for _ in self.plans]

    @abstractmethod
    def next_tokens(
        self, trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        """Return the most likely next token at nodes of trees, `[K, nodes in all]` (`ModelMembers`)."""

    @abstractmethod
    def nll(self, texts: Sequence[TrainingText]) -> list[float]:
        """Return each member's mean NLL over the target tokens of some texts (`ModelMembers`)."""

    def text_nll(self, texts: Sequence[TrainingText]) -> NDArray[np.float64]:
        """Return each member's mean NLL over the target tokens of each text, `[K, texts]` (`ModelMembers`)."""
        found = np.zeros((self.num_members, len(texts)))
        for place, text in enumerate(texts):
            found[:, place] = self.nll([text])
        return found

    def asking(self, members: Sequence[int]) -> AbstractContextManager[None]:
        """Return a context in which some members' answers alone matter, ascending; the others' may be anything."""
        return nullcontext()

    def some(self, members: Sequence[int]) -> ModelMembers:
        """Return some of the members, to be asked alone."""
        return self if len(members) == self.num_members else SomeMembers(self, members)

    def is_masked(self, member: int, document: int) -> bool:
        """Tell whether a member is confined to a document's entries (`ModelMembers`)."""
        return False

    @abstractmethod
    def attached(self, member: int, document: int | None = None) -> AbstractContextManager[WholeModel]:
        """Return a context in which the whole model is that member (`ModelMembers`)."""
