"""Storage: layout, whole writes, the scan for records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sweep.records.record import record_bytes
from sweep.records.storage_id import MANIFEST
from sweep.records.sweep_files import broken_files, read_sweep_file, write_sweep_file
from sweep.records.sweep_storage import RecordHead, SweepStorage, split_location
from sweep.report.findings import publish_compared
from trainables.errors import ConfigError, DataError
from trainables.lm.card import model_card
from trainables.trial.canonical import canonical
from trainables.trial.spec import TrialSpec


@pytest.fixture
def any_storage(any_address: str) -> SweepStorage:
    return SweepStorage(any_address)


def test_a_sweeps_file_missing_is_none_and_a_broken_one_is_named(any_storage: SweepStorage) -> None:
    assert read_sweep_file(any_storage, "demo", MANIFEST) is None and not broken_files(any_storage, "demo")
    write_sweep_file(any_storage, "demo", MANIFEST, {"space": "문서"})
    assert read_sweep_file(any_storage, "demo", MANIFEST) == {"space": "문서"}
    any_storage.write("demo/plan.json", b"{")
    assert read_sweep_file(any_storage, "demo", MANIFEST) is None
    assert any_storage.full("demo/plan.json") in broken_files(any_storage, "demo")[MANIFEST]


@pytest.mark.parametrize(
    ("spec", "folder"),
    [
        (
            TrialSpec(model="llama2-7b", layer=23, alpha=0.2, allocation="simset2", num_documents=50, mem_seed=3),
            "s/trains/lm_llama2-7b/layer_23/50/simset2_3/alpha_0.2/ID",
        ),
        (
            TrialSpec(model="llama2-7b", depth=0.75, alpha=1, allocation="random", num_documents=50, num_clusters=5),
            "s/trains/lm_llama2-7b/layer_23/5/random_0/alpha_1.0/ID",
        ),
        (
            TrialSpec(model="llama2-7b", method="pretrained", num_documents=50),
            "s/trains/lm_llama2-7b/layer_none/50/none_0/alpha_0.0/ID",
        ),
    ],
)
def test_trial_folders_follow_the_notes(storage: SweepStorage, spec: TrialSpec, folder: str) -> None:
    assert storage.trial_folder("s", canonical(spec), model_card(spec.model).name, "ID") == folder


def test_the_index_finds_the_records_of_every_sweep(any_storage: SweepStorage, finished) -> None:
    records = [finished(seed=0), finished(seed=1, result={"status": "diverged"}), finished("other", seed=2)]
    for record in records:
        any_storage.write_record(record, f"{record['sweep']}/trains/lm_x/{record['id']}")
    index = any_storage.index()
    assert {h.id: (h.status, h.sweep) for h in index.values()} == {r["id"]: (r["status"], r["sweep"]) for r in records}
    assert [index[r["id"]].record() for r in records] == records
    assert any_storage.sweeps() == ["demo", "other"] and not index.warnings


def test_of_two_records_of_a_trial_the_one_with_a_result_counts(storage: SweepStorage, finished) -> None:
    failed = finished(result={"status": "failed", "error": {"class": "Bug", "message": "x"}})
    done = finished("other")
    storage.write_record(failed, "demo/trains/a")
    storage.write_record(done, "other/trains/b")
    assert [head.folder for head in storage.index().values()] == ["other/trains/b"]


@pytest.mark.parametrize("damage", ["half", "identity", "status", "not a record"])
def test_a_broken_record_is_set_aside_and_named(any_storage: SweepStorage, finished, damage: str) -> None:
    record = finished()
    any_storage.write_record(record, "demo/trains/a")
    data = any_storage.read("demo/trains/a/record.json")
    record["identity"]["alpha"] = 0.4
    broken = {
        "half": data[: len(data) // 2],
        "identity": json.dumps(record).encode(),
        "status": data.replace(b'"done"', b'"dome"'),
        "not a record": b"[]",
    }[damage]
    any_storage.write("demo/trains/a/record.json", broken)
    assert "demo/trains/a/record.json" in any_storage.index(set_aside=False).warnings[0]
    index = any_storage.index()
    assert not index and "set aside as record.json.broken" in index.warnings[0]
    assert any_storage.read("demo/trains/a/record.json.broken") == broken
    assert not any_storage.index().warnings


def test_a_record_of_another_version_is_left_alone(storage: SweepStorage, finished) -> None:
    storage.write_record(finished(), "demo/trains/a")
    path = Path(storage.full("demo/trains/a/record.json"))
    path.write_text(path.read_text().replace('"id_version": "1"', '"id_version": "9"'))
    index = storage.index()
    assert not index and "another version" in index.warnings[0] and path.exists()


def test_a_half_record_is_never_written(storage: SweepStorage, begun) -> None:
    with pytest.raises(DataError, match="status 'running'"):
        storage.write_record(begun(), "demo/trains/a")


def test_a_storage_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = SweepStorage(str(tmp_path / "file" / "out"))
    for attempt in (storage.check_writable, storage.storage_id, storage.lock("demo").__enter__):
        with pytest.raises(ConfigError, match="cannot be written"):
            attempt()


def test_an_address_that_means_nothing_is_the_users_error() -> None:
    with pytest.raises(ConfigError, match="storage='nowhere://x/y'"):
        SweepStorage("nowhere://x/y")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "mlartifacts", "x" * 101])
def test_a_name_that_is_no_folder_name_is_refused(storage: SweepStorage, name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        storage.lock(name)


def test_opening_a_storage_touches_nothing(storage: SweepStorage) -> None:
    assert storage.sweeps() == [] and not storage.index() and not Path(storage.uri).exists()


def test_a_sweep_is_told_from_a_storage(any_storage: SweepStorage, finished) -> None:
    with pytest.raises(ConfigError, match="no sweep there"):
        split_location(any_storage.uri)
    any_storage.write_record(finished(), "demo/trains/a")
    any_storage.write_json("other/plan.json", {})
    any_storage.write("report/report.html", b"")
    assert any_storage.sweeps() == ["demo", "other"]
    for location, name in (
        (any_storage.uri, None),
        (any_storage.full("demo"), "demo"),
        (any_storage.full("other"), "other"),
    ):
        storage, found = split_location(location)
        assert (storage.uri, found) == (any_storage.uri, name)


def test_ten_thousand_records_stay_small(finished) -> None:
    record = finished(result={"curves": {"train/loss": [[i, 1 / (i + 1)] for i in range(200)]}})
    text = record_bytes(record)
    head = RecordHead.of(record, "demo/trains/a", text)
    assert head.record() == record and len(text) > 5000
    assert 10_000 * len(head._packed) < 40e6


def test_the_storage_id_stays(any_storage: SweepStorage) -> None:
    any_storage.check_writable()
    first = any_storage.storage_id()
    assert any_storage.storage_id() == first and len(first) == 12


def test_of_two_that_name_a_storage_at_once_both_get_one_id(
    any_storage: SweepStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SweepStorage(any_storage.uri)

    def late(path: str, data: bytes) -> str:
        other.storage_id()
        return SweepStorage.put_if_absent(any_storage, path, data)

    monkeypatch.setattr(any_storage, "put_if_absent", late)
    assert any_storage.storage_id() == other.storage_id() == json.loads(other.read("storage.json"))["id"]


def test_a_storage_file_without_an_id_is_made_anew(any_storage: SweepStorage) -> None:
    any_storage.write_json("storage.json", {})
    assert any_storage.storage_id() == any_storage.storage_id()


@pytest.mark.parametrize("damage", [None, b"", b"[]", b'{"id": []}', b'{"id": 7}', b'{"id": "'])
def test_a_lost_name_of_a_storage_is_found_again_in_a_plan(any_storage: SweepStorage, damage: bytes | None) -> None:
    first = any_storage.storage_id()
    write_sweep_file(any_storage, "demo", "plan.json", {"stages": [], "storage": first})
    if damage is None:
        any_storage.delete("storage.json")
    else:
        any_storage.write("storage.json", damage)
    assert SweepStorage(any_storage.uri).storage_id() == first
    assert json.loads(any_storage.read("storage.json"))["id"] == first


def test_a_lost_name_of_an_older_storage_is_found_again_in_its_mlflow(
    storage: SweepStorage, tracking, finished, save
) -> None:
    save(finished())
    storage.write_json("demo/plan.json", {"stages": []})
    assert publish_compared(storage, ["demo"], tracking)["created"] == 2
    storage.delete("storage.json")
    counts = publish_compared(storage, ["demo"], tracking)
    assert (counts["created"], counts["unchanged"]) == (0, 2)


@pytest.mark.parametrize(
    "field", ["host", "finished_at", "data", "model", "files", "versions", "labels", "stage", "checksum"]
)
def test_a_record_that_lacks_a_field_is_set_aside_and_named(storage: SweepStorage, finished, field: str) -> None:
    storage.write_record(finished(), "demo/trains/a")
    path = Path(storage.full("demo/trains/a/record.json"))
    record = json.loads(path.read_text())
    del record[field]
    for text in (record, {**record, "format": 1} if field not in ("files", "checksum") else record):
        path.write_text(json.dumps(text))
        index = storage.index(set_aside=False)
        assert not index and "demo/trains/a/record.json: " in index.warnings[0]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("metrics", {"memory/nll": "low"}),
        ("metrics", {"memory/nll": True}),
        ("metrics", [1]),
        ("curves", {"train/nll": [[1]]}),
        ("curves", {"train/nll": {"1": 2}}),
        ("model", {"name": "x"}),
        ("model", {"name": "x", "num_blocks": 0}),
        ("data", {"given": 5}),
        ("error", "boom"),
        ("error", {"class": []}),
        ("flops", "many"),
        ("started_at", "yesterday"),
        ("identity", []),
    ],
)
def test_a_record_of_the_first_format_with_a_part_of_another_type_is_named(
    storage: SweepStorage, finished, part: str, value: object
) -> None:
    record = {**finished(), "format": 1, part: value}
    storage.write("demo/trains/a/record.json", json.dumps(record).encode())
    index = storage.index(set_aside=False)
    assert not index and "demo/trains/a/record.json: " in index.warnings[0]


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_number_that_is_none_is_no_record(storage: SweepStorage, finished, number: str) -> None:
    text = record_bytes({**finished(), "format": 1}).replace(b"1.25", number.encode())
    storage.write("demo/trains/a/record.json", text)
    assert "not JSON" in storage.index(set_aside=False).warnings[0]


def test_a_changed_digit_in_a_record_is_noticed(storage: SweepStorage, finished) -> None:
    storage.write_record(finished(), "demo/trains/a")
    text = storage.read("demo/trains/a/record.json")
    storage.write("demo/trains/a/record.json", text.replace(b"1.25", b"1.24"))
    index = storage.index()
    assert not index and "checksum" in index.warnings[0] and "set aside" in index.warnings[0]
