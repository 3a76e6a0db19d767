from __future__ import annotations

from pathlib import Path

import pytest

from trainables.data import fingerprint
from trainables.data.fingerprint import fingerprint_files
from trainables.errors import DataError


def test_order_and_folder_do_not_matter_but_names_do(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("2")
    (tmp_path / "sub").mkdir()
    moved = tmp_path / "sub" / "a"
    moved.write_text("1")
    assert fingerprint_files([a, b]) == fingerprint_files([b, moved])
    b.write_text("1")
    assert fingerprint_files([a]) != fingerprint_files([b])


def test_a_change_anywhere_in_a_whole_file_shows(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 1000)
    before = fingerprint_files([path])
    path.write_bytes(b"x" * 500 + b"y" + b"x" * 499)
    assert fingerprint_files([path]) != before


@pytest.mark.parametrize("place", [0, -1])
def test_head_and_tail_of_a_large_file_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_BYTES", 10_000)
    monkeypatch.setattr(fingerprint, "SAMPLE_BYTES", 10)
    path = tmp_path / "a"
    content = bytearray(100_000)
    path.write_bytes(content)
    before = fingerprint_files([path])
    content[place] = 1
    path.write_bytes(content)
    assert fingerprint_files([path]) != before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: cannot be read"):
        fingerprint_files([tmp_path / "gone"])
