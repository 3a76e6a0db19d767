"""The cache gives back what it was given, or nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from trainables.lm import hidden_cache
from trainables.lm.hidden_cache import ABANDONED_S, HiddenCache
from trainables.node import node_lock

GROUP = "model/float32/layer_1"


def rows(*lengths: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{seed:04x}{index:028x}": torch.randn(length, 8, generator=generator).to(dtype)
        for index, length in enumerate(lengths)
    }


def shards(cache: HiddenCache) -> list[Path]:
    return sorted(cache.root.rglob("*.safetensors"), key=lambda path: path.stat().st_mtime)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_process_reads_what_was_put(tmp_path: Path, dtype: torch.dtype) -> None:
    hidden = rows(3, 1, 7, dtype=dtype)
    returned = HiddenCache(tmp_path).put(GROUP, hidden)
    read = HiddenCache(tmp_path).get(GROUP, hidden)
    assert returned.keys() == read.keys() == hidden.keys()
    for digest, expected in hidden.items():
        assert read[digest].dtype == dtype
        assert torch.equal(read[digest], expected) and torch.equal(returned[digest], expected)


def test_only_what_is_there_is_returned(tmp_path: Path) -> None:
    cache, hidden, other = HiddenCache(tmp_path), rows(3, 1), rows(2, seed=1)
    cache.put(GROUP, hidden)
    assert cache.get(GROUP, [*hidden, *other]).keys() == hidden.keys()
    assert cache.missing(GROUP, [*hidden, *other]) == set(other)
    assert cache.get("model/float32/layer_2", hidden) == {}


def test_rows_are_views_of_one_mapped_file(tmp_path: Path) -> None:
    HiddenCache(tmp_path).put(GROUP, rows(3, 5))
    first, second = HiddenCache(tmp_path).get(GROUP, rows(3, 5)).values()
    assert second.data_ptr() == first.data_ptr() + first.nbytes
    assert first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def test_a_shard_of_another_process_is_seen_and_a_deleted_one_forgotten(tmp_path: Path) -> None:
    here, there, hidden = HiddenCache(tmp_path), HiddenCache(tmp_path), rows(3)
    assert here.get(GROUP, hidden) == {}
    there.put(GROUP, hidden)
    (held,) = here.get(GROUP, hidden).values()
    (path,) = shards(here)
    path.unlink()
    assert here.get(GROUP, hidden) == {}
    assert torch.equal(held, hidden[next(iter(hidden))]), "still readable for those who hold it"


@pytest.mark.parametrize("damage", ["rows", "digests", "cut short", "header", "empty"])
def test_a_damaged_file_is_deleted_with_a_warning(tmp_path: Path, damage: str) -> None:
    hidden = rows(3, 4)
    HiddenCache(tmp_path).put(GROUP, hidden)
    cache = HiddenCache(tmp_path)
    (path,) = shards(cache)
    content = bytearray(path.read_bytes())
    if damage in ("rows", "digests", "header"):
        content[{"rows": -100, "digests": -20, "header": 12}[damage]] ^= 1
    path.write_bytes({"cut short": content[:-9], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match="deleted from the cache"):
        assert cache.get(GROUP, hidden) == {}
    assert not path.exists() and cache.missing(GROUP, hidden) == set(hidden)


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    old, used, new = rows(100, seed=1), rows(100, seed=2), rows(100, seed=3)
    cache = HiddenCache(tmp_path, limit_bytes=8500)
    for age, hidden in ((300, old), (600, used)):
        cache.put(GROUP, hidden)
        path = shards(cache)[-1]
        os.utime(path, (time.time() - age,) * 2)
    cache.get(GROUP, used)
    cache.put(GROUP, new)
    assert sum(path.stat().st_size for path in shards(cache)) <= 8500
    assert cache.missing(GROUP, [*old, *used, *new]) == {*old}


def test_what_was_just_written_stays_even_above_the_limit(tmp_path: Path) -> None:
    cache, hidden = HiddenCache(tmp_path, limit_bytes=10), rows(50)
    returned = cache.put(GROUP, hidden)
    assert torch.equal(*(part[next(iter(hidden))] for part in (returned, hidden)))
    assert cache.missing(GROUP, hidden) == set()


def test_unfinished_files_are_not_read_and_old_ones_go(tmp_path: Path) -> None:
    cache, hidden = HiddenCache(tmp_path), rows(3)
    folder = tmp_path / GROUP
    folder.mkdir(parents=True)
    fresh, old = folder / "a.safetensors.tmp", folder / "b.safetensors.tmp"
    fresh.write_bytes(b"half")
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * ABANDONED_S,) * 2)
    assert cache.get(GROUP, hidden) == {}
    cache.put(GROUP, hidden)
    assert fresh.exists() and not old.exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        Path(str(args[1])).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("trainables.lm.hidden_cache.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        HiddenCache(tmp_path).put(GROUP, rows(3))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_thousands_of_short_texts_are_one_file_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(hidden_cache, "safe_open", lambda *args, **kw: opened.append(args[0]) or safe_open(*args, **kw))
    hidden = rows(*[20] * 5000)
    HiddenCache(tmp_path).put(GROUP, hidden)
    assert len(opened) == 1
    cache = HiddenCache(tmp_path)
    assert len(cache.get(GROUP, hidden)) == len(cache.get(GROUP, hidden)) == 5000
    assert len(opened) == 2 and len(shards(cache)) == 1


def test_shards_that_come_and_go_change_what_is_found(tmp_path: Path) -> None:
    one, other = HiddenCache(tmp_path), HiddenCache(tmp_path)
    first, second = rows(3, 4, seed=1), rows(2, seed=2)
    other.put(GROUP, first)
    assert one.missing(GROUP, [*first, *second]) == set(second)
    other.put(GROUP, second)
    assert one.missing(GROUP, [*first, *second]) == set()
    other.put(GROUP, {**first, **rows(5, seed=3)})
    assert len(one.get(GROUP, first)) == 2
    oldest = min(shards(one), key=lambda path: path.stat().st_mtime_ns)
    oldest.unlink()
    assert one.missing(GROUP, first) == set(), "another shard has them"
    for path in shards(one):
        path.unlink()
    assert one.missing(GROUP, [*first, *second]) == {*first, *second}


def test_looking_again_reads_no_shard_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = rows(*[2] * 500)
    HiddenCache(tmp_path).put(GROUP, hidden)
    cache = HiddenCache(tmp_path)
    found = cache._index(GROUP)
    assert len(found) == 500 and cache._index(GROUP) is found, "the index is kept"


def test_who_waits_says_for_whom_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node_lock, "SAY_S", 0.05)
    monkeypatch.setattr(node_lock, "LOCK_S", 0.2)
    with HiddenCache(tmp_path).lock("m"), HiddenCache(tmp_path).lock("m"):
        told = caplog.messages
    assert f"waiting for process {os.getpid()} of" in told[0] and "going on without it" in told[-1]
    caplog.clear()
    with HiddenCache(tmp_path).lock("m"):
        assert not caplog.messages, "it was released"


def test_the_limit_is_half_of_what_the_disk_would_have_free(tmp_path: Path) -> None:
    cache = HiddenCache(tmp_path / "not" / "made")
    free = hidden_cache.shutil.disk_usage(tmp_path).free
    assert abs(cache.limit_bytes() - free // 2) < 1e9 and HiddenCache(tmp_path, 7).limit_bytes() == 7
