"""One storage of each kind."""

from __future__ import annotations

import pytest

from trainables.node.addresses import KEYS_VARIABLE
from trainables.node.storage import Storage


@pytest.fixture
def storage(any_address: str) -> Storage:
    return Storage(any_address)


@pytest.fixture(autouse=True)
def no_kept_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the keys of addresses that other tests used: the server is the same."""
    monkeypatch.setenv(KEYS_VARIABLE, "{}")
