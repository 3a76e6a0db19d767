"""A corpus prepared on two raylets, their CPUs held by trials: `python -m tests.trainables.pack.spread FOLDER`.

Prints as JSON what came out here, what came out there, and on which nodes the pieces were computed; with `kill` as a
second argument, the second raylet is killed while it computes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.made_up_texts import texts, tokenizer
from trainables.adapters.memory import grouped_tokens
from trainables.adapters.memory.allocation import build_allocation
from trainables.adapters.memory.grouped_tokens import GroupedTokens
from trainables.adapters.memory.near import sketches_of
from trainables.lm import token_files, token_tables
from trainables.lm.token_files import write_tokens
from trainables.node.map_batches import Make, MapBatches, map_here
from trainables.pack import ray_data_map
from trainables.pack.ray_data_map import RayDataMap

DOCUMENTS, TOKENS, PIECE = 600, 40, 25
PIECES = DOCUMENTS // PIECE
SLEEP_S = 0.2


def small_pieces() -> None:
    """Have this process cut a small corpus into many pieces, and those into several windows."""
    token_tables.BATCH_DOCUMENTS, token_files.PIECE_DOCUMENTS, token_files.ROWS = 10, PIECE, 90
    grouped_tokens.PIECE_TOKENS = PIECE * TOKENS
    ray_data_map.WINDOW_BYTES = 10 * PIECE * TOKENS * 8


def prepared(map_batches: MapBatches, folder: Path) -> dict[str, str]:
    """Return the hashes of all that is made of a corpus by pieces."""
    model = folder / "tokenizer"
    tokenizer().save_pretrained(model)
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(model)
    shutil.rmtree(model)  # another machine has not got it
    every = [*texts(DOCUMENTS - 2, TOKENS, 0), "", "kla"]
    corpus = write_tokens(folder / "tokens.arrow", every, loaded, TOKENS // 2, 2, map_batches)
    found = {"file": (folder / "tokens.arrow").read_bytes()}
    groups = np.random.default_rng(1).permutation(np.arange(DOCUMENTS) % 50)
    for name, grouped in {
        "each": GroupedTokens(corpus, None, map_batches),
        "grouped": GroupedTokens(corpus, groups, map_batches),
    }.items():
        found[f"sketches {name}"] = sketches_of(grouped, 2).tobytes()
    for granularity in ("dim", "token"):
        allocation = build_allocation("simset2", granularity, grouped, 256, 3, 5)
        for group in range(50):
            found[f"{granularity} {group}"] = allocation.entries(group).tobytes()
        found[f"{granularity} sizes"] = np.asarray(allocation.lists.sizes).tobytes()
        found[f"{granularity} load"] = allocation.lists.load(np.arange(50)).tobytes()
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


class Spied:
    """Maps as `RayDataMap` does, and has each piece noted in a folder under the node that computed it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        folder = self.folder

        def noted(table: pa.Table) -> Iterator[pa.Table]:
            import ray

            time.sleep(SLEEP_S)
            with (folder / ray.get_runtime_context().get_node_id()).open("a") as file:
                file.write(f"{os.getpid()}\n")
            yield from make(table)

        return RayDataMap()(noted, tables)


def main(folder: Path, kill: bool) -> dict[str, Any]:
    import ray
    from ray.cluster_utils import Cluster
    from ray.util.placement_group import placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    nodes = folder / "nodes"
    for each in ("here", "there", "nodes"):
        (folder / each).mkdir()
    small_pieces()
    here = prepared(map_here, folder / "here")
    sizes = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    second = cluster.add_node(**sizes)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    driver = ray.get_runtime_context().get_node_id()

    class Trial:
        """Holds a CPU, as a trial's process does, within a placement group that its tasks are kept to by default."""

        def prepare(self) -> dict[str, str]:
            small_pieces()
            return prepared(Spied(nodes), folder / "there")

    def on(node_id: str) -> Any:
        group = placement_group([{"CPU": 1}], _soft_target_node_id=node_id, strategy="STRICT_PACK")
        where = PlacementGroupSchedulingStrategy(group, 0, placement_group_capture_child_tasks=True)
        return ray.remote(num_cpus=1)(Trial).options(scheduling_strategy=where).remote()

    trials = [on(driver), on(second.node_id)]
    assert ray.get([trial.__ray_ready__.remote() for trial in trials]) and "CPU" not in ray.available_resources()
    made = trials[0].prepare.remote()
    if kill:

        def end() -> None:
            while not (nodes / second.node_id).is_file():
                time.sleep(0.01)
            cluster.remove_node(second, allow_graceful=False)

        killer = threading.Thread(target=end, daemon=True)
        killer.start()
    there = ray.get(made)
    counts = {path.name: Counter(path.read_text().split()) for path in nodes.iterdir()}
    pieces = {"driver" if node == driver else "second": sum(by.values()) for node, by in counts.items()}
    alive = sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()
    cluster.shutdown()
    return {"here": here, "there": there, "pieces": pieces, "alive": alive}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), "kill" in sys.argv[2:])))
