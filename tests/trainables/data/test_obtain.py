"""The official data by name: downloaded once, proven, kept small, the same data wherever they come from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.stand_ins import OfficialSite, Rule, fever_archive
from trainables.data import online
from trainables.data.archive import archive_pages
from trainables.data.assumptions import DataCheck, check_official
from trainables.data.corpus import load_corpus
from trainables.data.counterfact import load_counterfact
from trainables.data.fetch import ARRIVAL_BYTES
from trainables.data.obtain import ready_data
from trainables.data.official import CACHE_VARIABLE, SOURCES_VARIABLE, data_cache, data_set
from trainables.data.official import OFFICIAL as official_facts
from trainables.data.prepare import prepare_folder
from trainables.data.ready import read_manifest
from trainables.data.sources import data_key, resolve_sources
from trainables.errors import ConfigError, DataError

PROGRAM = "import sys; from trainables.data.obtain import ready_data; print(ready_data(sys.argv[1]))"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are counted, not waited for."""
    pauses: list[float] = []
    monkeypatch.setattr(online, "_sleep", pauses.append)
    return pauses


def resumed_at(request: str) -> int:
    """Return the offset of a request's range."""
    return int(request.partition("[bytes=")[2].removesuffix("-]"))


def set_pins(site: OfficialSite, name: str, **pins: object) -> None:
    """State other pins for a file."""
    path = Path(os.environ[SOURCES_VARIABLE])
    table = json.loads(path.read_text())
    table["counterfact" if name.startswith("counterfact") else "fever"]["files"][name].update(pins)
    path.write_text(json.dumps(table))


def test_the_pins_are_those_of_the_files_that_published_work_uses() -> None:
    assert data_key("fever") == "fever@97689c8d81537fd5", "an id must not change; known without a network"
    assert data_key("counterfact,fever") == "fever@97689c8d81537fd5,counterfact@62af08eeb80cd994"
    assert data_set("fever").bytes == 1_748_678_544 and data_set("counterfact").bytes == 45_108_470


def test_official_files_give_the_same_corpus_as_a_folder(official: OfficialSite, sample_data: Path) -> None:
    assert load_corpus("fever") == load_corpus(str(sample_data))
    assert load_counterfact("fever,counterfact") == load_counterfact(str(sample_data))
    asked = len(official.requests)
    load_corpus("fever"), load_counterfact("counterfact")
    assert len(official.requests) == asked, "downloaded once"


def test_only_wanted_pages_stay_in_the_cache(official: OfficialSite, sample_data: Path) -> None:
    folder = ready_data("fever")
    (pages,) = (folder / "wiki-pages").iterdir()
    kept = {json.loads(line)["id"] for line in pages.read_text().splitlines()}
    there = {json.loads(line)["id"] for p in (sample_data / "wiki-pages").iterdir() for line in p.open()}
    assert kept == {document.title for document in load_corpus("fever").pages} < there
    assert not list(data_cache().rglob("*.zip*")) and not list(data_cache().rglob("*.part"))


def test_data_from_the_network_and_a_prepared_folder_are_the_same(official: OfficialSite, tmp_path: Path) -> None:
    both = tmp_path / "both"
    prepare_folder(["counterfact", "fever"], both)
    official.close()
    assert data_key(str(both)) == data_key("fever,counterfact")
    assert load_corpus(str(both)) == load_corpus("fever")
    manifest = read_manifest(both)
    assert manifest is not None and prepare_folder(["fever", "counterfact"], both) == manifest, "made already"
    with pytest.raises(ConfigError, match="holds something else"):
        prepare_folder(["fever"], both)


@pytest.mark.parametrize("change", ["content", "gone"])
def test_a_prepared_folder_that_was_changed_is_refused(official: OfficialSite, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "made"
    prepare_folder(["fever"], folder)
    path = folder / "train.jsonl"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes().replace(b"SUPPORTS", b"SUPPORTs", 1))
    for use in (data_key, resolve_sources):
        with pytest.raises(DataError, match=f"{path}: (missing|not what)"):
            use(str(folder))


def test_files_added_to_a_prepared_folder_are_further_data(official: OfficialSite, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    prepare_folder(["fever"], folder)
    (folder / "wiki_docs.jsonl").write_text('{"id": "Moon", "text": "The Moon."}\n')
    fever, files = data_key(str(folder)).split(",")
    assert fever == data_key("fever") and files.startswith("files@")


def test_a_download_cut_in_the_middle_goes_on_where_it_stopped(
    official: OfficialSite, no_waiting: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    size = len(official.files["counterfact.json"])
    official.rules.append(Rule("GET .*counterfact", times=1, cut_after=size // 2))
    folder = ready_data("counterfact")
    assert (folder / "counterfact.json").read_bytes() == official.files["counterfact.json"]
    first, second = official.asked("GET .*counterfact")
    assert "[" not in first and size // 2 - ARRIVAL_BYTES < resumed_at(second) <= size // 2
    assert len(no_waiting) == 1 and "trying again in" in capfd.readouterr().err


def test_a_download_goes_on_in_another_run(official: OfficialSite, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(official.files["counterfact.json"])
    official.rules.append(Rule("GET .*counterfact", times=1, cut_after=size // 3))
    monkeypatch.setattr(online, "RETRY_FOR_S", -1.0)
    with pytest.raises(ConfigError, match="counterfact.json: the connection broke.*given up"):
        ready_data("counterfact")
    (part,) = data_cache().rglob("*.part")
    arrived = part.stat().st_size
    assert size // 3 - ARRIVAL_BYTES < arrived <= size // 3
    ready_data("counterfact")
    assert resumed_at(official.asked("GET")[-1]) == arrived


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_between_two_runs_is_not_put_together(
    official: OfficialSite, monkeypatch: pytest.MonkeyPatch, etags: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    official.etags = etags
    new = official.files["counterfact.json"]
    official.files["counterfact.json"] = new.replace(b'"case_id": ', b'"case_id":\n')
    official.rules.append(Rule("GET .*counterfact", times=1, cut_after=len(new) // 3))
    monkeypatch.setattr(online, "RETRY_FOR_S", -1.0)
    with pytest.raises(ConfigError):
        ready_data("counterfact")
    official.files["counterfact.json"] = new
    assert (ready_data("counterfact") / "counterfact.json").read_bytes() == new
    assert "starts over" not in capfd.readouterr().err, "the server was asked for the rest of the old version only"


def test_parts_of_two_versions_that_no_mark_tells_apart_start_over(
    official: OfficialSite, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = data_cache() / "downloads" / data_set("counterfact").folder_name
    folder.mkdir(parents=True)
    (folder / "counterfact.json.part").write_bytes(b"x" * 1000)
    ready_data("counterfact")
    assert "starts over" in capfd.readouterr().err
    assert [("[" in request) for request in official.asked("GET")] == [True, False]


def test_a_truncated_file_is_refused_before_it_is_downloaded(official: OfficialSite) -> None:
    official.files["train.jsonl"] = official.files["train.jsonl"][:-100]
    with pytest.raises(DataError, match=r"train.jsonl: the server has [\d,]+ bytes where [\d,]+ are pinned") as caught:
        ready_data("fever")
    assert "\n" not in str(caught.value) and not list(data_cache().rglob("train.jsonl*"))


def test_a_checksum_that_differs_is_refused(official: OfficialSite) -> None:
    content = official.files["train.jsonl"]
    official.files["train.jsonl"] = content.replace(b"SUPPORTS", b"SUPPORTZ", 1)
    with pytest.raises(DataError, match="its SHA-256 is .*… where .*… is pinned"):
        ready_data("fever")
    assert not list(data_cache().rglob("train.jsonl*")), "a wrong file does not stay"
    official.files["train.jsonl"] = content
    assert ready_data("fever").is_dir()


def test_an_archive_that_is_no_zip_is_refused(official: OfficialSite) -> None:
    content = official.files["wiki-pages.zip"] = b"PK no zip" * 100
    set_pins(official, "wiki-pages.zip", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(DataError, match="cannot be read as a zip archive"):
        ready_data("fever")


def test_what_no_one_pinned_is_taken_at_the_first_download_and_held_to(official: OfficialSite) -> None:
    set_pins(official, "counterfact.json", sha256=None, size=None)
    key = data_key("counterfact")
    known = hashlib.sha256(official.files["counterfact.json"]).hexdigest()
    set_pins(official, "counterfact.json", sha256=known)
    assert data_key("counterfact") == key, "the same content has the same key, pinned or not"
    set_pins(official, "counterfact.json", sha256=None)
    path = ready_data("counterfact") / "counterfact.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(DataError, match=f"{path}: not what manifest.json says"):
        data_key("counterfact")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_waited_for_and_it_is_said(
    official: OfficialSite, no_waiting: list[float], capfd: pytest.CaptureFixture[str], status: int
) -> None:
    official.rules.append(Rule("GET .*counterfact", times=2, status=status, headers={"Retry-After": "7"}))
    ready_data("counterfact")
    assert no_waiting == [7.0, 7.0]
    assert capfd.readouterr().err.count(f"the server answers {status}; trying again in 7 s") == 2


def test_retries_end_after_two_minutes_in_all(official: OfficialSite, no_waiting: list[float]) -> None:
    official.rules.append(Rule("GET .*counterfact", status=503))
    with pytest.raises(ConfigError, match="the server answers 503; given up after retries of at most 120 s"):
        ready_data("counterfact")
    assert 60 < sum(no_waiting) <= 120
    official.rules[0] = Rule("GET .*counterfact", status=429, headers={"Retry-After": "3600"})
    no_waiting.clear()
    with pytest.raises(ConfigError, match="asks to wait 3600 s; given up"):
        ready_data("counterfact")
    assert no_waiting == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_tried_again(official: OfficialSite, no_waiting: list[float], status: int) -> None:
    official.rules.append(Rule("GET .*counterfact", status=status))
    with pytest.raises(ConfigError, match=f"answers {status} .* docs/data.md"):
        ready_data("counterfact")
    assert no_waiting == []


@pytest.mark.parametrize("address", ["http://nowhere.invalid/x", "http://127.0.0.1:9/x"])
def test_without_a_network_there_is_one_line_within_ten_seconds(
    official: OfficialSite, address: str, capfd: pytest.CaptureFixture[str]
) -> None:
    set_pins(official, "counterfact.json", url=address)
    start = time.monotonic()
    with pytest.raises(ConfigError, match="cannot be reached .*; connect this machine, or name a folder") as caught:
        ready_data("counterfact")
    assert time.monotonic() - start < 10 and "\n" not in str(caught.value)


def test_a_name_server_that_never_answers_is_no_network(
    official: OfficialSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "NO_NETWORK_AFTER_S", 0.3)

    def never(*_: object, **__: object) -> None:
        threading.Event().wait(3)
        raise OSError("no answer")

    monkeypatch.setattr("socket.getaddrinfo", never)
    with pytest.raises(online.Unreachable, match="no answer within"):
        ready_data("counterfact")


@pytest.mark.thorough(beside="test_a_download_goes_on_in_another_run")
def test_two_processes_on_an_empty_cache_download_once(official: OfficialSite) -> None:
    official.rules.append(Rule("GET", delay_s=3.0))
    run = [sys.executable, "-c", PROGRAM, "fever"]
    both = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {process.communicate()[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(folders) == 1
    assert len(official.asked("GET .*zip")) == 1


@pytest.fixture
def as_nobody() -> Iterator[Callable[[], None]]:
    """Give up this process's right to write everywhere, until the test ends."""
    if os.geteuid() != 0:
        yield lambda: None
        return
    yield lambda: os.seteuid(65534)
    os.seteuid(0)


def test_a_read_only_cache_that_holds_the_data_is_enough(
    official: OfficialSite, monkeypatch: pytest.MonkeyPatch, as_nobody: Callable[[], None]
) -> None:
    place = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        place.chmod(0o755)
        sources = shutil.copy(os.environ[SOURCES_VARIABLE], place / "sources.json")
        monkeypatch.setenv(SOURCES_VARIABLE, str(sources))
        monkeypatch.setenv(CACHE_VARIABLE, str(place / "cache"))
        ready_data("counterfact")
        for path in [place / "cache", *(place / "cache").rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        as_nobody()
        assert load_counterfact("counterfact")
        with pytest.raises(ConfigError, match="cannot be written .*; choose another folder with --data-cache"):
            ready_data("fever")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        for path in [place / "cache", *(place / "cache").rglob("*")]:
            path.chmod(0o755)
        shutil.rmtree(place)


def test_a_disk_that_is_too_small_is_said_beforehand(official: OfficialSite) -> None:
    set_pins(official, "counterfact.json", size=10**18)
    with pytest.raises(ConfigError, match="needs 1,000,000,000,000.0 MB, of which .* are free"):
        ready_data("counterfact")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[]", "cannot be read as a JSON object"),
        ('{"fever": {"files": {"train.json": {}}}}', "fever has no file 'train.json'"),
        ('{"fever": {"files": {"train.jsonl": {"md5": ""}}}}', "'md5' is none of url, size and sha256"),
        ('{"fever": []}', "fever must be"),
    ],
)
def test_a_bad_table_of_sources_is_one_line(official: OfficialSite, table: str, message: str) -> None:
    Path(os.environ[SOURCES_VARIABLE]).write_text(table)
    with pytest.raises((ConfigError, DataError), match=message):
        data_key("fever")


def test_a_mirror_is_named_by_one_setting(official: OfficialSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOURCES_VARIABLE)
    monkeypatch.setenv("MEMORY_SWEEP_COUNTERFACT_URL", official.base + "/")
    with pytest.raises(DataError, match="/files/counterfact.json: the server has .* where 45,108,470 are pinned"):
        ready_data("counterfact")


def test_the_held_facts_are_asserted_by_check(official: OfficialSite) -> None:
    """A file of the official counts: 9,999 claims, 3,333 of each label, 18,999 rows, 1,460 pages."""
    claims = []
    for number in range(9_999):
        label = ("SUPPORTS", "REFUTES", "NOT ENOUGH INFO")[number % 3]
        page = None if label == "NOT ENOUGH INFO" else f"Page_{(number // 3) % 1_460}"
        rows = 1 + (number < 9_000)
        evidence = [[[number, None if page is None else number, page, 0]] for _ in range(rows)]
        claims.append({"id": number, "label": label, "claim": f"Claim {number}.", "evidence": evidence})
    facts = official_facts["fever"].facts

    def findings() -> dict[str, DataCheck]:
        content = "".join(json.dumps(claim) + "\n" for claim in claims).encode()
        official.files["paper_dev.jsonl"] = content
        set_pins(official, "paper_dev.jsonl", size=len(content), sha256=hashlib.sha256(content).hexdigest())
        table = json.loads(Path(os.environ[SOURCES_VARIABLE]).read_text())
        table["fever"]["facts"] = dict(facts)
        Path(os.environ[SOURCES_VARIABLE]).write_text(json.dumps(table))
        return {finding.what.removeprefix("fever: "): finding for finding in check_official("fever")}

    found = findings()
    held = [name for name in facts if name != "training rows"]
    assert len(held) == 6 and all(found[name].right for name in held)
    assert found["training rows"].right is False, "the sample world's"
    del claims[0]
    found = findings()
    assert found["claims"].right is False and found["claims"].found == "9,998 where 9,999 are known"
    assert found["rows"].right is False and found["pages"].right is True


def test_a_large_archive_is_streamed(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"P{i}", "text": f"Text {i}.", "lines": ""}) for i in range(2_000)]
    odd = json.dumps({"id": 'Caf\u00e9_"Zo\\e"', "text": "Odd."}, ensure_ascii=False)
    path = tmp_path / "wiki-pages.zip"
    path.write_bytes(fever_archive({"wiki-001.jsonl": "\n".join(lines).encode(), "wiki-002.jsonl": odd.encode()}))
    wanted = {"P7", "P1999", 'Caf\u00e9_"Zo\\e"', "not there"}
    assert archive_pages(path, wanted) == {"P7": lines[7], "P1999": lines[1999], 'Caf\u00e9_"Zo\\e"': odd}
