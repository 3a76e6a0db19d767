"""One process of a node makes the tokens of a corpus, and the others map its file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import OpenRow
from trainables.lm import kept_tokens as module
from trainables.lm.card import model_card
from trainables.lm.corpus_tokens import CorpusTokens
from trainables.lm.kept_tokens import KEPT_FILES, kept_tokens
from trainables.lm.token_files import write_tokens
from trainables.lm.tokens import load_tokenizer
from trainables.node import node_lock
from trainables.node.map_batches import Make

TEXTS = ["Mira Talven is a painter in Orsk.", "", "x", "Two words. " * 40, "A page with an ending of its own"]
ROOT = Path(__file__).parents[3]
CHILD = """
import sys, time
from pathlib import Path
from tests.trainables.lm.test_kept_tokens import TEXTS, Counted
from trainables.lm.card import model_card
from trainables.lm.kept_tokens import kept_tokens
from trainables.lm.tokens import load_tokenizer
folder, model, pause_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
tokenizer = load_tokenizer(model_card(model))
print("ready", flush=True)
sys.stdin.readline()
found = kept_tokens(folder / "tokens", lambda: TEXTS, tokenizer, 12, 3, Counted(folder / "made", pause_s))
print(found.tokens[:].tolist())
"""


class Counted:
    """Maps here, and adds a letter to a file for each time that it is asked to."""

    def __init__(self, file: Path, pause_s: float = 0.0) -> None:
        self.file, self.pause_s = file, pause_s

    def __call__(self, make: Make, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        with self.file.open("a") as file:
            file.write("x")
        time.sleep(self.pause_s)
        for table in tables:
            yield from make(table)

    @property
    def times(self) -> int:
        return len(self.file.read_text()) if self.file.exists() else 0


@pytest.fixture
def tokenizer(tiny_models):
    return load_tokenizer(model_card(str(tiny_models["llama"])))


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    return Counted(tmp_path / "made")


def same(one: CorpusTokens, other: CorpusTokens) -> bool:
    parts = [(x.tokens[:], x.segment_ends, x.document_ends) for x in (one, other)]
    return all(np.array_equal(a, b) for a, b in zip(*parts, strict=True))


def child(folder: Path, model: Path, pause_s: float) -> subprocess.Popen[str]:
    """Start a process that has everything loaded and waits for a line."""
    call = [sys.executable, "-c", CHILD, str(folder), str(model), str(pause_s)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.Popen(call, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None and made.stdout.readline() == "ready\n"
    return made


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.thorough(beside="test_tokens_are_made_once_and_are_those_of_a_file_of_ones_own")
def test_two_processes_make_them_once(tiny_models, tmp_path: Path) -> None:
    processes = [child(tmp_path, tiny_models["llama"], 1.0) for _ in range(2)]
    for process in processes:
        go(process)
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert told[0] == told[1] and told[0].startswith("[") and Counted(tmp_path / "made").times == 1


@pytest.mark.thorough(beside="test_who_holds_the_lock_for_too_long_is_named_and_not_waited_for")
def test_a_process_killed_on_the_way_leaves_the_work_to_the_next(
    tiny_models, tokenizer, tmp_path: Path, counted: Counted, row: OpenRow
) -> None:
    row("the process that makes a corpus's tokens is killed, others wait for it", 1, "the next one makes them")
    first = child(tmp_path, tiny_models["llama"], 60.0)
    go(first)
    while not counted.times:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    found = kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    assert counted.times == 2 and found.tokens[:].tolist()
    assert len(list((tmp_path / "tokens").glob("*.arrow"))) == 1


def test_tokens_are_made_once_and_are_those_of_a_file_of_ones_own(tokenizer, tmp_path: Path, counted: Counted) -> None:
    alone = write_tokens(tmp_path / "own.arrow", TEXTS, tokenizer, 12, 3)
    for _ in range(3):
        assert same(kept_tokens(tmp_path / "tokens", lambda: iter(TEXTS), tokenizer, 12, 3, counted), alone)
    assert counted.times == 1


@pytest.mark.parametrize("change", ["text", "order", "boundary", "segments", "length", "special"])
def test_whatever_they_follow_from_makes_others(tokenizer, tmp_path: Path, counted: Counted, change: str) -> None:
    kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    texts = {"text": [*TEXTS[:-1], "x"], "order": TEXTS[::-1], "boundary": ["".join(TEXTS[:2]), *TEXTS[2:]]}
    tokenizer.split_special_tokens = change == "special"
    sizes = {"segments": (12, 2), "length": (11, 3)}.get(change, (12, 3))
    found = kept_tokens(tmp_path / "tokens", lambda: texts.get(change, TEXTS), tokenizer, *sizes, counted)
    assert counted.times == 2
    assert same(found, write_tokens(tmp_path / "own.arrow", texts.get(change, TEXTS), tokenizer, *sizes))


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_a_damaged_file_is_made_again(tokenizer, tmp_path: Path, counted: Counted, damage: str, caplog) -> None:
    found = kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    expected = found.tokens[:].tolist()
    (path,) = (tmp_path / "tokens").glob("*.arrow")
    content = path.read_bytes()
    place = content.index(np.array(expected[:8], dtype=np.int32).tobytes())
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    path.unlink()
    path.write_bytes(flipped if damage == "flipped" else content[:-40])
    again = kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    assert again.tokens[:].tolist() == expected and counted.times == 2 and "not what was written" in caplog.text
    assert kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted) and counted.times == 2


def test_a_folder_that_cannot_be_written_is_done_without(
    tokenizer, tmp_path: Path, counted: Counted, row: OpenRow, caplog
) -> None:
    row("the folder of tokens cannot be made", 1, "they are made, and held in memory")
    (tmp_path / "file").write_text("")
    found = kept_tokens(tmp_path / "file" / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    assert same(found, write_tokens(tmp_path / "own.arrow", TEXTS, tokenizer, 12, 3))
    assert counted.times == 1 and "made and not kept" in caplog.text


def test_a_disk_that_fills_up_leaves_nothing_behind(
    tokenizer, tmp_path: Path, counted: Counted, row: OpenRow, caplog, monkeypatch
) -> None:
    row("the disk is full while tokens are written", 1, "they are made, and held in memory")

    def full(path: Path, *told: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_tokens", full)
    found = kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    assert same(found, write_tokens(tmp_path / "own.arrow", TEXTS, tokenizer, 12, 3))
    assert "No space left on device" in caplog.text
    assert {path.name for path in (tmp_path / "tokens").iterdir()} <= {".lock", ".lock-holder"}


def test_who_holds_the_lock_for_too_long_is_named_and_not_waited_for(
    tokenizer, tmp_path: Path, counted: Counted, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(node_lock, "SAY_S", 0.05)
    monkeypatch.setattr(node_lock, "LOCK_S", 0.2)
    with node_lock.node_lock(tmp_path / "tokens" / ".lock", pytest.fail):
        kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    assert f"waiting for process {os.getpid()} of" in caplog.messages[0] and counted.times == 1


def test_the_last_used_files_stay(tokenizer, tmp_path: Path, counted: Counted) -> None:
    held = kept_tokens(tmp_path / "tokens", lambda: TEXTS, tokenizer, 12, 3, counted)
    (first,) = (tmp_path / "tokens").glob("*.arrow")
    before = held.tokens[:].tolist()
    left = tmp_path / "tokens" / "x.tmp"
    left.write_bytes(b"")
    for path, age_s in ((first, 9.0), (left, module.ABANDONED_S + 1)):
        os.utime(path, (time.time() - age_s, time.time() - age_s))
    for number in range(KEPT_FILES):
        kept_tokens(tmp_path / "tokens", lambda number=number: [f"text {number}"], tokenizer, 12, 3, counted)
    assert len(list((tmp_path / "tokens").glob("*.arrow"))) == KEPT_FILES
    assert not first.exists() and not left.exists() and held.tokens[:].tolist() == before
