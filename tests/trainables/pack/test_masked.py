"""A hard memory at the whole model, confined to a document's entries, is the one that answers claims about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from trainables.adapters.memory.adapter import MemoryAdapter
from trainables.adapters.memory.allocation import build_allocation
from trainables.adapters.memory.bank import Memory
from trainables.adapters.memory.io import load_memory
from trainables.adapters.memory.masked import confined, trees_of
from trainables.errors import DataError
from trainables.lm.reference import attach_memory
from trainables.lm.texts import NO_DOCUMENT, TrainingText
from trainables.lm.token_tree import TokenTree, collate
from trainables.pack.process_cache import ProcessCache
from trainables.pack.run import PackRun
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.task import TrialTask

CPU = torch.device("cpu")
TREES = [TokenTree.chain(range(5, 19)), TokenTree((7, 8, 9, 9, 11, 12), (-1, 0, 1, 1, 3, 2))]


@pytest.mark.parametrize("values", [{"allocation": "partitioned"}, {"allocation": "simset1", "granularity": "token"}])
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
@pytest.mark.thorough(only=("gpt_neox",))
def test_the_whole_model_with_a_mask_says_what_the_split_one_says(values, family, tiny_models, sample_data):
    base = {
        "model": str(tiny_models[family]), "data": str(sample_data), "layer": 2, "memory_dim": 24, "epochs": 1,
        "num_documents": 4, "segment_tokens": 32, "max_segments": 2, "mode": "hard", "lr": 0.05, "warmup_steps": 0,
        "probes": "", **values,
    }  # fmt: skip
    task = TrialTask("0", canonical(make_spec(base)), "", "")
    adapter = PackRun([task], ProcessCache(CPU, 10**9), (), [None]).adapter
    assert isinstance(adapter, MemoryAdapter) and adapter.is_masked(0, 1)
    adapter.train_epoch(0)
    spoken = {}
    assert not adapter.is_masked(0, NO_DOCUMENT)
    for document in (1, 3, NO_DOCUMENT, None):
        with torch.no_grad(), adapter.attached(0, document) as whole:
            batches = [collate([tree], CPU) for tree in TREES]
            logits = [whole(b.tokens, b.attention_mask, b.positions)[0] for b in batches]
        spoken[document] = torch.cat(logits)
        if document is not None:
            nodes = [list(range(len(tree))) for tree in TREES]
            found = adapter.next_tokens(TREES, [document] * len(TREES), nodes)
            assert np.array_equal(found[0], spoken[document].argmax(dim=-1).numpy())
            chain = TrainingText(TREES[0], document)
            targets = torch.tensor(TREES[0].tokens[1:])
            nll = torch.nn.functional.cross_entropy(logits[0][:-1], targets)
            assert adapter.text_nll([chain])[0, 0] == pytest.approx(float(nll), abs=2e-5)
            other = TrainingText(TREES[0], NO_DOCUMENT if document == 1 else 1)
            assert adapter.text_nll([other, chain])[0, 1] == pytest.approx(float(nll), abs=2e-5)
    assert torch.equal(spoken[NO_DOCUMENT], spoken[None]), "what belongs to no document uses every entry"
    assert not torch.allclose(spoken[1], spoken[None], atol=1e-3)
    assert torch.allclose(spoken[1], spoken[3], atol=1e-3) == (values.get("granularity") == "token")
    with torch.no_grad():
        batch = collate(TREES[:1], CPU)
        assert not adapter.parts.whole_model().model._forward_pre_hooks, "the hook is gone"
        assert not torch.allclose(adapter.parts.whole_model()(batch.tokens)[0], spoken[1][:14], atol=1e-3)


def test_trees_are_read_off_what_tokens_attend_to():
    batch = collate(TREES, CPU)
    found = trees_of(batch.tokens, batch.attention_mask)
    for tree, read in zip(TREES, found, strict=True):
        assert read.parents[: len(tree)] == tree.parents and read.tokens[: len(tree)] == tree.tokens
    assert trees_of(batch.tokens[:1, :14], None)[0] == TREES[0]
    numbers = torch.where(batch.attention_mask, 0.0, float("-inf"))
    assert [tree.parents for tree in trees_of(batch.tokens, numbers)] == [tree.parents for tree in found]


@pytest.mark.parametrize(
    "values",
    [
        {"allocation": "partitioned"},
        {"allocation": "random", "num_clusters": 2, "mem_seed": 3},
        {"allocation": "simset2"},
        {"allocation": "simset2", "granularity": "token", "mem_seed": 1},
    ],
)
def test_a_stored_hard_memory_put_onto_a_plain_model_gives_the_recorded_nll(values, tiny_models, sample_data, tmp_path):
    base = {
        "model": str(tiny_models["llama"]), "data": str(sample_data), "layer": 2, "memory_dim": 24, "epochs": 1,
        "num_documents": 4, "segment_tokens": 32, "max_segments": 2, "mode": "hard", "lr": 0.05, "warmup_steps": 0,
        "probes": "", **values,
    }  # fmt: skip
    task = TrialTask("0", canonical(make_spec(base)), str(tmp_path), "")
    cache = ProcessCache(CPU, 10**9)
    pack = PackRun([task], cache, (), [None])
    pack.step()
    (result,) = pack.finish()
    file = tmp_path / "memory.safetensors"
    model = AutoModelForCausalLM.from_pretrained(base["model"])
    texts = cache.texts(task.spec)

    def recorded(named):
        """Return the mean NLL per token, each text under the memory that `named` gives of its document."""
        total, count = 0.0, 0
        for text in texts.segments:
            saved = load_memory(file, named(text.document))
            tokens = torch.tensor([text.tree.tokens])
            with attach_memory(model, saved.memory, saved.layer), torch.no_grad():
                total += float(model(tokens, labels=tokens).loss) * (tokens.shape[1] - 1)
            count += tokens.shape[1] - 1
        return total / count

    titles = [document.title for document in texts.documents]
    error = result.metrics["memory/nll"]
    assert recorded(lambda document: titles[document]) == pytest.approx(error, abs=1e-5)
    assert recorded(lambda document: document) == pytest.approx(error, abs=1e-5)
    assert recorded(lambda document: None) != pytest.approx(error, abs=1e-4), "every entry"
    of_others = recorded(lambda document: (document + 1) % len(titles))
    assert (of_others == pytest.approx(error, abs=1e-4)) == (values.get("granularity") == "token")
    with pytest.raises(DataError, match=rf"{titles[1][1:]!r} is none of its 4 documents, did you mean {titles[1]!r}"):
        load_memory(file, titles[1][1:])
    with pytest.raises(DataError, match="document=4: it knows 4 documents, 0 to 3"):
        load_memory(file, 4)


def test_generating_from_a_cache_keeps_each_tokens_entries(tiny_models):
    """Each new token's entries depend on the token before it, which only the cache has seen."""
    tokens = [[5, 6, 7, 8, 9, 10, 11, 12]] * 3
    allocation = build_allocation("simset2", "token", [[row] for row in tokens], 24, entries_per_group=2)
    model = AutoModelForCausalLM.from_pretrained(tiny_models["llama"]).eval()
    memory = confined(Memory(model.config.hidden_size, 24, seed=1), allocation, 0)
    given = torch.tensor([[5, 6, 7]])
    with attach_memory(model, memory, 1), torch.no_grad():
        with_cache = model.generate(given, max_new_tokens=8, do_sample=False, pad_token_id=0)
        without = model.generate(given, max_new_tokens=8, do_sample=False, pad_token_id=0, use_cache=False)
        stepwise = model(with_cache[:, :-1]).logits[0, 2:].argmax(dim=-1)
    assert torch.equal(with_cache, without) and torch.equal(stepwise, with_cache[0, 3:])
