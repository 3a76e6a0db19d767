"""One writer at a time, on every kind of storage: whoever lost it neither overwrites nor deletes."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from sweep.records import lease, locks
from sweep.records.lease import LockLost
from sweep.records.sweep_storage import SweepStorage
from tests.rows import OpenRow
from trainables.errors import ConfigError
from trainables.node.storage import ChangedMeanwhile, Storage, StorageError

CHILD = """
import sys, time
from sweep.records import lease
lease.LEASE_S = float(sys.argv[2])
from sweep.records.sweep_storage import SweepStorage
from trainables.errors import ConfigError
storage = SweepStorage(sys.argv[1])
try:
    with storage.lock("demo"):
        storage.write("demo/plan.json", b"first's")
        print("held", flush=True)
        for line in sys.stdin:
            {work}
            print("wrote", flush=True)
except ConfigError as error:
    print("refused" if "another run holds it" in str(error) else f"lost: {{error}}", flush=True)
"""
WRITE = 'storage.write("demo/plan.json", b"first again")'


@contextmanager
def child(storage: SweepStorage, lease_s: float = 60, work: str = WRITE) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(work=work), storage.uri, str(lease_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture
def storage(tmp_path) -> SweepStorage:
    return SweepStorage(str(tmp_path / "out"))


@pytest.fixture
def objects(s3_options: str) -> SweepStorage:
    return SweepStorage(f"s3://bucket/{uuid.uuid4().hex}?{s3_options}")


@pytest.fixture(params=["folder", "s3"])
def between_processes(request: pytest.FixtureRequest) -> SweepStorage:
    return request.getfixturevalue("storage" if request.param == "folder" else "objects")


def elsewhere(token: str = "t") -> dict[str, Any]:
    process = {"machine": "another", "pid": 1, "started": 0.0}
    return {"pid": 1, "host": "elsewhere", "since": "x", "token": token, "process": process}


def put_lease(storage: SweepStorage, fence: int = 1, released: bool = False, token: str = "t") -> None:
    found = {"holder": elsewhere(token), "fence": fence, "beats": 0, "released": released}
    Storage.write(storage, "demo/.lease.json", json.dumps(found).encode())


def read_lease(storage: SweepStorage) -> dict[str, Any]:
    return json.loads(storage.read("demo/.lease.json"))


def aged(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the store have received leases so many seconds ago."""
    true = Storage.written_at
    monkeypatch.setattr(
        Storage,
        "written_at",
        lambda self, path: true(self, path) - (seconds if path.endswith(".lease.json") else 0),
    )


def test_a_second_run_on_a_name_is_told_who_holds_it(any_address: str) -> None:
    any_storage = SweepStorage(any_address)
    if any_address.startswith("folders"):
        pytest.skip("has neither locks nor conditional puts: see the test of its refusal")
    with any_storage.lock("demo"):
        with pytest.raises(ConfigError, match=f"pid {os.getpid()} on .*, since 20"):
            with any_storage.lock("demo"):
                pass
        with any_storage.lock("other"):
            pass
    with any_storage.lock("demo"):
        pass


def test_a_killed_run_holds_no_lock(between_processes: SweepStorage, row: OpenRow) -> None:
    row("a run that holds a lock or lease is killed", 1, "the next run takes it at once")
    with child(between_processes) as first:
        assert said(first) == "held"
        with pytest.raises(ConfigError, match=f"pid {first.pid} "), between_processes.lock("demo"):
            pass
        first.kill()
        first.wait(10)
        with between_processes.lock("demo"):
            pass


def test_of_two_that_start_together_one_holds_it(between_processes: SweepStorage, row: OpenRow) -> None:
    row("two runs start together on one name", 2, "one works, the other says who does")
    with child(between_processes) as first, child(between_processes) as second:
        assert sorted([said(first), said(second)]) == ["held", "refused"]


def test_one_that_wakes_up_late_neither_overwrites_nor_deletes(
    objects: SweepStorage, monkeypatch, row: OpenRow
) -> None:
    row("a holder is paused (SIGSTOP) beyond its lease", 1, "it overwrites and deletes nothing, and says so")
    monkeypatch.setattr(lease, "LEASE_S", 3.0)
    monkeypatch.setattr(locks, "_machine", lambda: "another")  # as if the first were on another machine
    with child(objects, lease_s=3.0) as first:
        assert said(first) == "held"
        first.send_signal(signal.SIGSTOP)
        while psutil.Process(first.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.05)
        with pytest.raises(ConfigError, match=f"pid {first.pid} "), objects.lock("demo"):
            pass
        time.sleep(5)
        with objects.lock("demo"):
            objects.write("demo/plan.json", b"second's")
            first.send_signal(signal.SIGCONT)
            tell(first)
            told = said(first)
            assert told.startswith("lost: ") and f"pid {os.getpid()} on" in told and "writes nothing more" in told
            first.wait(10)
            assert objects.read("demo/plan.json") == b"second's"
            assert read_lease(objects)["holder"]["pid"] == os.getpid()
            objects.write("demo/plan.json", b"second's, still")


def test_a_write_that_was_held_up_on_its_way_overwrites_nothing(objects: SweepStorage, row: OpenRow) -> None:
    row("a write is held up on its way to S3", 1, "it overwrites nothing of who took over")
    late, other = SweepStorage(objects.uri), SweepStorage(objects.uri)
    with late.lock("demo"):
        late.write("demo/plan.json", b"1")
        Storage.write(other, "demo/plan.json", b"the next holder's")
        put_lease(other, fence=2)
        with pytest.raises(LockLost, match="on elsewhere"):  # its check was long before: nothing but the version tells
            late.write("demo/plan.json", b"2")
        with pytest.raises(LockLost):
            late.delete("demo/plan.json")
        with pytest.raises(LockLost):
            late.check_lock("demo")
    assert other.read("demo/plan.json") == b"the next holder's"
    assert read_lease(other)["holder"]["host"] == "elsewhere" and not read_lease(other)["released"]


def test_a_take_over_between_reading_a_version_and_writing_is_noticed(objects: SweepStorage, monkeypatch) -> None:
    Storage.write(objects, "demo/plan.json", b"old")
    other = SweepStorage(objects.uri)
    read_version = Storage.read_version

    def take_over_after(self: Storage, path: str) -> tuple[bytes, str]:
        found = read_version(self, path)
        if self is objects and path == "demo/plan.json":
            put_lease(other, fence=2)
            Storage.write(other, path, b"the next holder's")
        return found

    with objects.lock("demo"):
        monkeypatch.setattr(Storage, "read_version", take_over_after)
        with pytest.raises(LockLost):
            objects.write("demo/plan.json", b"late")
    assert other.read("demo/plan.json") == b"the next holder's"


def test_a_file_that_somebody_else_touched_is_written_by_the_holder(objects: SweepStorage) -> None:
    with objects.lock("demo"):
        for text in (b"1", b"2"):
            objects.write("demo/plan.json", text)
        Storage.write(objects, "demo/plan.json", b"by hand")
        objects.write("demo/plan.json", b"3")
        objects.write("demo/trains/a/record.json", b"4")
        assert objects.read("demo/plan.json") == b"3"
        objects.write("elsewhere/plan.json", b"not under the lock")


def test_a_put_whose_answer_was_lost_is_the_holders_own(objects: SweepStorage, monkeypatch, row: OpenRow) -> None:
    row("the answer to a conditional put is lost", 1, "known as the holder's own")
    put = Storage.put_if_match

    def lose_the_answer(self: Storage, path: str, data: bytes, version: str) -> str:
        put(self, path, data, version)
        monkeypatch.setattr(Storage, "put_if_match", put)
        raise ChangedMeanwhile("the client tried again and met its own put")

    with objects.lock("demo"):
        held = objects._holds["demo"]
        monkeypatch.setattr(Storage, "put_if_match", lose_the_answer)
        held.renew()
        monkeypatch.setattr(Storage, "put_if_match", put)
        objects.write("demo/plan.json", b"1")
        monkeypatch.setattr(Storage, "put_if_match", lose_the_answer)
        objects.write("demo/plan.json", b"2")
        assert objects.read("demo/plan.json") == b"2"


@pytest.mark.parametrize("hours", [-5, 5])
def test_clocks_of_machines_play_no_part(objects: SweepStorage, hours: int, monkeypatch, row: OpenRow) -> None:
    row(f"the machine's clock jumps by {hours} hours", 1, "the lease holds")
    true = time.time
    with objects.lock("demo"):
        monkeypatch.setattr(time, "time", lambda: true() + 3600 * hours)
        monkeypatch.setattr(locks, "_same_machine", lambda process: False)
        with pytest.raises(ConfigError, match="another run holds it"), SweepStorage(objects.uri).lock("demo"):
            pass


def test_an_abandoned_lease_is_taken_over_with_a_higher_fence(objects: SweepStorage, monkeypatch) -> None:
    put_lease(objects, fence=6)
    with pytest.raises(ConfigError, match="on elsewhere"), objects.lock("demo"):
        pass
    aged(monkeypatch, lease.LEASE_S + 2)
    with objects.lock("demo"):
        assert read_lease(objects)["fence"] == 7
    assert read_lease(objects)["released"]
    with objects.lock("demo"):
        assert read_lease(objects)["fence"] == 8


def test_of_two_that_take_over_one_succeeds(objects: SweepStorage, monkeypatch) -> None:
    put_lease(objects, released=True)
    found = lease.read(objects, "demo")
    with objects.lock("demo"):
        assert lease.take(objects, "demo", elsewhere("late"), found) is None


def test_a_lease_is_renewed(objects: SweepStorage, monkeypatch) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.8)
    with objects.lock("demo"):
        end = time.monotonic() + 10
        while read_lease(objects)["beats"] < 3:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_store_that_is_away_is_no_loss(objects: SweepStorage, monkeypatch, row: OpenRow) -> None:
    row("the object store is away for a moment", 1, "the lease is kept")
    read_version = Storage.read_version

    def away(self: Storage, path: str) -> tuple[bytes, str]:
        raise StorageError("away")

    with objects.lock("demo"):
        held = objects._holds["demo"]
        monkeypatch.setattr(Storage, "read_version", away)
        with pytest.raises(StorageError, match="away"):
            held.renew()
        monkeypatch.setattr(Storage, "read_version", read_version)
        held.renew()
        objects.write("demo/plan.json", b"1")


def test_a_number_that_another_process_has_got_is_not_the_holder(objects: SweepStorage) -> None:
    process = {**locks._process(os.getpid()), "started": 1.0}
    found = {"holder": {**elsewhere(), "process": process}, "fence": 1, "beats": 0, "released": False}
    objects.write("demo/.lease.json", json.dumps(found).encode())
    with objects.lock("demo"):
        pass


def test_what_has_neither_locks_nor_conditional_puts_is_refused(tmp_path, monkeypatch, row: OpenRow) -> None:
    row("a store without conditional puts", 1, "refused, unless --no-lock")
    from obstore.store import LocalStore

    monkeypatch.setattr("trainables.node.storage.connect", lambda *address: LocalStore(tmp_path))
    storage = SweepStorage("folders://out")
    with pytest.raises(ConfigError, match="no conditional puts.*--no-lock"), storage.lock("demo"):
        pass
    with storage.lock("demo", without=True):
        storage.write("demo/plan.json", b"1")
        assert storage.claims("demo") is None


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(storage: SweepStorage, number: int, monkeypatch) -> None:
    import fcntl

    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):  # nothing is left that would hold up the second
        with pytest.raises(ConfigError, match="no locks.*--no-lock"), storage.lock("demo"):
            pass


def test_whether_a_hold_is_in_force(between_processes: SweepStorage, monkeypatch) -> None:
    storage = between_processes
    with storage.lock("demo"):
        token = storage._holds["demo"].token
        assert locks.is_held(storage, "demo", token) and not locks.is_held(storage, "demo", "another")
    assert not locks.is_held(storage, "demo", token) and not locks.is_held(storage, "never", token)
    with child(storage) as other:
        assert said(other) == "held"
        note = "demo/.holder.json" if storage.is_local else "demo/.lease.json"
        found = json.loads(storage.read(note))
        token = (found if storage.is_local else found["holder"])["token"]
        assert locks.is_held(storage, "demo", token)
        other.kill()
        other.wait(10)
        assert not locks.is_held(storage, "demo", token)
