"""Whole files by path or URI: atomic, joined with their options kept."""

from __future__ import annotations

import os

import pytest

from trainables.node.storage import delete, exists, join, local_path, read_bytes, write_bytes


def test_what_is_written_is_read_and_a_missing_file_is_said(tmp_path):
    place = join(str(tmp_path), "a", "b.bin")
    assert not exists(place)
    write_bytes(place, b"one")
    write_bytes(place, b"two")
    assert exists(place) and read_bytes(place) == b"two"
    assert os.listdir(tmp_path / "a") == ["b.bin"]
    delete(place)
    delete(place)
    with pytest.raises(FileNotFoundError):
        read_bytes(place)


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    place = str(tmp_path / "b.bin")
    write_bytes(place, b"old")
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        write_bytes(place, b"new")
    assert read_bytes(place) == b"old" and os.listdir(tmp_path) == ["b.bin"]


def test_parts_are_joined_before_a_uris_options():
    assert join("s3://bucket/prefix?endpoint_override=h:1", "x") == "s3://bucket/prefix/x?endpoint_override=h:1"
    assert join("/plain/odd?name/", "x") == "/plain/odd?name/x"
    assert local_path("file:///a/b").as_posix() == "/a/b"
