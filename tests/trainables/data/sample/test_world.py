from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trainables.data.sample.facts import UNTOLD, VALUES, Entity, World, make_world
from trainables.data.sample.wording import DEV, TRAIN, UNTOLD_CLAIMS
from trainables.data.sample.world import NO_TEXT, NO_TRAIN_ROWS, ensure_sample_data, write_sample_world

FILES = ("fever/train.jsonl", "fever/paper_dev.jsonl", "wiki-pages/wiki-001.jsonl", "counterfact.json")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    folder = tmp_path_factory.mktemp("world")
    return folder, write_sample_world(folder)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def meanings(world: World) -> dict[str, list[tuple[Entity, str, str, str]]]:
    """Every claim that can be worded, with what it says."""
    said: dict[str, list[tuple[Entity, str, str, str]]] = {}
    for entity in world.evidence:
        for split, wordings in (("dev", DEV), ("train", TRAIN)):
            for attribute, values in VALUES[entity.kind].items():
                for value in values:
                    for wording in wordings[entity.kind, attribute]:
                        text = wording.format(s=entity.name, v=value)
                        said.setdefault(text, []).append((entity, attribute, value, split))
    return said


def test_world_is_the_same_every_time(made: tuple[Path, World], tmp_path: Path) -> None:
    folder, world = made
    assert write_sample_world(tmp_path) == world
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert make_world(1) != world


@pytest.mark.parametrize(("name", "split"), [("paper_dev.jsonl", "dev"), ("train.jsonl", "train")])
def test_labels_are_true_in_the_world(made: tuple[Path, World], name: str, split: str) -> None:
    folder, world = made
    said = meanings(world)
    rows = lines(folder / "fever" / name)
    for row in rows:
        if row["label"] == "NOT ENOUGH INFO":
            continue
        (entity, attribute, value, wording_split), *others = said[row["claim"]]
        assert not others
        assert wording_split == split
        assert World.is_true(entity, attribute, value) == (row["label"] == "SUPPORTS")
        assert unicodedata.normalize("NFC", row["evidence"][0][0][2]) == entity.title
    assert {row["label"] for row in rows} == {"SUPPORTS", "REFUTES", "NOT ENOUGH INFO"}


def test_undecidable_claims_are_about_what_no_page_tells(made: tuple[Path, World]) -> None:
    folder, world = made
    undecidable = {
        wording.format(s=entity.name, v=value)
        for entity in world.evidence
        for wording in UNTOLD_CLAIMS[entity.kind]
        for value in UNTOLD[entity.kind][1]
    }
    for name in ("paper_dev.jsonl", "train.jsonl"):
        for row in lines(folder / "fever" / name):
            assert (row["claim"] in undecidable) == (row["label"] == "NOT ENOUGH INFO")
            if row["label"] == "NOT ENOUGH INFO":
                assert row["verifiable"] == "NOT VERIFIABLE"
                assert row["evidence"][0][0][1:] == [None, None, None]


def test_training_and_development_claims_differ_in_wording(made: tuple[Path, World]) -> None:
    folder, _ = made
    train = {row["claim"] for row in lines(folder / "fever" / "train.jsonl")}
    dev = {row["claim"] for row in lines(folder / "fever" / "paper_dev.jsonl")}
    assert not train & dev
    assert not {w for pair in TRAIN.values() for w in pair} & {w for pair in DEV.values() for w in pair}


def test_layout_is_fever_s(made: tuple[Path, World]) -> None:
    folder, _ = made
    rows = lines(folder / "fever" / "paper_dev.jsonl")
    assert all(set(row) == {"id", "verifiable", "label", "claim", "evidence"} for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert any(len(row["evidence"]) > 1 for row in rows)
    assert any(len(evidence) > 1 for row in rows for evidence in row["evidence"])
    pages = lines(folder / "wiki-pages" / "wiki-001.jsonl")
    assert pages[0] == {"id": "", "text": "", "lines": ""}
    for page in pages[1:]:
        sentences = [line.split("\t")[1] for line in page["lines"].splitlines()]
        assert page["text"] == "".join(sentence + " " for sentence in sentences)
        assert unicodedata.normalize("NFC", page["id"]) == page["id"]


def test_evidence_points_at_the_sentence_that_tells_the_fact(made: tuple[Path, World]) -> None:
    folder, world = made
    pages = {page["id"]: page["lines"].splitlines() for page in lines(folder / "wiki-pages" / "wiki-001.jsonl")}
    said = meanings(world)
    for row in lines(folder / "fever" / "paper_dev.jsonl"):
        if row["label"] == "NOT ENOUGH INFO":
            continue
        entity, attribute, _, _ = said[row["claim"]][0]
        if pages[entity.title]:
            assert entity.facts[attribute] in pages[entity.title][row["evidence"][0][0][3]]


def test_ranking_is_real_and_some_pages_are_dropped(made: tuple[Path, World]) -> None:
    folder, world = made
    counts: dict[str, Counter[str]] = {}
    for name in ("paper_dev.jsonl", "train.jsonl"):
        counts[name] = Counter(
            unicodedata.normalize("NFC", item[2])
            for row in lines(folder / "fever" / name)
            for evidence in row["evidence"]
            for item in evidence
            if item[2] is not None
        )
    texts = {page["id"]: page["text"] for page in lines(folder / "wiki-pages" / "wiki-001.jsonl")}
    dev, train = counts["paper_dev.jsonl"], counts["train.jsonl"]
    ranking = sorted(dev, key=lambda title: (-dev[title], title))
    assert len(ranking) == len(world.evidence) == 60
    assert len(set(dev.values())) > 15

    def usable(n: int) -> int:
        return len([title for title in ranking[:n] if texts[title].strip() and train[title]])

    dropped = len(NO_TRAIN_ROWS) + len(NO_TEXT)
    assert [usable(n) for n in (2, 10, 12, 60)] == [2, 10, 11, 60 - dropped]


def test_counterfact_records_name_true_and_wrong_values(made: tuple[Path, World]) -> None:
    folder, world = made
    entities = {entity.name: entity for entity in world.evidence}
    records = json.loads((folder / "counterfact.json").read_text(encoding="utf-8"))
    assert [record["case_id"] for record in records] == list(range(len(records)))
    assert len(records) >= 100
    for record in records:
        rewrite = record["requested_rewrite"]
        kind, attribute = rewrite["relation_id"].split("/")
        entity = entities[rewrite["subject"]]
        assert entity.kind == kind
        assert World.is_true(entity, attribute, rewrite["target_true"]["str"])
        assert not World.is_true(entity, attribute, rewrite["target_new"]["str"])
        assert "{}" in rewrite["prompt"]
        assert record["paraphrase_prompts"] and record["generation_prompts"]


def test_data_is_written_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_SWEEP_CACHE", str(tmp_path / "cache"))
    folder = ensure_sample_data()
    assert all((folder / name).is_file() for name in FILES)
    written = {name: (folder / name).stat().st_mtime_ns for name in FILES}
    assert ensure_sample_data() == folder
    assert {name: (folder / name).stat().st_mtime_ns for name in FILES} == written
    (folder / FILES[0]).unlink()
    assert (ensure_sample_data() / FILES[0]).is_file()
    assert not list(folder.parent.glob("*.part"))
