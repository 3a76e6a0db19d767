"""Identity's price: a small file is measured, and an edit that does not show stops the measure."""

from __future__ import annotations

import pytest

from benchmarks import identity
from benchmarks.common import NotTheSame


def test_a_small_file_is_measured_and_told(monkeypatch):
    monkeypatch.setattr("trainables.data.fingerprint.LARGE_BYTES", 2**20)
    table = identity.measure(3 * 2**24, 1)
    assert table["bytes"] == 3 * 2**24 and set(table["speedup"]) == set(identity.RIVALS)
    assert table["seconds"]["remembered"]["median"] < table["seconds"]["first"]["median"]
    text = identity.lines(table)
    assert "0.1 GB of weights" in text[0] and any("blake2b" in line and "times faster" in line for line in text)


def test_an_edit_that_does_not_show_gives_no_ratio(monkeypatch):
    monkeypatch.setattr(identity, "fingerprint_files", lambda files: "the same")
    with pytest.raises(NotTheSame, match="flipped bit"):
        identity.measure(2**24, 1)
