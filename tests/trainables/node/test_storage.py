"""Whole files in a storage: one suite for every kind, then what only folders or only object stores have."""

from __future__ import annotations

import os
import re
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainables.errors import ConfigError, failure_kind
from trainables.node.addresses import shown
from trainables.node.connection import connect
from trainables.node.places import ObjectPlace
from trainables.node.storage import (
    ChangedMeanwhile,
    NoConditionalPut,
    Storage,
    StorageError,
    delete,
    exists,
    join,
    read_bytes,
    write_bytes,
)

# -- what every storage does


def test_what_is_written_is_read_and_a_later_write_replaces_it(storage):
    storage.write("a/b c/문서+=.bin", b"one")
    storage.write("a/b c/문서+=.bin", b"")
    storage.write("a/b c/문서+=.bin", b"two")
    assert storage.read("a/b c/문서+=.bin") == b"two" and storage.exists("a/b c/문서+=.bin")
    assert storage.find("a", "문서+=.bin") == ["a/b c/문서+=.bin"]


def test_a_large_file_stays_whole(storage):
    content = os.urandom(1 << 20) * 12
    storage.write("a/large", content)
    assert storage.read("a/large") == content


@pytest.mark.parametrize("path", ["b", "a/b", "a/c/b"])
def test_a_missing_file_is_said_and_no_error_to_delete(storage, path):
    storage.write("a/file", b"")
    assert not storage.exists(path)
    storage.delete(path)
    with pytest.raises(FileNotFoundError, match=path) as caught:
        storage.read(path)
    assert not isinstance(caught.value, StorageError)


def test_a_folder_is_no_file(storage):
    storage.write("a/b/c", b"")
    assert not storage.exists("a/b") and not storage.exists("a")


def test_folders_and_files_are_found_sorted_and_only_below_the_folder(storage):
    for path in ("b/trains/x/1/r", "b/trains/r", "a/trains/y/r", "b/trains2/r", "b/other/r", "b/trains/x/r2", "r"):
        storage.write(path, b"")
    assert storage.folders() == ["a", "b"] and storage.folders("b") == ["other", "trains", "trains2"]
    assert storage.find("b/trains", "r") == ["b/trains/r", "b/trains/x/1/r"]
    assert storage.find("none", "r") == storage.folders("none") == storage.folders("r") == []


def test_a_move_replaces_its_target(storage):
    storage.write("a/one", b"1")
    storage.write("a/two", b"2")
    storage.move("a/one", "a/two")
    assert storage.read("a/two") == b"1" and not storage.exists("a/one")


def test_a_deleted_file_is_gone(storage):
    storage.write("a/one", b"1")
    storage.delete("a/one")
    assert not storage.exists("a/one") and storage.find("a", "one") == []


def test_of_many_who_put_what_must_not_be_there_one_succeeds(storage):
    def put(number):
        together.wait()
        try:
            storage.put_if_absent("a/lease", b"%d" % number)
        except ChangedMeanwhile:
            return None
        return b"%d" % number

    together = threading.Barrier(6)
    with ThreadPoolExecutor(6) as pool:
        (winner,) = [found for found in pool.map(put, range(6)) if found is not None]
    assert storage.read("a/lease") == winner


def test_a_version_changes_with_every_write_and_is_of_the_bytes_it_comes_with(storage):
    first = storage.put_if_absent("a/b", b"1")
    assert storage.read_version("a/b") == (b"1", first)
    storage.write("a/b", b"2")
    content, second = storage.read_version("a/b")
    assert content == b"2" and second != first


def test_a_put_on_another_version_is_refused(storage):
    first = storage.put_if_absent("a/b", b"1")
    try:
        second = storage.put_if_match("a/b", b"2", first)
    except NoConditionalPut:
        assert storage.is_local or storage.uri.startswith("folders:")
        assert storage.read("a/b") == b"1"
        return
    with pytest.raises(ChangedMeanwhile, match="a/b"):
        storage.put_if_match("a/b", b"3", first)
    assert storage.read_version("a/b") == (b"2", second)
    storage.delete("a/b")
    with pytest.raises(ChangedMeanwhile):
        storage.put_if_match("a/b", b"3", second)
    assert not storage.exists("a/b")
    storage.check_conditional_puts("a")
    assert storage.find("a", "b") == [] and storage.folders() in ([], ["a"])


def test_the_address_of_a_path_leads_to_the_same_file(storage):
    place = storage.full("a/b.bin")
    assert not exists(place)
    delete(place)
    write_bytes(place, b"one")
    assert storage.read("a/b.bin") == read_bytes(place) == b"one" and exists(place)
    folder, name = Storage(storage.full("a")).above()
    assert (folder, name) == (storage.full(), "a") and Storage(folder).read("a/b.bin") == b"one"
    delete(place)
    assert not storage.exists("a/b.bin")
    with pytest.raises(FileNotFoundError):
        read_bytes(place)


# -- folders


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    storage = Storage(tmp_path)
    storage.write("b.bin", b"old")
    monkeypatch.setattr(os, "replace", lambda *args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StorageError, match=r"b\.bin: cannot be written \(No space left on device\)"):
        storage.write("b.bin", b"new")
    assert storage.read("b.bin") == b"old" and os.listdir(tmp_path) == ["b.bin"]


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_and_folders_follow_umask_and_the_groups_folder(tmp_path, umask, mode):
    shared = tmp_path / "shared"
    shared.mkdir()
    groups = [group for group in os.getgroups() if group != os.getgid()] or [os.getgid()]
    if os.geteuid() == 0:
        groups = [12345]  # root may give a folder to any group
    os.chown(shared, -1, groups[0])
    os.chmod(shared, 0o2775)
    before = os.umask(umask)
    try:
        Storage(shared).write("demo/trains/record.json", b"{}")
        Storage(shared).put_if_absent("storage.json", b"{}")
    finally:
        os.umask(before)
    for path in ("demo/trains/record.json", "storage.json"):
        found = (shared / path).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (mode, groups[0])
    for path in ("demo", "demo/trains"):
        found = (shared / path).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o2777 & ~umask, groups[0])


def test_a_place_that_cannot_be_written_or_read_is_one_line_for_the_user(tmp_path):
    (tmp_path / "file").write_text("")
    storage = Storage(tmp_path / "file" / "out")
    for attempt in (lambda: storage.write("a", b""), lambda: storage.put_if_absent("a", b"")):
        with pytest.raises(StorageError, match=r"^\S+/file/out/a: cannot be written \(.+\); make it so") as caught:
            attempt()
        assert isinstance(caught.value, (ConfigError, OSError)) and not isinstance(caught.value, ChangedMeanwhile)
        assert failure_kind(caught.value) == "io" and "\n" not in str(caught.value)
    assert not Storage(tmp_path).exists("file/a") and Storage(tmp_path).folders("file") == []
    with pytest.raises(FileNotFoundError):
        Storage(tmp_path).read("file/a")
    Storage(tmp_path).delete("file/a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match=r"folder: cannot be read"):
        Storage(tmp_path).read("folder")


def test_a_local_address_may_be_written_in_several_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for uri in (str(tmp_path / "out"), f"file://{tmp_path}/out", "~/out", "out", "out/"):
        assert Storage(uri).uri == str(tmp_path / "out") and Storage(uri).is_local
    assert Storage("out").above() == (str(tmp_path), "out")
    write_bytes("plain", b"1")
    assert read_bytes("plain") == read_bytes(f"file://{tmp_path}/plain") == b"1"


# -- object stores


def test_parts_are_joined_before_an_address_s_options():
    assert join("s3://bucket/prefix?endpoint_override=h:1", "x") == "s3://bucket/prefix/x?endpoint_override=h:1"
    assert join("/plain/odd?name/", "x") == "/plain/odd?name/x"


def test_a_bucket_is_connected_once_in_a_process(s3_options, monkeypatch):
    from obstore import store

    made = []
    monkeypatch.setattr(
        store, "from_url", lambda *args, real=store.from_url, **more: made.append(args) or real(*args, **more)
    )
    connect.cache_clear()
    place = f"s3://bucket/once/run?{s3_options}"
    for name in "abc":
        write_bytes(join(place, name), b"")
        assert exists(join(place, name)) and Storage(place).find("", name) == [name]
    assert len(made) == 1


def test_a_bucket_that_is_not_there_is_named(s3_options):
    storage = Storage(f"s3://no-such-bucket/x?{s3_options}")
    for attempt in (lambda: storage.write("a", b""), lambda: storage.folders(), lambda: storage.find("a", "b")):
        with pytest.raises(StorageError, match="cannot be .*bucket does not exist"):
            attempt()


def test_no_message_shows_a_secret(s3_options):
    hidden = s3_options.replace("=key", "=KEY").replace("=secret", "=SECRET")
    for uri in (f"s3://no-such-bucket/x?{hidden}", f"s3://KEY:SEC@RET@no-such-bucket/x?{s3_options.partition('&')[0]}"):
        with pytest.raises(ConfigError) as caught:
            Storage(uri).write("a", b"")
        assert not re.search("KEY|SEC|RET", str(caught.value)) and "no-such-bucket/x/a" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        Storage("s3://bucket/x?no_such_option=1&session_token=SECRET")
    assert "SECRET" not in str(caught.value)
    assert shown("/a//b@c?key=1") == "/a//b@c?key=1"


def test_a_store_that_does_not_answer_is_said_soon():
    storage = Storage("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&access_key_id=a&secret_access_key=b")
    with pytest.raises(StorageError, match=r"cannot be written \(.*127\.0\.0\.1:9"):
        storage.write("a", b"")


@pytest.mark.parametrize("uri", ["nowhere://x/y", "s3://", "s3:///x", "s3://bucket/x?no_such_option=1"])
def test_an_address_that_means_nothing_is_the_users_error(uri):
    with pytest.raises(ConfigError, match="^storage='") as caught:
        Storage(uri)
    assert "\n" not in str(caught.value)


def test_a_store_that_ignores_conditions_is_found_out(monkeypatch):
    put = ObjectPlace._put
    monkeypatch.setattr(ObjectPlace, "_put", lambda self, path, data, mode: put(self, path, data, "overwrite"))
    storage = Storage("memory://careless/x")
    with pytest.raises(NoConditionalPut, match="lets through"):
        storage.check_conditional_puts("demo")
    assert storage.folders() == []


def test_a_folder_says_that_it_has_no_conditional_puts(tmp_path):
    with pytest.raises(NoConditionalPut, match="has no conditional puts"):
        Storage(tmp_path).check_conditional_puts("demo")
    assert os.listdir(tmp_path / "demo") == []
