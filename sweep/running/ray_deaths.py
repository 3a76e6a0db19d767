"""Why a process of Ray's is gone: from what Ray says, and from the kernel's count of processes that it ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from trainables.errors import Failure, kind_of_text
from trainables.node.addresses import shown
from trainables.node.machine import oom_kills

ASK_S = 20.0
"""How long a node is asked for its count; one that does not answer says nothing."""
_NODE_LOST = re.compile(r"NodeDiedError|its node has died|node was (dead|terminated|drained)|NODE_DIED", re.IGNORECASE)
_DIED = re.compile(r"ActorDiedError|ActorUnavailableError|WorkerCrashedError|Worker exit type|worker process has died")
_EXIT = re.compile(r"Worker exit type: (\w+).*?(?:Worker exit detail: (.*))?$", re.DOTALL)


class Deaths:
    """Remembers on which node each pack runs and how many processes the kernel had ended there for want of memory."""

    def __init__(self) -> None:
        """Start with this machine's count; the others' come with the reports."""
        self._nodes: dict[str, str] = {}
        self._hosts: dict[str, str] = {}
        self._kills: dict[str, int] = {}
        self._kills_here = oom_kills()

    def hear(self, pack: str, report: Mapping[str, Any]) -> None:
        """Take note of where a pack runs."""
        node = report["node"]
        self._nodes[pack] = node
        if node not in self._hosts:
            self._hosts[node] = _host(node)
        self._kills.setdefault(node, report.get("oom_kills", 0))

    def forget(self, pack: str) -> None:
        """Take note that a pack has ended."""
        self._nodes.pop(pack, None)

    def explain(self, pack: str, trial: Any) -> Failure:
        """Return why a pack's process is gone.

        Args:
            pack: its id.
            trial: Tune's, in error.
        """
        text, preempted = _what_ray_says(trial)
        text = shown(text)
        node = self._nodes.pop(pack, "")
        where = {"host": self._hosts.get(node, ""), "node": node}
        detail = _detail(text)
        if preempted or _NODE_LOST.search(text) or (node and not _is_alive(node)):
            return Failure("preemption", f"its node went away ({detail})", **where)
        kind = kind_of_text(_without_guesses(text))
        if kind == "memory":
            return Failure("memory", f"out of memory: its process was ended by Ray ({detail})", text, **where)
        if self._kernel_killed(node):
            return Failure("memory", "out of memory: its process was ended by the kernel", text, **where)
        if kind == "bug" and not _DIED.search(text):
            return Failure("bug", detail, text, **where)
        return Failure("process" if kind == "bug" else kind, f"its process died ({detail})", text, **where)

    def _kernel_killed(self, node: str) -> bool:
        """Whether the kernel has ended a process of this node for want of memory since it was last asked."""
        import ray

        here = not node or node == ray.get_runtime_context().get_node_id()
        if here:
            before, self._kills_here = self._kills_here, oom_kills()
            return self._kills_here > before
        now = _ask(node)
        before = self._kills.get(node, now)
        self._kills[node] = now
        return now > before


def usable_nodes(resources: Mapping[str, float]) -> frozenset[str]:
    """Return the ids of the nodes that are alive and large enough for a pack."""
    import ray

    needed = {name.upper(): amount for name, amount in resources.items()}
    return frozenset(
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(name, 0.0) >= amount for name, amount in needed.items())
    )


def _is_alive(node: str) -> bool:
    import ray

    return any(known["NodeID"] == node and known["Alive"] for known in ray.nodes())


def _host(node: str) -> str:
    import ray

    return next((str(n["NodeManagerHostname"]) for n in ray.nodes() if n["NodeID"] == node), "")


def _ask(node: str) -> int:
    """Return the count of a node; 0 where it cannot be asked."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(oom_kills)
    try:
        return int(ray.get(task.options(scheduling_strategy=where).remote(), timeout=ASK_S))
    except ray.exceptions.RayError:
        return 0


def _what_ray_says(trial: Any) -> tuple[str, bool]:
    """Return the error's text, and whether Ray calls it a preemption."""
    from ray import cloudpickle

    try:
        with open(trial.pickled_error_file, "rb") as file:
            error = cloudpickle.load(file)
    except Exception:  # whatever cannot be unpickled here, its text is there too
        try:
            with open(trial.error_file, encoding="utf-8") as file:
                return file.read(), False
        except (OSError, TypeError):
            return "no reason given", False
    return f"{type(error).__name__}: {error}", bool(getattr(error, "preempted", False))


def _without_guesses(text: str) -> str:
    """Leave out Ray's list of what may have been the reason: it names memory whatever the reason was."""
    return re.sub(r"There are some potential root causes.*?(?=$|\n\n)", "", text, flags=re.DOTALL)


def _detail(text: str) -> str:
    """Return the telling part of what Ray says, in one line."""
    found = _EXIT.search(_without_guesses(text))
    words = " ".join((found.group(2) or found.group(1)).split()) if found else " ".join(text.split())
    return words[:300]
