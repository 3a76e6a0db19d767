"""What the driver asks of a node."""

from __future__ import annotations

from trainables.node.machine import check_storage, machine_memory_bytes
from trainables.node.storage import Storage


def test_a_node_that_shares_the_storage_has_nothing_to_say_and_leaves_it_as_it_was(any_address: str) -> None:
    storage = Storage(any_address)
    storage.write("probe", b"text")
    assert check_storage(storage.uri, "probe", "text") == ""
    assert storage.read("probe") == b"text" and check_storage(storage.uri, "probe", "text") == ""
    assert "something else" in check_storage(storage.uri, "probe", "another")
    assert "no such file" in check_storage(storage.uri, "missing", "text")


def test_a_machine_has_some_memory() -> None:
    assert machine_memory_bytes() > 2**28
