"""Memories as an adapter: K of them at one block, in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from trainables.adapters.adapter import Findings, ModelParts, PackTexts
from trainables.adapters.memory.activations import ACTIVATIONS, MOST_CELLS, array_bytes, document_activations
from trainables.adapters.memory.bank import Memory, MemoryBank
from trainables.adapters.memory.document_leakage import document_leakage
from trainables.adapters.memory.entry_sets import EntrySet, EntrySets, member_masks
from trainables.adapters.memory.io import memory_bytes, read_memory
from trainables.adapters.memory.leakage import leakage
from trainables.adapters.memory.masked import ConfinedMemory, confined
from trainables.adapters.memory.plan import MEMORY_FILE, MemoryPlan
from trainables.adapters.memory.setting import ALLOCATIONS, SetSetting
from trainables.adapters.memory.stored_sets import StoredSets
from trainables.adapters.split import member_nll
from trainables.adapters.stacked import StackedAdapter
from trainables.adapters.training import StepLosses
from trainables.errors import ConfigError
from trainables.lm.batches import TextBatch
from trainables.lm.reference import WholeModel
from trainables.lm.texts import NO_DOCUMENT
from trainables.lm.token_tree import TokenTree


class MemoryAdapter(StackedAdapter[MemoryPlan]):
    """K memories (notes 000 to 002), with their entry sets, each with the optimiser of its own.

    Raises:
        ConfigError: fewer entries than groups of documents.
    """

    def __init__(self, plans: Sequence[MemoryPlan], parts: ModelParts, texts: PackTexts) -> None:
        """Build the bank and the optimiser."""
        first = plans[0]
        layer = parts.card.num_blocks - 1 if first.layer is None else first.layer
        super().__init__(plans, parts, texts, layer, first.micro_batch_tokens)
        self._entry_sets = parts.keep(
            "entry_sets",
            first.memory_dim,
            lambda: EntrySets(texts.segments, texts.num_documents, first.memory_dim),
        )
        self.sets: list[EntrySet | None] = [
            None if plan.allocation == "none" else self._entry_sets.of(plan.setting) for plan in plans
        ]
        self._hard = [s if plan.mode == "hard" else None for plan, s in zip(plans, self.sets, strict=True)]
        self._alphas = torch.tensor([plan.alpha for plan in plans], device=parts.device)
        seeds = [plan.seed for plan in plans]
        self.bank = MemoryBank(parts.card.model_dim, first.memory_dim, first.norm_and_gate, seeds, parts.device)
        self.train_these(self.bank)

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Add what the memories give; in hard mode, from the entries that a tree's document may use."""
        masks = member_masks(self._hard[who], documents, trees, self.parts.device)
        added, _ = self.bank(hidden, masks, who)
        states: Tensor = hidden + added
        return states

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train one epoch; `train/leakage` only for members that have an entry set."""
        return [
            {name: value for name, value in found.items() if name != "train/leakage" or own is not None}
            for found, own in zip(super().train_epoch(epoch), self.sets, strict=True)
        ]

    def stored(self, member: int) -> dict[str, bytes]:
        """Return the memory as a file that `load_memory` reads, in hard mode with its entry sets."""
        state, own = self.bank.member_state(member), self._hard[member]
        sets = None if own is None else StoredSets(own.allocation, own.groups, self.texts.titles())
        return {MEMORY_FILE: memory_bytes(state, layer=self.layer, model=self.parts.card.key, sets=sets)}

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        """Set a memory from its file."""
        self.bank.load_member_state(member, read_memory(files[MEMORY_FILE], MEMORY_FILE).memory.state_dict())

    def is_masked(self, member: int, document: int) -> bool:
        """Tell whether a member is confined to a document's entries: in hard mode, whatever the document."""
        return document != NO_DOCUMENT and self._hard[member] is not None

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Attach a copy of the memory to the whole model by a hook; masked where a document is named, in hard mode."""
        whole = self.parts.whole_model()
        memory, entry_set = self.bank.single(member).to(self.parts.device), self._hard[member]
        added: Memory | ConfinedMemory = memory
        if document not in (None, NO_DOCUMENT) and entry_set is not None:
            added = confined(memory, entry_set.allocation, entry_set.groups[document])
        with whole.with_memory(added, self.layer):
            yield whole

    def findings(self) -> list[Findings]:
        """Return leakage under each member's own set; a member without one, under every set it may be compared with.

        Those are every allocation by default settings, and the sets that its plan names.
        """
        metrics: list[dict[str, float]] = [{} for _ in self.plans]
        analyses: list[dict[str, object] | None] = [None] * self.num_members
        own = [k for k, entry_set in enumerate(self.sets) if entry_set is not None]
        for k, by_group in self._leakage(self.sets, own):
            entry_set = self.sets[k]
            assert entry_set is not None
            metrics[k]["memory/leakage"] = by_group[-1]
            analyses[k] = {
                **entry_set.described(),
                "leakage_by_group": {str(g): v for g, v in sorted(by_group.items()) if g >= 0},
            }
        asking: dict[str, list[int]] = {}
        for k in (k for k, entry_set in enumerate(self.sets) if entry_set is None):
            for name in dict.fromkeys((*ALLOCATIONS[1:], *self.plans[k].leakage_sets)):
                asking.setdefault(name, []).append(k)
        for name, members in asking.items():
            try:
                entry_set = self._entry_sets.of(SetSetting.named(name))
            except ConfigError:
                continue  # fewer entries than groups: there is no such allocation to leak under
            for k, by_group in self._leakage([entry_set] * self.num_members, members):
                metrics[k][f"memory/leakage_{name}"] = by_group[-1]
        files = self._activation_files()
        return [Findings(*each) for each in zip(metrics, analyses, files, strict=True)]

    def losses(self, batch: TextBatch, who: slice, step: TextBatch) -> StepLosses:
        """Return `LM loss + alpha * leakage` of some members on some texts of a step (note 002)."""
        hard = member_masks(self._hard[who], batch.documents, batch.trees, self.parts.device)
        added, activations = self.bank(batch.hidden[None], hard, who)
        nll = member_nll(self.upper, batch, batch.hidden[None] + added).sum(dim=1)
        leak = torch.zeros_like(nll)
        if any(entry_set is not None for entry_set in self.sets):
            allowed = member_masks(self.sets[who], batch.documents, batch.trees, self.parts.device)
            leak = leakage(activations, allowed).sum(dim=1)
        objective = nll / len(step.labels) + self._alphas[who] * (leak / len(step.hidden))
        return StepLosses(objective, nll, {"train/leakage": (leak, len(batch.hidden))})

    def _activation_files(self) -> list[dict[str, bytes]]:
        """Return each member's mean activations by document and entry, as a file."""
        if self.texts.num_documents * self.bank.memory_dim > MOST_CELLS:
            return [{} for _ in self.plans]
        means = document_activations(self.states.segments, self.bank, self.texts.num_documents, self.max_tokens)
        return [{ACTIVATIONS: array_bytes(member.numpy())} for member in means]

    def _leakage(
        self, sets: Sequence[EntrySet | None], members: Sequence[int]
    ) -> Iterator[tuple[int, dict[int, float]]]:
        """Yield the leakage by group of those members that are asked for."""
        if members:
            found = document_leakage(self.states.segments, self.bank, sets, self.max_tokens)
            yield from ((k, found[k]) for k in members)
