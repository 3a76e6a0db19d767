"""Memories as an adapter: K of them, each at a block, in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from trainables.adapters.adapter import Findings, ModelParts, PackTexts
from trainables.adapters.memory.activations import ACTIVATIONS, MOST_CELLS, array_bytes, document_activations
from trainables.adapters.memory.bank import Memory, MemoryBank
from trainables.adapters.memory.document_leakage import document_leakage
from trainables.adapters.memory.entry_sets import EntrySet, EntrySets, member_masks, own_masks
from trainables.adapters.memory.io import memory_bytes, read_memory
from trainables.adapters.memory.leakage import leakage
from trainables.adapters.memory.masked import ConfinedMemory, confined
from trainables.adapters.memory.plan import MEMORY_FILE, MemoryPlan
from trainables.adapters.memory.setting import ALLOCATIONS, SetSetting
from trainables.adapters.memory.stored_sets import StoredSets
from trainables.adapters.own_texts import OwnStep, OwnTexts
from trainables.adapters.passes import trained_nll
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
        first, sizes = plans[0], [plan.memory_dim for plan in plans]
        layers = [plan.trunk_layer(parts.card) for plan in plans]
        super().__init__(plans, parts, texts, layers, first.micro_batch_tokens)
        self._entry_sets = parts.keep(
            "entry_sets", None, lambda: EntrySets(texts.segments, texts.num_documents, parts.map_batches)
        )
        self._entry_sets.keep_only(sizes)
        self.sets: list[EntrySet | None] = [
            None if plan.allocation == "none" else self._entry_sets.of(plan.setting, plan.memory_dim) for plan in plans
        ]
        self._hard = [s if plan.mode == "hard" else None for plan, s in zip(plans, self.sets, strict=True)]
        self._alphas = torch.tensor([plan.alpha for plan in plans], device=parts.device)
        seeds = [plan.seed for plan in plans]
        norms = [plan.norm_and_gate for plan in plans]
        self.bank = MemoryBank(parts.card.model_dim, sizes, norms, seeds, parts.device, first.memory_precision)
        self.train_these(self.bank)

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Add what the memories give; in hard mode, from the entries that a tree's document may use."""
        masks = member_masks(self._hard[who], documents, trees, self.parts.device, self.bank.memory_dim)
        added, _ = self.bank(hidden, masks, who)
        states: Tensor = hidden + added
        return states

    def train_epochs(self, epochs: Sequence[int]) -> list[dict[str, float]]:
        """Train one epoch of each member; `train/leakage` only for those that have an entry set."""
        return [
            {name: value for name, value in found.items() if name != "train/leakage" or own is not None}
            for found, own in zip(super().train_epochs(epochs), self.sets, strict=True)
        ]

    def stored(self, member: int) -> dict[str, bytes]:
        """Return the memory as a file that `load_memory` reads, in hard mode with its entry sets."""
        state, own = self.bank.member_state(member), self._hard[member]
        sets = None if own is None else StoredSets(own.allocation, own.groups, self.texts.titles())
        layer, key, precision = self.layers[member], self.parts.card.key, self.bank.precision
        return {MEMORY_FILE: memory_bytes(state, layer=layer, model=key, sets=sets, precision=precision)}

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
        with whole.with_memory(added, self.layers[member]):
            yield whole

    def findings(self) -> list[Findings]:
        """Return leakage under each member's own set; a member without one, under every set it may be compared with.

        Those are every allocation by default settings, and the sets that its plan names.
        """
        metrics: list[dict[str, float]] = [{} for _ in self.plans]
        analyses: list[dict[str, object] | None] = [None] * self.num_members
        asked = self.asked
        sets = [self._leaks_under(k) if k in asked else {} for k in range(self.num_members)]
        seen = self.passes(self.segments)
        for k, found in enumerate(document_leakage(seen, self.bank, sets)):
            metrics[k] = {name: by_group[-1] for name, by_group in found.items()}
            entry_set = self.sets[k]
            if entry_set is not None and found:
                by_group = found["memory/leakage"]
                analyses[k] = {
                    **entry_set.described(),
                    "leakage_by_group": {str(g): v for g, v in sorted(by_group.items()) if g >= 0},
                }
        files = self._activation_files()
        return [Findings(*each) for each in zip(metrics, analyses, files, strict=True)]

    def losses(self, batch: TextBatch, who: slice, step: TextBatch) -> StepLosses:
        """Return `LM loss + alpha * leakage` of some members on some texts of a step (note 002)."""
        told = batch.documents, batch.trees, self.parts.device, self.bank.memory_dim
        added, activations = self.bank(batch.hidden[None], member_masks(self._hard[who], *told), who)
        nll = trained_nll(self.upper, batch, batch.hidden[None] + added).sum(dim=1)
        leak = torch.zeros_like(nll)
        if any(entry_set is not None for entry_set in self.sets):
            leak = leakage(activations, member_masks(self.sets[who], *told)).sum(dim=1)
        objective = nll / len(step.labels) + self._alphas[who] * (leak / len(step.hidden))
        return StepLosses(objective, nll, {"train/leakage": (leak, len(batch.hidden))})

    def own_losses(self, own: OwnTexts, who: slice, step: OwnStep) -> StepLosses:
        """Return the same where each member has texts of its own."""
        width = self.bank.memory_dim
        added, activations = self.bank(own.hidden, own_masks(self._hard[who], own, width), who)
        nll = own.nll(self.upper, own.hidden + added)
        leak = torch.zeros_like(nll)
        if any(entry_set is not None for entry_set in self.sets):
            leak = leakage(activations, own_masks(self.sets[who], own, width)).sum(dim=1)
        objective = nll / step.targets[who] + self._alphas[who] * (leak / step.tokens[who])
        return StepLosses(objective, nll, {"train/leakage": (leak, len(own.batches[0].hidden))})

    def _leaks_under(self, member: int) -> dict[str, EntrySet]:
        """Return the entry sets under which a member's leakage is measured, by the names of the metrics."""
        own, plan = self.sets[member], self.plans[member]
        if own is not None:
            return {"memory/leakage": own}
        found = {}
        for name in dict.fromkeys((*ALLOCATIONS[1:], *plan.leakage_sets)):
            with suppress(ConfigError):  # fewer entries than groups: there is no such allocation to leak under
                found[f"memory/leakage_{name}"] = self._entry_sets.of(SetSetting.named(name), plan.memory_dim)
        return found

    def _activation_files(self) -> list[dict[str, bytes]]:
        """Return each member's mean activations by document and entry, as a file."""
        documents, asked, sizes = self.texts.num_documents, self.asked, self.bank.memory_dims
        kept = [size if k in asked and documents * size <= MOST_CELLS else 0 for k, size in enumerate(sizes)]
        if not any(kept):
            return [{} for _ in self.plans]
        seen = self.passes(self.segments)
        means = document_activations(seen, self.bank, documents, max(kept))
        return [
            {ACTIVATIONS: array_bytes(member[:, :size].numpy())} if size else {}
            for member, size in zip(means, kept, strict=True)
        ]
