"""One storage of each kind."""

from __future__ import annotations

import pytest

from trainables.node.storage import Storage


@pytest.fixture
def storage(any_address: str) -> Storage:
    return Storage(any_address)
