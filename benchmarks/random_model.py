"""A model of a shape with random weights, on a device and nowhere else: packs of it, and the rival's step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, GPTNeoXConfig, get_cosine_schedule_with_warmup

from trainables.adapters.adapter import PackTexts
from trainables.adapters.memory.adapter import MemoryAdapter
from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.plan import MemoryPlan
from trainables.lm import attention
from trainables.lm.aliases import Alias
from trainables.lm.card import ModelCard
from trainables.lm.cut import Given, cut_class, find_blocks
from trainables.lm.reference import attach_memory
from trainables.lm.staggered import let_in
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.lm.upper import Upper
from trainables.node.map_batches import MapBatches, map_here
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

T = TypeVar("T")


class RandomModel:
    """A GPT-NeoX with random weights: `trainables.adapters.adapter.ModelParts` of it, and the model itself.

    The whole model and the blocks above the memory share their weights, so that a trial gives the same losses in
    either.

    Args:
        shape: of the model.
        layer: the memory's block.
        dtype: of the weights.
        device: where they are.

    Attributes:
        whole: the model as `transformers` makes it.
        texts: token ids of the texts of a step.
    """

    def __init__(self, shape: Alias, layer: int, dtype: torch.dtype, device: torch.device) -> None:
        """Draw the weights on the device."""
        self.layer, self.dtype, self.device = layer, dtype, device
        self.map_batches: MapBatches = map_here
        config = GPTNeoXConfig(
            hidden_size=shape.model_dim, intermediate_size=shape.intermediate_dim,
            num_hidden_layers=shape.num_blocks, num_attention_heads=shape.num_heads, vocab_size=shape.vocab_size,
            max_position_embeddings=shape.positions, tie_word_embeddings=False,
        )  # fmt: skip
        with torch.device(device):
            torch.manual_seed(0)
            self.whole: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        self.whole.eval().requires_grad_(False)
        self.card = ModelCard(
            shape.source, shape.source, "", "main", shape.family, shape.num_blocks, shape.model_dim,
            shape.intermediate_dim, shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.vocab_size, shape.tied,
        )  # fmt: skip
        part, given = self._cut(config)
        entrance = let_in(find_blocks(part)[2], layer, self._outputs())
        self._upper = Upper(part, given, layer, direct=True, entrance=entrance)
        self._upper.staggers = True
        self._kept: dict[tuple[str, Hashable], Any] = {}
        self.texts: list[list[int]] = []

    def _cut(self, config: Any) -> tuple[Any, Given]:
        """Return the model without the blocks up to the memory's, the rest shared with the whole one."""
        given = Given()
        with torch.device("meta"):
            part = cut_class(config, given, self.layer + 1, None, True, self._outputs())(config)
        holder, name, blocks = find_blocks(part)
        theirs = find_blocks(self.whole)[0]
        for index in range(self.layer + 1, len(blocks)):
            blocks[index] = getattr(theirs, name)[index]
        for other, child in theirs.named_children():
            if other != name and child is not self.whole.get_input_embeddings():
                setattr(holder, other, child)
        part.set_output_embeddings(self.whole.get_output_embeddings())
        part.config._attn_implementation = attention.NAME
        return part.eval(), given

    @torch.no_grad()
    def _outputs(self) -> int:
        """Return how many things a block returns; 0 for a tensor alone."""
        found = self._below([0, 1], self.layer)[1]
        return len(found) if isinstance(found, tuple) else 0

    @torch.no_grad()
    def _below(self, text: Sequence[int], layer: int) -> tuple[Tensor, Any]:
        """Return a text's hidden states after a block, `[tokens, model_dim]`, and what the block gave."""
        found: list[Any] = []
        block = find_blocks(self.whole)[2][layer]
        handle = block.register_forward_hook(lambda _, __, output: found.append(output))
        try:
            self.whole.base_model(input_ids=torch.tensor([text], device=self.device), use_cache=False)
        finally:
            handle.remove()
        return (found[0][0] if isinstance(found[0], tuple) else found[0])[0], found[0]

    @contextmanager
    def attending(self, implementation: str) -> Iterator[None]:
        """Have the shared blocks attend in one of the ways of `transformers`, or in that of packs."""
        before = self.whole.config._attn_implementation
        self.whole.config._attn_implementation = implementation
        try:
            yield
        finally:
            self.whole.config._attn_implementation = before

    def get(self, trees: Sequence[TokenTree], layer: int, also_layers: Sequence[int] = ()) -> list[Tensor]:
        """Return the hidden states of texts, as `HiddenStates` does."""
        return [self._below(tree.tokens, layer)[0] for tree in trees]

    def pretrained_nll(self, texts: object, evaluate: Callable[[], float]) -> float:
        """Return the error of the model as it comes."""
        return evaluate()

    def hidden_states(self) -> Any:
        """Return the source of hidden states."""
        return self

    def upper(self, layer: int) -> Upper:
        """Return the blocks above the memory's.

        Raises:
            ValueError: another block.
        """
        if layer != self.layer:
            raise ValueError(f"block {layer}: the blocks above {self.layer} are there")
        return self._upper

    def whole_model(self) -> Any:
        """Refuse: nothing here asks for it."""
        raise NotImplementedError

    def own_model(self) -> Any:
        """Refuse: nothing here asks for one."""
        raise NotImplementedError

    def keep(self, kind: str, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for a key."""
        if (kind, key) not in self._kept:
            self._kept[kind, key] = make()
        found: T = self._kept[kind, key]
        return found

    def timing(self, part: str) -> Any:
        """Count nothing."""
        return nullcontext()

    def draw_texts(self, lengths: Sequence[int]) -> None:
        """Draw the texts of a step; states of earlier ones are forgotten."""
        generator = torch.Generator().manual_seed(1)
        self.texts = [torch.randint(0, self.card.vocab_size, (n,), generator=generator).tolist() for n in lengths]
        self._kept.clear()

    def pack(self, members: int, memory_dim: int, layers: Sequence[int] = (), **fields: Any) -> MemoryAdapter:
        """Return a pack of memories on the texts, which differ in their learning rate.

        Args:
            members: K.
            memory_dim: entries of each.
            layers: each one's block; none where all are at the model's.
            fields: others of the trial.
        """
        texts = [TrainingText(TokenTree.chain(text), place) for place, text in enumerate(self.texts)]
        blocks = list(layers) or [self.layer] * members
        specs = [self.spec(memory_dim, lr=1e-3 / (k + 1), layer=blocks[k], **fields) for k in range(members)]
        with self.attending(attention.NAME):
            return MemoryAdapter(
                [MemoryPlan.from_fields(vars(spec)) for spec in specs], self, PackTexts(texts, texts, len(texts))
            )

    def spec(self, memory_dim: int, **fields: Any) -> TrialSpec:
        """Return a trial on the texts: one step an epoch."""
        usual = {
            "model": "sample-neox", "layer": self.layer, "memory_dim": memory_dim, "num_documents": len(self.texts),
            "batch_size": len(self.texts), "micro_batch_tokens": 10**9,
        }  # fmt: skip
        return make_spec({**usual, **fields})


class PlainTraining:
    """The rival's step: the whole model, the memory in a forward hook or peft's LoRA, a padded batch, AdamW.

    Nothing is read in a step, which is to the rival's good: most programs look at each loss.

    Args:
        model: the model and its texts.
        memory_dim: entries of the memory.
        lora: a LoRA of rank 8 on the attention's products instead.
    """

    def __init__(self, model: RandomModel, memory_dim: int, lora: bool = False) -> None:
        """Put what is trained into the model."""
        spec = model.spec(memory_dim)
        self._model, self._peft = model.whole, None
        width = max(map(len, model.texts))
        rows = [[*text, *[0] * (width - len(text))] for text in model.texts]
        self._tokens = torch.tensor(rows, device=model.device)
        self._mask = torch.tensor([[i < len(text) for i in range(width)] for text in model.texts], device=model.device)
        self._labels = self._tokens.masked_fill(~self._mask, -100)
        if lora:
            targets = LoraConfig(r=8, lora_alpha=16, target_modules=["query_key_value"], task_type="CAUSAL_LM")
            self._peft = get_peft_model(model.whole, targets)
            self._trained = [parameter for parameter in self._peft.parameters() if parameter.requires_grad]
        else:
            memory = Memory(model.card.model_dim, memory_dim, True, spec.seed).to(model.device)
            self._hook = attach_memory(model.whole, memory, model.layer)
            self._trained = list(memory.parameters())
        self._clip = spec.grad_clip
        self._adamw = torch.optim.AdamW(self._trained, lr=spec.lr, weight_decay=spec.weight_decay, fused=True)
        self._schedule = get_cosine_schedule_with_warmup(self._adamw, spec.warmup_steps, spec.epochs)

    def step(self) -> Tensor:
        """Take a step; return its loss."""
        model = self._peft or self._model
        loss: Tensor = model(input_ids=self._tokens, attention_mask=self._mask, labels=self._labels).loss
        self._adamw.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, self._clip)
        self._adamw.step()
        self._schedule.step()
        return loss.detach()

    def end(self) -> None:
        """Take out what was put in."""
        if self._peft is None:
            self._hook.remove()
        else:
            self._peft.unload()
            self._model.requires_grad_(False)
