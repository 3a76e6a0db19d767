"""One size of the measure `corpus` in a process of its own: `python -m benchmarks.corpus_child REQUEST`."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Table
from benchmarks.made_up_texts import COPIED, texts, tokenizer
from trainables.adapters.memory.allocation import Allocation, build_allocation
from trainables.adapters.memory.analysis import MAX_PAIRS, allocation_report
from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.grouping import group_documents, group_near_documents
from trainables.adapters.memory.shingles import jaccard_matrix, shingle_set
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.token_files import write_tokens
from trainables.lm.token_tree import TokenTree

KINDS = (
    ("simset1", "dim", True), ("simset2", "dim", True), ("simset3", "dim", True), ("simset2", "token", True),
    ("simset2", "dim", False), ("partitioned", "dim", False), ("random", "dim", False),
)  # fmt: skip
"""Allocation, granularity, and whether every document is a group of its own."""
MASKED_STEPS, STEP_TEXTS = 250, 4
MIB = 2**20


def measure(documents: int, tokens: int, memory_dim: int, clusters: int, entries: int, seed: int) -> Table:
    """Do everything that happens to a corpus before it is trained on, and time each part.

    Seconds are the processor's, of all threads, which other work on the machine hardly changes; `wall_s` are those of
    the clock.

    Args:
        documents: how many are made up.
        tokens: of each, in two segments.
        memory_dim: entries of the memory.
        clusters: groups, at most half of the documents.
        entries: hash functions of a group.
        seed: of the documents.
    """
    table: Table = {"seconds": {}, "wall_s": {}, "peak_bytes": {"start": _peak()}, "found": {}}

    @contextmanager
    def part(name: str) -> Iterator[None]:
        start, wall = time.process_time(), time.perf_counter()
        yield
        for kept, spent in (("seconds", time.process_time() - start), ("wall_s", time.perf_counter() - wall)):
            table[kept][name] = table[kept].get(name, 0.0) + spent
        table["peak_bytes"][name] = _peak()
        print(f"{name}: {table['seconds'][name]:.1f} s, peak {_peak() / 2**30:.2f} GiB", file=sys.stderr, flush=True)

    made = tokenizer()
    with part("make"):
        for _ in texts(documents, tokens, seed):
            pass
    with tempfile.TemporaryDirectory() as folder:
        with part("tokenise"):
            corpus = write_tokens(Path(folder) / "tokens.arrow", texts(documents, tokens, seed), made, tokens // 2, 2)
        for kept in ("seconds", "wall_s"):
            table[kept]["tokenise"] -= table[kept]["make"]
        table["tokens"] = len(corpus.tokens)
        table["token_file_bytes"] = (Path(folder) / "tokens.arrow").stat().st_size
        with part("group"):
            near = group_near_documents(corpus, min(clusters, documents // 2))
        table["found"]["near pairs"] = near.near_pairs
        table["found"]["groups by similarity"] = near.by_similarity
        one_each, grouped = GroupedTokens(corpus), GroupedTokens(corpus, near.groups)
        for name, granularity, alone in KINDS:
            groups = one_each if alone else grouped
            with part("allocate"):
                allocation = build_allocation(name, granularity, groups, memory_dim, seed, entries)
            with part("masks"):
                _masks(allocation, groups, corpus, seed)
            with part("analyse"):
                report = allocation_report(allocation, groups)
            label = f"{name}-{granularity}" + ("" if alone else f", {groups.num_groups:,} groups")
            table["found"][label] = _told(report)
            del allocation, report
    return table


def _masks(allocation: Allocation, groups: GroupedTokens, corpus: CorpusTokens, seed: int) -> None:
    """Make the masks of some steps of training, as a bank of one member takes them."""
    rng = np.random.default_rng(seed)
    for _ in range(MASKED_STEPS):
        chosen = rng.integers(len(corpus), size=STEP_TEXTS)
        trees = [TokenTree.chain(corpus.segments(int(document))[0].tolist()) for document in chosen]
        allocation.mask(groups.groups[chosen].tolist(), trees)


def _told(report: dict[str, Any]) -> Table:
    """Return the figures of a report, without its lists."""
    near = report.get("near", {})
    kept = ("correlation", "expected_correlation", "standard_error", "unshared", "sampled", "jaccard_share")
    found = {name: report[name] for name in kept if name in report}
    return found | {f"near {name}": value for name, value in near.items() if name not in ("pairs", "found_with")}


def plain(documents: int, tokens: int, memory_dim: int, clusters: int, entries: int, seed: int) -> Table:
    """Do the same by all pairs and a table of groups times entries, and compare.

    Groups are as many as there are documents that are no copies: near documents are then all there is to join.

    Raises:
        AssertionError: a set or a pair is another.
    """
    table: Table = {"seconds": {}, "peak_bytes": {}}
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_tokens(
            Path(folder) / "tokens.arrow", texts(documents, tokens, seed), tokenizer(), tokens // 2, 2
        )
    groups = GroupedTokens(corpus)
    report = allocation_report(build_allocation("simset2", "dim", groups, memory_dim, seed, entries), groups)
    near = group_near_documents(corpus, documents - documents // COPIED).groups
    start = time.process_time()
    nested = [[segment.tolist() for segment in corpus.segments(document)] for document in range(documents)]
    dense = build_allocation("simset2", "dim", nested, memory_dim, seed, entries).table
    similarity = jaccard_matrix([shingle_set(segments, 2) for segments in nested])
    left, right = np.triu_indices(documents, k=1)
    drawn = np.sort(np.random.default_rng(0).choice(len(left), min(MAX_PAIRS, len(left)), replace=False))
    pairs = list(zip(left[drawn].tolist(), right[drawn].tolist(), strict=True))
    found = [(a, b, float(similarity[a, b]), int((dense[a] & dense[b]).sum())) for a, b in pairs]
    table["seconds"]["analyse"] = time.process_time() - start
    table["peak_bytes"]["analyse"] = _peak()
    del similarity, dense
    assert [(p["left"], p["right"], p["jaccard"], p["shared"]) for p in report["pairs"]] == found
    start = time.process_time()
    exact = group_documents([corpus.document(document) for document in range(documents)], int(near.max()) + 1)
    table["seconds"]["group"] = time.process_time() - start
    table["peak_bytes"]["group"] = _peak()
    return table | {"same_groups": near.tolist() == exact}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request.pop("threads"))
    print(json.dumps({"measure": measure, "plain": plain}[request.pop("what")](**request)))
