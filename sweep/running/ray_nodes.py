"""The nodes of a Ray cluster: what they offer, and what each is asked or made to do before trials run on it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.records.sweep_storage import SweepStorage
from sweep.running.ray_environment import secrets_of_workers
from trainables.errors import ConfigError
from trainables.lm.card import ModelCard
from trainables.node.addresses import shown
from trainables.node.machine import check_storage, gpu_memory_bytes, machine_memory_bytes, with_secrets

COUNTED_S = 5.0
"""For how long a count of the nodes is good."""


@dataclass(frozen=True)
class Nodes:
    """What the cluster offers.

    Attributes:
        cpus: CPUs of each node.
        gpus: GPUs of each node, in the same order.
        attached: whether the cluster was there before.
    """

    cpus: tuple[float, ...]
    gpus: tuple[float, ...]
    attached: bool

    def slots(self, cpus: float, gpus: float) -> int:
        """Return how many trials of this size run at once.

        Raises:
            ConfigError: no node is large enough for one.
        """
        count = self.fitting(cpus, gpus)
        if count == 0:
            raise ConfigError(
                f"cpus-per-trial={cpus:g}, gpus-per-trial={gpus:g}: no node has that much; the largest has "
                f"{max(self.cpus, default=0):g} CPUs and {max(self.gpus, default=0):g} GPUs; ask for less"
            )
        return count

    def fitting(self, cpus: float, gpus: float) -> int:
        """Return how many trials of this size run at once; 0 where no node is large enough."""
        count = 0
        for has_cpus, has_gpus in zip(self.cpus, self.gpus, strict=True):
            count += int(min(has_cpus / cpus if cpus else 1e9, has_gpus / gpus if gpus else 1e9) + 1e-9)
        return count


def nodes_now(attached: bool) -> Nodes:
    """Return what the nodes that are alive now offer."""
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Nodes(tuple(r.get("CPU", 0.0) for r in resources), tuple(r.get("GPU", 0.0) for r in resources), attached)


class Slots:
    """How many packs run at once, as nodes come and go.

    Args:
        cpus: of a pack.
        gpus: of a pack.
        most: packs at once, whatever the nodes offer; None for no limit.
    """

    def __init__(self, cpus: float, gpus: float, most: int | None) -> None:
        """Count at the first call."""
        self._cpus, self._gpus, self._most = cpus, gpus, most
        self._count, self._good_until = 0, 0.0

    def __call__(self) -> int:
        """Return the number; 0 while no node is large enough."""
        if time.monotonic() >= self._good_until:
            self._count = nodes_now(True).fitting(self._cpus, self._gpus)
            self._good_until = time.monotonic() + COUNTED_S
        return self._count if self._most is None else min(self._count, self._most)


def check_shared_storage(storage: SweepStorage) -> None:
    """Write on the driver, read and write on every node, so that records and checkpoints reach one place.

    Raises:
        ConfigError: a node does not see the storage; the node is named.
    """
    mark = uuid.uuid4().hex
    probe = f".probe-{mark[:8]}"
    storage.write(probe, mark.encode())
    try:
        for node, problem in on_every_node(check_storage, storage.full(), probe, mark).items():
            if problem:
                raise ConfigError(
                    f"storage={shown(storage.full())!r}: node {node} does not share it ({problem}); use a folder that "
                    "all nodes mount, or s3://… with keys that this process (AWS_ACCESS_KEY_ID, …) or every node has"
                )
    finally:
        storage.delete(probe)


def prepare_nodes(data: Sequence[tuple[str, bool]], cards: Sequence[ModelCard]) -> None:
    """Make data and models ready on every node of the attached cluster that can run trials, all at once.

    Raises:
        ConfigError: a node cannot; the node is named.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from trainables.lm.node_inputs import prepare_node

    task = ray.remote(num_cpus=0)(with_secrets)
    waited = {}
    for node in ray.nodes():
        if node["Alive"] and (node["Resources"].get("CPU") or node["Resources"].get("GPU")):
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            started = task.options(scheduling_strategy=where).remote(secrets_of_workers(), prepare_node, data, cards)
            waited[started] = node["NodeManagerHostname"]
    print(f"data and models: making sure that {len(waited)} node(s) have them", flush=True)
    for reference, host in waited.items():
        try:
            problem = ray.get(reference)
        except ray.exceptions.RayError as error:
            problem = first_line(error)
        if problem:
            raise ConfigError(f"node {host}: {problem}")


def pack_memory_bytes(gpus: float, slots: int, only_here: bool = False) -> float:
    """Return the memory of the device for one pack, on the node that has least.

    That is the pack's share of a GPU, or of half of a machine's memory.

    Args:
        gpus: of a pack.
        slots: packs at once.
        only_here: whether this machine is the only node; its own memory is read without a process of Ray's (a second
            or two of every start).

    Raises:
        ConfigError: no node could say.
    """
    if only_here and not gpus:
        answers: dict[str, Any] = {"this machine": machine_memory_bytes()}
    else:
        answers = on_every_node(gpu_memory_bytes if gpus else machine_memory_bytes, gpus=gpus)
    found = [answer for answer in answers.values() if isinstance(answer, float)]
    if not found:
        raise ConfigError(f"no node could say how much memory it has ({answers}); give --pack-size")
    return min(found) * min(1.0, gpus) if gpus else min(found) / 2 / max(1, -(-slots // len(found)))


def on_every_node(ask: Callable[..., Any], *args: Any, gpus: float = 0.0, limit_s: float = 60.0) -> dict[str, Any]:
    """Call a function on every node that is alive, all at once; return what it gives by node.

    With `gpus`, on those that have as many, and with these. A node that cannot say it gives the reason as text.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, num_gpus=gpus)(with_secrets)
    waited = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus:
            where = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            waited[f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"] = task.options(
                scheduling_strategy=where
            ).remote(secrets_of_workers(), ask, *args)
    end = time.monotonic() + limit_s
    found = {}
    for name, reference in waited.items():
        try:
            found[name] = ray.get(reference, timeout=max(0.1, end - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            found[name] = f"it did not answer within {limit_s:g} s"
        except ray.exceptions.RayError as error:
            found[name] = first_line(error)
    return found


def first_line(error: BaseException) -> str:
    """Return the beginning of what an error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
