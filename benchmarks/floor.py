"""How near one trial comes to the floor: the FLOPs it cannot do without, at the speed of a plain matrix product.

The floor counts the upper blocks, forward and (for activations only) backward, at tokens that something is predicted
from; the head at predicted tokens, logits and their gradient to the hidden state; attention among the tokens that see
each other; the memory, which needs no gradient to its input; and for the claims one forward pass over the trees' nodes
and the head at the nodes that are read. Nothing is counted for padding, norms, softmax, optimiser or copies: what these
cost is the distance from the floor. The speed is measured before and after every round, since it is not the machine's
alone: other machines on the same host change it within seconds.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Annotated, Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.common import (
    OUT,
    Data,
    Depth,
    Documents,
    MemoryDim,
    Model,
    OutFile,
    Repeats,
    Table,
    fever_questions,
    keep,
    local_model,
    split_of,
    spread,
    start_pack,
    told,
)
from trainables.lm import upper as upper_module
from trainables.lm.card import ModelCard
from trainables.lm.head_loss import token_nll
from trainables.lm.texts import TrainingText
from trainables.lm.token_tree import TokenTree
from trainables.pack.process_cache import ProcessCache, StudyTexts
from trainables.probes.fever.questions import FeverQuestions
from trainables.trial.canonical import canonical
from trainables.trial.making import make_spec
from trainables.trial.spec import TrialSpec

PARTS = {"train_s": "training", "measure_s": "memorisation", "evaluate_s": "claims"}
MEASURED = 2
"""How often a trial's memorisation error is measured: of the memory as it begins, and as it has been trained."""
MATMULS = ("mm", "addmm", "bmm", "baddbmm")
NORMS = ("native_layer_norm", "native_layer_norm_backward", "rsqrt", "pow", "mean", "_fused_rms_norm")
HEAD = "head's loss"
COPIES = (
    "copy_",
    "clone",
    "cat",
    "stack",
    "index",
    "index_put_",
    "_index_put_impl_",
    "index_select",
    "fill_",
    "zero_",
    "constant_pad_nd",
    "slice_backward",
    "select_backward",
)
SUMS = ("add", "add_", "sub", "mul", "mul_", "div", "neg", "silu", "gelu", "sum", "where", "masked_fill", "square")
CALIBRATION_S = 0.15


@dataclass(frozen=True)
class Needed:
    """FLOPs by what they are for."""

    blocks: float = 0.0
    attention: float = 0.0
    memory: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.blocks + self.attention + self.memory + self.head


def forward_flops(card: ModelCard, layer: int, memory_dim: int, trees: Sequence[TokenTree], read: int) -> Needed:
    """Return what one forward pass above `layer` needs, two FLOPs per multiplication.

    Args:
        card: the model.
        layer: block that the memory is at.
        memory_dim: entries of the memory.
        trees: what is run; a node attends to itself and its ancestors.
        read: nodes whose next token is wanted.
    """
    above, tokens = card.num_blocks - 1 - layer, sum(len(tree) for tree in trees)
    pairs = sum(int(tree.positions.sum()) + len(tree) for tree in trees)
    return Needed(
        blocks=2.0 * card.block_params * above * tokens,
        attention=4.0 * card.num_heads * card.head_dim * above * pairs,
        memory=4.0 * card.model_dim * memory_dim * tokens,
        head=2.0 * card.head_params * read,
    )


def training_flops(card: ModelCard, layer: int, memory_dim: int, texts: Sequence[TrainingText]) -> Needed:
    """Return what one epoch needs: nothing is predicted from a text's last token, so it is left out.

    Attention goes back through four products for its two; the memory's second linear map through two for its one,
    the first, whose input is frozen, through one.
    """
    once = _predicting(card, layer, memory_dim, texts)
    return Needed(2 * once.blocks, 3 * once.attention, 2.5 * once.memory, 2 * once.head)


def _predicting(card: ModelCard, layer: int, memory_dim: int, texts: Sequence[TrainingText]) -> Needed:
    seen = [TokenTree.chain(text.tree.tokens[:-1]) for text in texts]
    return forward_flops(card, layer, memory_dim, seen, sum(text.num_targets for text in texts))


def needed(spec: TrialSpec, card: ModelCard, texts: StudyTexts) -> dict[str, Needed]:
    """Return what the parts of a trial need, by the names of their timings."""
    assert spec.layer is not None
    shape, questions = (card, spec.layer, spec.memory_dim), fever_questions(texts)
    epoch = training_flops(*shape, texts.train)
    return {
        "train_s": Needed(*(spec.epochs * value for value in vars(epoch).values())),
        "measure_s": Needed(*(MEASURED * value for value in vars(_predicting(*shape, texts.segments)).values())),
        "evaluate_s": forward_flops(*shape, questions.trees, nodes_read(questions)),
    }


def nodes_read(questions: FeverQuestions) -> int:
    """Return how many nodes of the claims' trees are read: ends of prompts and beginnings of answers."""
    read: list[int] = []

    def respond(
        trees: Sequence[TokenTree], documents: Sequence[int], nodes: Sequence[Sequence[int]]
    ) -> NDArray[np.int64]:
        read.append(sum(map(len, nodes)))
        return np.zeros((1, read[-1]), dtype=np.int64)

    questions.answer(respond)
    return read[0]


@dataclass(frozen=True)
class Speed:
    """Of float32 matrix products of the model's own sizes, FLOPs a second; of each kind, the size that is fastest.

    Attributes:
        kept: over all calls within `CALIBRATION_S`, which is what a program can have.
        best: of the one fastest call, which on a machine with neighbours none keeps up.
    """

    kept: float
    best: float


def matmul_speed(card: ModelCard, rows: int) -> Speed:
    """Time matrix products of a model's own sizes, with this process's threads."""
    kept = best = 0.0
    for height in {rows, 1024}:
        for width, inner in ((card.intermediate_dim, card.model_dim), (card.vocab_size, card.model_dim)):
            states, weight = torch.randn(height, inner), torch.randn(width, inner)
            wide, flops = F.linear(states, weight), 2.0 * height * width * inner
            for left, right in ((states, weight.T), (wide, weight)):
                seconds: list[float] = []
                end = time.perf_counter() + CALIBRATION_S
                while (start := time.perf_counter()) < end:
                    torch.mm(left, right)
                    seconds.append(time.perf_counter() - start)
                kept = max(kept, flops * len(seconds) / sum(seconds))
                best = max(best, flops / min(seconds))
    return Speed(kept, best)


class _Trial:
    """One trial, with a count of passes through the upper blocks and of their tokens, padding included."""

    def __init__(self, spec: TrialSpec, cache: ProcessCache, folder: str) -> None:
        self.run = start_pack([spec], cache, folder)
        self.cache = cache
        self.counted: Counter[str] = Counter()

    def _count(self, module: Any, args: tuple[Any, ...]) -> None:
        kind = "train" if torch.is_grad_enabled() else "other"
        self.counted[f"{kind}_passes"] += 1
        self.counted[f"{kind}_tokens"] += args[0].shape[0] * args[0].shape[1]

    def seconds(self) -> tuple[dict[str, float], Counter[str]]:
        """Run to the end; return the seconds of every part, and what was counted in training and besides."""
        handle = split_of(self.run).upper.register_forward_pre_hook(self._count)
        try:
            self.cache.take_timings()
            while not self.run.done:
                self.run.step()
            (result,) = self.run.finish()
        finally:
            handle.remove()
        return {part: result.timings[part] for part in PARTS}, self.counted

    def profiled_epoch(self) -> tuple[float, dict[str, float]]:
        """Train two epochs, the second under the profiler; return its seconds, in all and by kind of operation."""
        self.run.step()
        with _quiet_stderr(), _head_marked(), profile(activities=[ProfilerActivity.CPU]) as found:
            start = time.perf_counter()
            self.run.step()
            wall = time.perf_counter() - start
        by_kind: dict[str, float] = defaultdict(float)
        for event in found.events() or ():
            by_kind[kind_of(event.name, _is_head(event))] += event.self_cpu_time_total / 1e6
        by_kind["python"] = max(0.0, wall - sum(by_kind.values()))
        return wall, dict(by_kind)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep the profiler's library from writing that it starts and stops."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _head_marked() -> Iterator[None]:
    """Let the profiler tell the head's loss from the rest."""

    def marked(*args: Any) -> Tensor:
        with record_function(HEAD):
            return token_nll(*args)

    with mock.patch.object(upper_module, "token_nll", marked):
        yield


def _is_head(event: Any) -> bool:
    """Return whether an operation of the profiler is part of the head's loss."""
    while event is not None:
        if event.name == HEAD:
            return True
        event = event.cpu_parent
    return False


def kind_of(operation: str, in_head: bool) -> str:
    """Return which kind an operation of the profiler belongs to.

    Args:
        operation: its name, `aten::mm`.
        in_head: whether it is part of the head's loss.
    """
    name = operation.removeprefix("aten::")
    if name in MATMULS:
        return "matmul, head" if in_head else "matmul, blocks and memory"
    if "scaled_dot_product" in name:
        return "attention"
    if name.startswith(("_foreach", "_fused_adam", "Optimizer", "linalg_vector_norm")):
        return "optimiser and clipping"
    if not operation.startswith("aten::"):
        return "autograd and dispatch"
    if in_head and name not in ("t", "transpose", "slice", "as_strided", "linear", "matmul"):
        return "softmax of the head's loss"
    if name in NORMS:
        return "norms"
    if name in COPIES:
        return "copies"
    if name in SUMS or name.endswith("_backward"):
        return "elementwise"
    return "autograd and dispatch"


def compare(settings: Mapping[str, Any], repeats: int) -> Table:
    """Run a trial several times, matrix products timed in between, and return fractions of the floor.

    Args:
        settings: fields of the trial; a memory at one layer, FEVER asked.
        repeats: rounds.
    """
    spec = canonical(make_spec(dict(settings)))
    assert spec.layer is not None
    cache = ProcessCache(torch.device("cpu"), None)
    card, texts = cache.card(spec), cache.texts(spec)
    tokens = sum(len(text.tree) for text in texts.train)
    rows = max(1, tokens * spec.batch_size // len(texts.train))
    speeds, rounds = [], []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        _, counted = _Trial(spec, cache, folder).seconds()
        speeds.append(matmul_speed(card, rows))
        for _ in range(repeats):
            rounds.append(_Trial(spec, cache, folder).seconds()[0])
            speeds.append(matmul_speed(card, rows))
        wall, by_kind = _Trial(spec, cache, folder).profiled_epoch()
    during = [(before.kept + after.kept) / 2 for before, after in pairwise(speeds)]
    speed, best = fmean(during), max(speed.best for speed in speeds)
    flops = {part: found.total for part, found in needed(spec, card, texts).items()}
    whole = {**{part: (part,) for part in PARTS}, "warm_s": ("train_s", "evaluate_s"), "all_s": tuple(PARTS)}
    seconds = {name: [sum(found[part] for part in parts) for found in rounds] for name, parts in whole.items()}
    work = {name: sum(flops[part] for part in parts) for name, parts in whole.items()}
    table: Table = {
        "model": card.name,
        "documents": len(texts.documents),
        "segments": len(texts.train),
        "tokens": tokens,
        "claims": len(fever_questions(texts)),
        "epochs": spec.epochs,
        "layer": spec.layer,
        "blocks": card.num_blocks,
        "repeats": repeats,
        "matmul_flops_per_s": spread(during),
        "best_call_flops_per_s": best,
        "floor_s": {name: work[name] / speed for name in whole},
        "seconds": {name: spread(seconds[name]) for name in whole},
        "fraction": {
            name: spread([work[name] / own / took for own, took in zip(during, seconds[name], strict=True)])
            for name in whole
        },
        "fraction_of_best_call": {name: spread([work[name] / best / took for took in seconds[name]]) for name in whole},
    }
    trained, shown = (sum(len(text.tree) - 1 for text in found) for found in (texts.train, texts.segments))
    nodes = sum(len(tree) for tree in fever_questions(texts).trees)
    table["passes_per_step"] = counted["train_passes"] / spec.epochs / -(-len(texts.train) // spec.batch_size)
    table["tokens_per_needed"] = {
        "training": counted["train_tokens"] / spec.epochs / trained,
        "evaluation": counted["other_tokens"] / (MEASURED * shown + nodes),
    }
    epoch, shape = training_flops(card, spec.layer, spec.memory_dim, texts.train), "matmul, blocks and memory"
    table["epoch"] = {
        "wall_s": table["seconds"]["train_s"]["median"] / spec.epochs,
        "profiled_wall_s": wall,
        "by_kind_s": by_kind,
        "floor_s": {
            shape: (epoch.blocks + epoch.memory) / speed,
            "matmul, head": epoch.head / speed,
            "attention": epoch.attention / speed,
        },
    }
    return table


def lines(table: Table) -> list[str]:
    """Return the table as text."""
    shown = [
        f"{table['model']}: {table['documents']} documents, {table['tokens']} tokens, {table['epochs']} epochs, "
        f"{table['claims']} claims, block {table['layer']} of {table['blocks']}; a matrix product does "
        f"{table['matmul_flops_per_s']['median'] / 1e9:.0f} GFLOP/s, the fastest single call "
        f"{table['best_call_flops_per_s'] / 1e9:.0f}",
        f"  {'':<24}{'seconds':>10}{'floor':>10}   fraction of the floor   by the fastest call",
    ]
    for part, name in {**PARTS, "warm_s": "training and claims", "all_s": "all three"}.items():
        seconds, floor = table["seconds"][part]["median"], table["floor_s"][part]
        fraction, of_best = table["fraction"][part], table["fraction_of_best_call"][part]
        shown.append(f"  {name:<24}{seconds:10.2f}{floor:10.2f}   {told(fraction):<22}  {of_best['median']:.2f}")
    epoch, padded = table["epoch"], table["tokens_per_needed"]
    shown += [
        f"  tokens computed for each that is needed: training {padded['training']:.3f}, evaluation "
        f"{padded['evaluation']:.3f}; {table['passes_per_step']:.1f} passes a step",
        f"  one epoch of training: {epoch['wall_s']:.2f} s, {epoch['profiled_wall_s']:.2f} s under the profiler",
    ]
    for kind, seconds in sorted(epoch["by_kind_s"].items(), key=lambda item: -item[1]):
        floor = epoch["floor_s"].get(kind)
        share, whole = 100 * seconds / epoch["profiled_wall_s"], epoch["profiled_wall_s"]
        beside = f"   (floor {100 * floor / whole:.1f} %)" if floor is not None else ""
        shown.append(f"    {kind:<28}{share:6.1f} %{beside}")
    return shown


def command(
    model: Model = "pythia-70m",
    data: Data = "sample",
    documents: Documents = 8,
    epochs: Annotated[int, typer.Option(min=2)] = 4,
    depth: Depth = 0.75,
    memory_dim: MemoryDim = 128,
    repeats: Repeats = 3,
    out: OutFile = OUT,
) -> None:
    """Compare one trial's training and evaluation with the FLOPs they need, and say where the rest goes."""
    settings = {
        "model": local_model(model),
        "data": data,
        "num_documents": documents,
        "epochs": epochs,
        "depth": depth,
        "memory_dim": memory_dim,
    }
    table = compare(settings, repeats)
    keep(out, "floor", table)
    typer.echo("\n".join(lines(table)))
