"""Guided memories as an adapter: K of them at one block, every text under its own key and a wrong one in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trainables.adapters.adapter import Findings, ModelParts, PackTexts
from trainables.adapters.docguidance.keys import document_keys, negative_keys
from trainables.adapters.docguidance.plan import DocGuidancePlan
from trainables.adapters.docguidance.stacks import GuidedStacks
from trainables.adapters.memory.activations import ACTIVATIONS, MOST_CELLS, array_bytes
from trainables.adapters.passes import passes, trained_nll
from trainables.adapters.stacked import StackedAdapter
from trainables.adapters.training import StepLosses
from trainables.errors import DataError
from trainables.lm.batches import TextBatch
from trainables.lm.reference import WholeModel
from trainables.lm.texts import NO_DOCUMENT
from trainables.lm.token_tree import TokenTree
from trainables.lm.tokens import load_tokenizer
from trainables.lm.transfer import sent

STORED = "docguidance.safetensors"
MOST_WORDS = 10
"""Words told of a document."""
EVALUATED = 2**31
"""Stands for the epoch when the error under wrong keys is evaluated: the same keys every time."""


class DocGuidanceAdapter(StackedAdapter[DocGuidancePlan]):
    """K memories whose entries the documents' vectors open, with guidance (arXiv 2406.15996).

    Asked about a document, a member uses that document's key; free text has the zero key (ours).
    """

    def __init__(self, plans: Sequence[DocGuidancePlan], parts: ModelParts, texts: PackTexts) -> None:
        """Draw keys and members."""
        first = plans[0]
        first.check_documents(texts.num_documents)
        super().__init__(plans, parts, texts, [first.layer] * len(plans), first.micro_batch_tokens)
        self._drawn_keys = document_keys(texts.num_documents, first.key_dim, first.seed)
        self.keys = self._drawn_keys.to(parts.device)
        seeds = [plan.seed for plan in plans]
        sizes = (parts.card.model_dim, first.memory_dim, first.key_dim, first.activation)
        self.guided = GuidedStacks(*sizes, seeds, parts.device)
        self._alphas = torch.tensor([plan.guidance_alpha for plan in plans], device=parts.device)
        self._targets = torch.tensor([plan.guidance_target for plan in plans], device=parts.device)
        self._epoch = 0
        self.train_these(self.guided)
        self.training.micro_batch_tokens = max(1, first.micro_batch_tokens // 2)  # each text is two rows

    def changed(self, hidden: Tensor, documents: Sequence[int], trees: Sequence[TokenTree], who: slice) -> Tensor:
        """Add what the memories give under the documents' keys."""
        return self._under([self._keys_of(documents)], hidden, [len(tree) for tree in trees], who)

    def _keys_of(self, documents: Sequence[int]) -> Tensor:
        """Return the documents' keys, `[n, key_dim]`; the zero key for what is about none."""
        about = sent(documents, self.keys.device)
        own = self.keys.index_select(0, about.clamp(min=0))
        return own.masked_fill((about == NO_DOCUMENT)[:, None], 0.0)

    def _under(self, keys: Sequence[Tensor], hidden: Tensor, lengths: Sequence[int], who: slice) -> Tensor:
        """Return the states under several keys for each text.

        Args:
            keys: `[texts, key_dim]` each.
            hidden: `[1, nodes of all texts, model_dim]`.
            lengths: nodes of each text.
            who: which members.

        Returns:
            `[keys * members, nodes, model_dim]`.
        """
        active = self.guided.activations(hidden, who)
        of_token = sent(np.repeat(np.arange(len(lengths)), lengths), hidden.device)
        gates = (self.guided.gates(each, who).index_select(1, of_token) for each in keys)
        return torch.cat([hidden + self.guided.added(active * gate, who).to(hidden.dtype) for gate in gates])

    def train_epoch(self, epoch: int) -> list[dict[str, float]]:
        """Train one epoch, each text under another wrong key than before."""
        self._epoch = epoch
        return super().train_epoch(epoch)

    def losses(self, batch: TextBatch, who: slice, step: TextBatch) -> StepLosses:
        """Return `CE+ + alpha * min((CE- - t)^2, CE+)`, where CE- is the same text under a wrong key.

        The guidance is taken text by text, weighted by their target tokens (ours), so that a step may be cut.
        """
        own, wrong = self._errors(batch, who, self._epoch)
        counts = sent([text.num_targets for text in batch.texts], own.device)
        guidance = torch.minimum((wrong / counts - self._targets[who, None]).square(), own / counts)
        nll = own.sum(dim=1)
        objective = (nll + self._alphas[who] * (guidance * counts).sum(dim=1)) / len(step.labels)
        return StepLosses(objective, nll, {"train/nll_negative": (wrong.sum(dim=1), len(batch.labels))})

    def _errors(self, batch: TextBatch, who: slice, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the NLL of each text under its own and under a wrong key, summed over targets, `[members, texts]`."""
        plan = self.plans[0]
        wrong = negative_keys(batch.texts, self._drawn_keys, plan.negatives, plan.seed, epoch)
        keys = [self._keys_of(batch.documents), sent(wrong, self.keys.device)]
        states = self._under(keys, batch.hidden[None], batch.lengths, who)
        nll = trained_nll(self.upper, batch, states)
        counts = [text.num_targets for text in batch.texts]
        of_text = sent(np.repeat(np.arange(len(counts)), counts), nll.device)
        sums = nll.new_zeros(len(nll), len(batch.texts)).index_add(1, of_text, nll)
        own_sums, wrong_sums = sums.chunk(2)
        return own_sums, wrong_sums

    def train_flops(self, epochs: int, member: int = 0) -> float:
        """Count every text under both keys."""
        return 2 * super().train_flops(epochs, member)

    def stored(self, member: int) -> dict[str, bytes]:
        """Return the memory and the documents' keys as a file."""
        plan = self.plans[member]
        texts = {
            "format": "memory-sweep-docguidance/1", "layer": str(self.layer), "model": self.parts.card.key,
            "activation": plan.activation,
        }  # fmt: skip
        return {STORED: save({**self.guided.member_state(member), "keys": self.keys.cpu()}, texts)}

    def load_stored(self, member: int, files: Mapping[str, bytes]) -> None:
        """Set a memory from its file; the keys follow from the seed."""
        state, keys = _read(files)
        if keys is None or keys.shape != self.keys.shape or not torch.equal(keys, self.keys.cpu()):
            raise DataError(f"{STORED}: its document vectors are others")
        self.guided.load_member_state(member, state)

    def start(self, member: int, files: Mapping[str, bytes]) -> None:
        """Take over a memory, also of more or fewer documents: the same seed gives the first ones the same keys."""
        self.guided.load_member_state(member, _read(files)[0])

    def is_masked(self, member: int, document: int) -> bool:
        """Tell that a member asked about a document has that document's key."""
        return document != NO_DOCUMENT

    @contextmanager
    def attached(self, member: int, document: int | None = None) -> Iterator[WholeModel]:
        """Attach a copy of the memory to the whole model by a hook, under a document's key or the zero key."""
        whole = self.parts.whole_model()
        memory = self.guided.single(member).to(self.parts.device)
        key = self._keys_of([NO_DOCUMENT if document is None else document])[0]
        with whole.with_memory(lambda hidden: memory(hidden, key), self.layer):
            yield whole

    @torch.no_grad()
    def findings(self) -> list[Findings]:
        """Return the error under wrong keys, what documents open which entries, and the words that this promotes."""
        batches, count = self.segments(self.layer), self.num_members
        total = torch.zeros(count, dtype=torch.float64)
        for part, who in passes(batches, count, max(1, self.max_tokens // 2)):
            total[who] += self._errors(part, who, EVALUATED)[1].double().sum(dim=1).cpu()
        gates = self.guided.gates(self.keys)
        words = self._words(gates)
        means = None if gates[0].numel() > MOST_CELLS else self._mean_activations(gates)
        return [
            Findings(
                {"memory/nll_negative": float(total[k] / batches.num_targets)},
                {"promoted_words": words[k]},
                {} if means is None else {ACTIVATIONS: array_bytes(means[k].numpy())},
            )
            for k in range(count)
        ]

    def _words(self, gates: Tensor) -> list[list[list[str]]]:
        """Return, for each member and document, the words that its open entries promote most (the logit lens).

        What they would add if each were fully active goes through the output head, without the final norm (ours).
        """
        tokenizer = load_tokenizer(self.parts.card)
        added = self.guided.added(gates).to(self.upper.head_weight.dtype)
        best = self.upper.logits(added).topk(min(MOST_WORDS, len(self.upper.head_weight)), dim=-1).indices.tolist()
        return [[[tokenizer.decode([token]) for token in row] for row in member] for member in best]

    def _mean_activations(self, gates: Tensor) -> Tensor:
        """Return the mean gated activation over each document's tokens, `[members, documents, entries]`."""
        sums = torch.zeros_like(gates)
        tokens = torch.zeros(len(self.keys), device=gates.device)
        for part, who in passes(self.segments(self.layer), self.num_members, self.max_tokens):
            of_token = torch.repeat_interleave(torch.tensor(part.documents), torch.tensor(part.lengths))
            of_token = of_token.to(gates.device)
            sums[who].index_add_(1, of_token, self.guided.activations(part.hidden[None], who))
            if who.start in (0, None):
                tokens += torch.bincount(of_token, minlength=len(tokens))
        return (gates * sums / tokens.clamp(min=1)[None, :, None]).cpu()


def _read(files: Mapping[str, bytes]) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return a memory's weights and its documents' keys.

    Raises:
        DataError: they are missing or broken.
    """
    try:
        found = load(files[STORED])
    except (KeyError, SafetensorError, RuntimeError, ValueError) as error:
        raise DataError(f"{STORED}: missing or not readable ({error}); train the trial again") from None
    return found, found.pop("keys", None)
