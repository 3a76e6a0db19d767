"""What is made of many tables: the same here, pickled, and by Ray Data, on one raylet, on two, and on one left."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray import cloudpickle
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayTaskError

from tests.rows import OpenRow
from tests.trainables.pack import spread
from trainables.adapters.memory import grouped_tokens
from trainables.errors import OWN_KINDS
from trainables.lm import token_files, token_tables
from trainables.node.map_batches import Make, MapBatches, map_here
from trainables.pack import ray_data_map
from trainables.pack.ray_data_map import ClusterTrouble, RayDataMap, Room, _in_order

ROOT = Path(__file__).parents[3]


def map_pickled(make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Map as another machine would have to: with what can be sent there, some tables made one."""
    sent = cloudpickle.dumps(make)
    assert len(sent) < 3e6, "more than a tokenizer goes along"
    made = [table for each in tables for table in cloudpickle.loads(sent)(each)]
    for start in range(0, len(made), 3):
        yield pa.concat_tables(made[start : start + 3])


@pytest.fixture(scope="module")
def one_raylet() -> Iterator[None]:
    """A Ray of two CPUs, which something holds: two tasks run at a time, and may end in another order."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
    )  # fmt: skip

    class Trial:
        def holds(self) -> bool:
            return True

    held = ray.remote(num_cpus=2)(Trial).remote()
    assert ray.get(held.holds.remote())
    yield
    ray.shutdown()


@pytest.fixture(params=["here", "pickled", pytest.param("ray data", marks=pytest.mark.slow)])
def map_batches(request: pytest.FixtureRequest) -> MapBatches:
    """Every implementation there is, and a stand-in for the one that needs Ray."""
    if request.param == "ray data":
        request.getfixturevalue("one_raylet")
        return RayDataMap()
    return {"here": map_here, "pickled": map_pickled}[request.param]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that a small corpus has many, in several windows; all is as it was afterwards."""
    for module, names in (
        (token_files, ("PIECE_DOCUMENTS", "ROWS")),
        (token_tables, ("BATCH_DOCUMENTS",)),
        (grouped_tokens, ("PIECE_TOKENS",)),
        (ray_data_map, ("WINDOW_BYTES",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name))
    spread.small_pieces()


def numbers(tables: Iterable[pa.Table]) -> list[int]:
    return [number for table in tables for number in table.column("x").to_pylist()]


def test_what_is_made_comes_in_order_and_whole(map_batches: MapBatches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_data_map, "WINDOW_BYTES", 5 * 8 * 3)

    def make(table: pa.Table) -> Iterator[pa.Table]:
        import time

        (first, *_) = table.column("x").to_pylist()
        time.sleep(0.2 if first % 4 == 0 else 0)  # who begins first ends last
        yield table
        yield table.slice(1, 1)

    tables = [pa.table({"x": [place, 100 + place, 200 + place]}) for place in range(11)]
    expected = [n for place in range(11) for n in (place, 100 + place, 200 + place, 100 + place)]
    assert numbers(map_batches(make, iter(tables))) == expected
    assert numbers(map_batches(make, [])) == []
    assert numbers(map_batches(make, tables[:1])) == [0, 100, 200, 100]


@pytest.mark.slow
def test_the_first_piece_comes_first_though_it_is_made_last(one_raylet: None, tmp_path: Path) -> None:
    def make(table: pa.Table) -> Iterator[pa.Table]:
        import time

        (number,) = table.column("x").to_pylist()
        while number == 0 and not (tmp_path / "1").exists():
            time.sleep(0.02)
        yield table
        (tmp_path / str(number)).touch()

    assert numbers(RayDataMap()(make, [pa.table({"x": [place]}) for place in range(4)])) == [0, 1, 2, 3]


def test_a_corpus_is_prepared_alike(map_batches: MapBatches, small: None, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    found = spread.prepared(map_batches, tmp_path / "one")
    small_here = spread.prepared(map_here, tmp_path / "other")
    assert found == small_here and len(set(found.values())) > 50


def test_pieces_of_any_size_give_the_same(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    found = spread.prepared(map_here, tmp_path / "one")
    monkeypatch.setattr(token_files, "PIECE_DOCUMENTS", 1000)
    monkeypatch.setattr(grouped_tokens, "PIECE_TOKENS", 1 << 22)
    assert spread.prepared(map_here, tmp_path / "other") == found


def test_one_table_needs_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_data_map, "_mapped", lambda *_: pytest.fail("Ray Data was asked"))
    assert numbers(RayDataMap()(lambda table: [table], [pa.table({"x": [1, 2]})])) == [1, 2]


@pytest.mark.parametrize(
    ("came", "told"),
    [
        ([0, 2, 1], "piece 2 of a corpus after piece 0"),
        ([1, 2], "piece 1 of a corpus after piece -1"),
        ([0, 1], "2 of 3 pieces"),
        ([0, 1, 1, 0, 2], "piece 0 of a corpus after piece 1"),
        ([], "0 of 3 pieces"),
    ],
)
def test_a_piece_that_is_missing_or_out_of_place_ends_it(came: list[int], told: str) -> None:
    tables = [pa.table({"x": [1, 1], "piece": [number] * 2}) for number in came]
    with pytest.raises(ClusterTrouble, match=told):
        list(_in_order(tables, 3))
    kept = list(_in_order([pa.table({"x": [1, 1, 2], "piece": [0, 1, 1]}), pa.table({"x": [3], "piece": [2]})], 3))
    assert numbers(kept) == [1, 1, 2, 3] and kept[0].column_names == ["x"]


def failed(error: Exception) -> RayTaskError:
    return RayTaskError(
        "make", f"Traceback (most recent call last): …\n{type(error).__name__}: {error}", error
    ).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (failed(MemoryError("no room")), "process"),
        (OutOfMemoryError("node running low on memory"), "process"),
        (NodeDiedError("its node has died"), "process"),
        (failed(OSError(errno.ENOSPC, "No space left on device")), "io"),
        (failed(KeyError("x")), "bug"),
    ],
)
def test_what_fails_on_the_cluster_is_never_a_trials_result(error: Exception, kind: str) -> None:
    assert ClusterTrouble.of(error).kind == kind and kind not in OWN_KINDS


@pytest.mark.slow
def test_a_failure_in_a_task_is_told_as_a_machines(one_raylet: None) -> None:
    def make(table: pa.Table) -> Iterator[pa.Table]:
        raise MemoryError("no room for it")
        yield table

    with pytest.raises(ClusterTrouble, match="no room for it") as raised:
        list(RayDataMap()(make, [pa.table({"x": [place]}) for place in range(3)]))
    assert raised.value.kind == "process"


def test_there_are_as_many_tasks_as_cpus_each_with_its_share_of_memory() -> None:
    def node(name: str, alive: bool = True, **resources: float) -> dict[str, object]:
        return {"NodeID": name, "Alive": alive, "Resources": resources}

    nodes = [node("a", CPU=4, memory=8e9), node("b", CPU=2, memory=2e9), node("head", memory=9e9)]
    nodes.append(node("gone", False, CPU=9, memory=1e9))
    room = Room.of(nodes)
    assert (room.tasks, room.task_bytes, room.left_out) == (6, 10**9, ("head",))
    assert room.told == {"label_selector": {"ray.io/node-id": "!in(head)"}} and Room.of(nodes[:2]).told == {}
    assert Room.of([node("a", CPU=1)]).task_bytes is None


def on_two_raylets(folder: Path, *more: str) -> dict[str, dict[str, int]]:
    """Run `spread` in a process of its own and return what it says; both ways must have come to the same."""
    patient = {
        "RAY_agent_register_timeout_ms": "240000",
        "RAY_raylet_start_wait_time_s": "240",
        "RAY_worker_niceness": "0",
    }
    env = {**os.environ, **patient, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    call = [sys.executable, "-m", "tests.trainables.pack.spread", str(folder), *more]
    done = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["there"] == said["here"]
    return said


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_two_nodes_whose_cpus_are_held_share_the_work_and_give_the_same(tmp_path: Path) -> None:
    said = on_two_raylets(tmp_path)
    assert said["alive"] == 2 and set(said["pieces"]) == {"driver", "second"}, said["pieces"]
    assert sum(said["pieces"].values()) == 5 * spread.PIECES and min(said["pieces"].values()) >= spread.PIECES


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_node_that_dies_on_the_way_changes_nothing(tmp_path: Path, row: OpenRow) -> None:
    row("a raylet is killed while it computes pieces of a corpus", 1, "the other makes them; the same bytes")
    said = on_two_raylets(tmp_path, "kill")
    assert said["alive"] == 1 and said["pieces"]["second"] >= 1
