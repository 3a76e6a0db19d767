from __future__ import annotations

import hashlib
import os
import time
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


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, changed long enough ago, and a node's cache of its own."""
    monkeypatch.setattr(fingerprint, "LARGE_BYTES", 10_000)
    monkeypatch.setattr(fingerprint, "_SETTLED_S", 0.0)
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "large"
    path.write_bytes(bytes(100_000))
    time.sleep(0.05)
    return path


def _edit(path: Path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"1")


@pytest.mark.parametrize("place", [0, 99_999, *range(1_237, 99_000, 9_973)])
def test_every_byte_of_a_large_file_counts(large: Path, place: int) -> None:
    before = fingerprint_files([large])
    _edit(large, place)
    assert fingerprint_files([large]) != before


def test_a_large_file_is_read_once(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_files([large])
    monkeypatch.setattr(fingerprint, "_xxh3", lambda path: pytest.fail("read again"))
    assert fingerprint_files([large]) == before
    link = large.parent / "links" / "large"
    link.parent.mkdir()
    link.symlink_to(large)
    assert fingerprint_files([link]) == before


def test_a_change_shows_even_if_its_time_is_set_back(large: Path) -> None:
    before, times = fingerprint_files([large]), large.stat()
    _edit(large, 50_000)
    os.utime(large, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert large.stat().st_mtime_ns == times.st_mtime_ns and fingerprint_files([large]) != before


def test_a_file_that_has_just_changed_is_not_remembered(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_SETTLED_S", 60.0)
    fingerprint_files([large])
    assert not list((large.parent / "cache").rglob("*.json"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"digest": "xxh3:0"}'])
def test_a_broken_memory_of_digests_is_made_anew(large: Path, content: str) -> None:
    before = fingerprint_files([large])
    (held,) = (large.parent / "cache").rglob("*.json")
    held.write_text(content)
    assert fingerprint_files([large]) == before
    assert before == fingerprint_files([large]) and held.read_text() != content


def test_a_cache_that_cannot_be_written_costs_time_only(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint_files([large])
    (large.parent / "file").write_text("")
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(large.parent / "file"))
    assert fingerprint_files([large]) == before


def test_the_content_of_small_files_has_the_hash_it_always_had(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    line = f"a\t3\t{hashlib.sha256(b'abc').hexdigest()}"
    assert fingerprint_files([tmp_path / "a"]) == hashlib.sha256(line.encode()).hexdigest()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: cannot be read"):
        fingerprint_files([tmp_path / "gone"])
