"""Wait until a Ray cluster has so many nodes: `python infra/wait_for_nodes.py ADDRESS COUNT [SECONDS]`.

A sweep sees at its start whether there are GPUs, so it should not start before the first workers are there. The head
itself may not be up yet either; joining or attaching to a head that is not there can hang, so its port is tried first.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable


def wait_for_port(address: str, deadline: float) -> bool:
    """Return whether `HOST:PORT` takes connections before `deadline` (of `time.monotonic`)."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
            time.sleep(1)


def wait_for_count(count: int, alive: Callable[[], int], deadline: float, pause_s: float = 2.0) -> bool:
    """Return whether `alive` gives `count` or more before `deadline`; say when the number changes."""
    told = -1
    while True:
        found = alive()
        if found != told:
            print(f"{found} of {count} nodes", flush=True)
            told = found
        if found >= count:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)


def main(address: str, count: int, wait_s: float = 600.0) -> int:
    """Wait and return the exit status: 0 there, 1 not in time."""
    deadline = time.monotonic() + wait_s
    if address != "auto" and not wait_for_port(address, deadline):
        print(f"{address}: nothing answers after {wait_s:g} s", file=sys.stderr)
        return 1
    import ray

    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    if wait_for_count(count, lambda: sum(node["Alive"] for node in ray.nodes()), deadline):
        return 0
    print(f"{address}: fewer than {count} nodes after {wait_s:g} s", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])))
