"""Each optimisation against its plain reference: the same numbers first, then the ratio of the times."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import typer
from torch.nn.utils.rnn import pad_sequence

from benchmarks.common import (
    OUT,
    TOLERANCE,
    Data,
    Depth,
    Documents,
    Epochs,
    Model,
    NotTheSame,
    OutFile,
    Repeats,
    Table,
    check_close,
    fever_questions,
    in_turn,
    keep,
    local_model,
    ratio,
    seconds,
    start_pack,
    told,
)
from benchmarks.trial import run_ours
from trainables.adapters.memory.bank import MemoryBank
from trainables.adapters.optimiser import PackOptimiser
from trainables.lm.batches import TextBatch, TextBatches, epoch_order
from trainables.lm.head_loss import token_nll
from trainables.lm.hidden import HiddenStates
from trainables.lm.hidden_cache import HiddenCache
from trainables.lm.token_tree import TokenTree
from trainables.pack.process_cache import ProcessCache
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

PACK = 8

Contenders = dict[str, Callable[[], float]]
"""`ours` and `reference`: each returns its seconds."""


def head_loss(cache: ProcessCache, spec: TrialSpec) -> Contenders:
    """Loss through the frozen head without keeping logits, against cross-entropy of the logits."""
    assert spec.layer is not None
    upper = cache.parts(spec).upper(spec.layer)
    weight, bias = upper.head_weight, upper.head_bias
    tokens = spec.batch_size * spec.segment_tokens
    generator = torch.Generator().manual_seed(0)
    final = torch.randn(tokens, weight.shape[1], generator=generator).requires_grad_()
    labels = torch.randint(0, weight.shape[0], (tokens,), generator=generator)

    def loss(run: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
        final.grad = None
        taken = seconds(lambda: torch.autograd.backward(run().mean()))
        assert final.grad is not None
        return taken, final.grad

    def ours() -> tuple[float, torch.Tensor]:
        return loss(lambda: token_nll(final, weight, bias, labels))

    def reference() -> tuple[float, torch.Tensor]:
        return loss(lambda: F.cross_entropy(F.linear(final, weight, bias), labels, reduction="none"))

    _check("head loss", float((ours()[1] - reference()[1]).abs().max()))
    return {"ours": lambda: ours()[0], "reference": lambda: reference()[0]}


def padding(cache: ProcessCache, spec: TrialSpec) -> Contenders:
    """A step's texts one after the other, attention text by text, against one padded batch; forward and backward."""
    assert spec.layer is not None
    upper = cache.parts(spec).upper(spec.layer)
    texts = cache.texts(spec).train
    states = cache.parts(spec).hidden_states().get([text.tree for text in texts], spec.layer)
    order = epoch_order(len(texts), spec.seed, 0)
    batches = list(TextBatches(texts, states, cache.device).steps(order, spec.batch_size))

    def gradients(final: Callable[[TextBatch, torch.Tensor], torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
        found: list[torch.Tensor] = []

        def epoch() -> None:
            for batch in batches:
                hidden = batch.hidden.detach().requires_grad_()
                picked = final(batch, hidden)[batch.targets]
                torch.autograd.backward(token_nll(picked, upper.head_weight, upper.head_bias, batch.labels).sum())
                assert hidden.grad is not None
                found.append(hidden.grad)

        return seconds(epoch), found

    def ours() -> tuple[float, list[torch.Tensor]]:
        return gradients(
            lambda batch, hidden: upper(hidden[None], positions=batch.positions[None], lengths=batch.lengths)[0]
        )

    def reference() -> tuple[float, list[torch.Tensor]]:
        def padded(batch: TextBatch, hidden: torch.Tensor) -> torch.Tensor:
            rows = pad_sequence(list(torch.split(hidden, batch.lengths)), batch_first=True)
            return torch.cat([row[:length] for row, length in zip(upper(rows), batch.lengths, strict=True)])

        return gradients(padded)

    _check("padding", max(float((a - b).abs().max()) for a, b in zip(ours()[1], reference()[1], strict=True)))
    return {"ours": lambda: ours()[0], "reference": lambda: reference()[0]}


def tree(cache: ProcessCache, spec: TrialSpec) -> Contenders:
    """Claims as trees with shared examples, against every prompt in full; hidden states cached in both."""
    assert spec.layer is not None
    questions = fever_questions(cache.texts(spec))
    respond = start_pack([spec], cache, folder="").adapter.next_tokens
    prompts = [TokenTree.chain(asked.prompt) for asked in questions.prompts]
    documents = [asked.document for asked in questions.prompts]
    ends = [[len(prompt) - 1] for prompt in prompts]
    paths = [
        _end_of(prompt, questions.trees, questions.tree_documents, number)
        for prompt, number in zip(prompts, documents, strict=True)
    ]

    nodes: list[list[int]] = [[] for _ in questions.trees]
    order: list[int] = []
    for number in sorted(range(len(paths)), key=lambda i: paths[i][0]):
        nodes[paths[number][0]].append(paths[number][1])
        order.append(number)

    def ours() -> list[int]:
        found = respond(questions.trees, questions.tree_documents, nodes)[0].tolist()
        return [token for _, token in sorted(zip(order, found, strict=True))]

    def reference() -> list[int]:
        return [int(token) for token in respond(prompts, documents, ends)[0]]

    different = sum(a != b for a, b in zip(ours(), reference(), strict=True))
    _check("tree", float(different))
    return {"ours": lambda: seconds(ours), "reference": lambda: seconds(reference)}


def trunk_layers(cache: ProcessCache, spec: TrialSpec) -> Contenders:
    """Hidden states of three blocks from one pass, against one pass each."""
    layers = _three(cache, spec)
    texts = [text.tree for text in cache.texts(spec).segments]

    def ours() -> object:
        with _states(cache, spec) as states:
            return states.get(texts, layers[-1], layers)

    def reference() -> object:
        return [_from_tokens(cache, spec, texts, layer) for layer in layers]

    return {"ours": lambda: seconds(ours), "reference": lambda: seconds(reference)}


def trunk_goes_on(cache: ProcessCache, spec: TrialSpec) -> Contenders:
    """A deeper block from the files of a shallower one, against from the tokens."""
    _, shallow, deep = _three(cache, spec)
    texts = [text.tree for text in cache.texts(spec).segments]

    def ours() -> tuple[float, list[torch.Tensor]]:
        with _states(cache, spec) as states:
            states.get(texts, shallow)
            found: list[torch.Tensor] = []
            return seconds(lambda: found.extend(part.clone() for part in states.get(texts, deep))), found

    def reference() -> list[torch.Tensor]:
        return _from_tokens(cache, spec, texts, deep)

    scale = max(float(part.abs().max()) for part in reference())
    worst = max(float((a - b).abs().max()) for a, b in zip(ours()[1], reference(), strict=True))
    _check("trunk", worst / scale)
    return {"ours": lambda: ours()[0], "reference": lambda: seconds(reference)}


def optimiser(cache: ProcessCache, spec: TrialSpec) -> Contenders:
    """One fused AdamW over a pack, against one optimiser, clipping and schedule for each member."""
    from transformers import get_cosine_schedule_with_warmup

    dim = cache.card(spec).model_dim
    bank = MemoryBank(dim, spec.memory_dim, True, [0] * PACK, cache.device)
    fused = PackOptimiser(bank, [spec.lr] * PACK, [spec.weight_decay] * PACK, 10, 1000, [spec.grad_clip] * PACK)
    members = [[p.detach().clone().requires_grad_() for p in bank.member_parameters(k).values()] for k in range(PACK)]
    adamws = [torch.optim.AdamW(group, lr=spec.lr, weight_decay=spec.weight_decay) for group in members]
    schedules = [get_cosine_schedule_with_warmup(adamw, 10, 1000) for adamw in adamws]
    gradients = {name: torch.randn_like(p) for name, p in bank.named_parameters()}

    def set_gradients() -> None:
        for name, parameter in bank.named_parameters():
            parameter.grad = gradients[name].clone()

    set_gradients()
    separate = [[gradient[k].clone() for gradient in bank.gradients().values()] for k in range(PACK)]

    def ours() -> None:
        set_gradients()
        fused.step([True] * PACK)

    def reference() -> None:
        for group, found, adamw, schedule in zip(members, separate, adamws, schedules, strict=True):
            for parameter, gradient in zip(group, found, strict=True):
                parameter.grad = gradient.clone()
            torch.nn.utils.clip_grad_norm_(group, spec.grad_clip)
            adamw.step()
            schedule.step()

    def many(run: Callable[[], None]) -> Callable[[], float]:
        def steps() -> None:
            for _ in range(20):
                run()

        return lambda: seconds(steps)

    for _ in range(3):
        ours()
        reference()
    worst = max(
        float((mine.detach() - theirs.detach()).abs().max())
        for k, group in enumerate(members)
        for mine, theirs in zip(bank.member_parameters(k).values(), group, strict=True)
    )
    _check("optimiser", worst)
    return {"ours": many(ours), "reference": many(reference)}


PARTS: dict[str, Callable[[ProcessCache, TrialSpec], Contenders]] = {
    "logits not kept": head_loss,
    "no padding": padding,
    "prefix tree": tree,
    "blocks in one pass": trunk_layers,
    "deeper from shallower": trunk_goes_on,
    f"one optimiser, K={PACK}": optimiser,
}


def measure(settings: dict[str, Any], repeats: int) -> Table:
    """Time every optimisation against its reference.

    Raises:
        NotTheSame: the two do not compute the same.
    """
    spec = canonical(make_spec(settings))
    cache = ProcessCache(torch.device("cpu"), None)
    start_pack([spec], cache, folder="")  # fills the caches
    table: Table = {"model": cache.card(spec).name, "settings": settings, "repeats": repeats, "parts": {}}
    for name, make in PARTS.items():
        found = in_turn(make(cache, spec), repeats)
        table["parts"][name] = {"seconds": found, "ratio": ratio(found["reference"], found["ours"])}
    table["bfloat16"] = bfloat16(spec, cache)
    return table


def bfloat16(spec: TrialSpec, cache: ProcessCache) -> Table:
    """Run one trial in both number types: what changes in its results, and how long it takes."""
    rounded = replace(spec, dtype="bfloat16")
    exact, other = run_ours(spec, cache), run_ours(rounded, cache)
    return {
        "train_s": {"float32": exact.train_s, "bfloat16": other.train_s},
        "nll": {"float32": exact.curve[-1], "bfloat16": other.curve[-1]},
        "answers": len(exact.letters),
        "answers_changed": sum(a != b for a, b in zip(exact.letters, other.letters, strict=True)),
    }


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = [f"{table['model']}: what each part would take without its optimisation, same results"]
    shown += [f"  {name:<24} {told(part['ratio'])} x" for name, part in table["parts"].items()]
    rounded = table["bfloat16"]
    nll, taken = rounded["nll"], rounded["train_s"]
    shown.append(
        f"  bfloat16: NLL {nll['bfloat16']:.4f} for {nll['float32']:.4f}, {rounded['answers_changed']} of "
        f"{rounded['answers']} answers change, training {taken['bfloat16'] / taken['float32']:.2f} x as long"
    )
    return shown


def command(
    model: Model = "sample-neox",
    data: Data = "sample",
    documents: Documents = 8,
    epochs: Epochs = 2,
    depth: Depth = 0.75,
    repeats: Repeats = 3,
    out: OutFile = OUT,
) -> None:
    """Time every optimisation against its plain reference."""
    settings = {
        "model": local_model(model),
        "data": data,
        "num_documents": documents,
        "epochs": epochs,
        "depth": depth,
    }
    table = measure(settings, repeats)
    keep(out, "parts", table)
    typer.echo("\n".join(lines(table)))


def _check(name: str, difference: float) -> None:
    check_close(name, "results", [difference], [0.0], TOLERANCE["float32"])


def _three(cache: ProcessCache, spec: TrialSpec) -> tuple[int, int, int]:
    assert spec.layer is not None
    deep = spec.layer
    return max(0, deep - 2), max(0, deep - 1), deep


def _end_of(prompt: TokenTree, trees: Sequence[TokenTree], documents: Sequence[int], document: int) -> tuple[int, int]:
    """Return the tree of this document, and the node in it, at which a prompt ends."""
    for where, tree_ in enumerate(trees):
        if documents[where] != document:
            continue
        pairs = zip(tree_.parents, tree_.tokens, strict=True)
        children = {pair: node for node, pair in enumerate(pairs)}
        node = -1
        for token in prompt.tokens:
            found = children.get((node, token))
            if found is None:
                break
            node = found
        else:
            return where, node
    raise NotTheSame("tree: a prompt is in none of the trees")


@contextmanager
def _states(cache: ProcessCache, spec: TrialSpec) -> Iterator[HiddenStates]:
    with tempfile.TemporaryDirectory() as folder:
        empty = HiddenCache(Path(folder), None)
        yield HiddenStates(cache.card(spec), getattr(torch, spec.dtype), cache.device, empty)


def _from_tokens(cache: ProcessCache, spec: TrialSpec, texts: Sequence[TokenTree], layer: int) -> list[torch.Tensor]:
    with _states(cache, spec) as states:
        return [part.clone() for part in states.get(texts, layer)]
