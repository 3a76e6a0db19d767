"""The sample world as files: FEVER's own layout, and CounterFact-style records.

    fever/train.jsonl, fever/paper_dev.jsonl   one claim a line, evidence as nested lists
    wiki-pages/wiki-001.jsonl                  one page a line: id, text, lines
    counterfact.json                           records in the layout of the ROME project

The files differ from FEVER's in content only, so they go through the same loaders.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from trainables.data.sample.facts import SAMPLE_VERSION, VALUES, Entity, World, make_world, wrong_value
from trainables.data.sample.wording import DEV, TRAIN, page_sentences, untold_claim, word_claim
from trainables.node.cache_dir import cache_dir

NO_TRAIN_ROWS = (9, 44)
"""Evidence pages, by index, that no training claim cites: step 3 of the pipeline drops them."""
NO_TEXT = (29,)
"""Evidence pages, by index, whose text is empty: dropped as well."""

Pages = dict[str, list[tuple[str, str]]]
"""Page title -> its sentences, each with the attribute it tells."""

_FILES = ("fever/train.jsonl", "fever/paper_dev.jsonl", "wiki-pages/wiki-001.jsonl", "counterfact.json")


def ensure_sample_data() -> Path:
    """Return the folder with the sample world's files, writing it into the cache at first use.

    Safe to call from several processes: one writes (under a file lock, then by rename), the others wait.
    """
    from filelock import FileLock

    folder = cache_dir() / f"sample-data-v{SAMPLE_VERSION}"
    if not _complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            if not _complete(folder):
                shutil.rmtree(folder, ignore_errors=True)
                half = folder.with_name(f"{folder.name}.{os.getpid()}.part")
                shutil.rmtree(half, ignore_errors=True)
                write_sample_world(half)
                half.rename(folder)
    return folder


def write_sample_world(folder: Path, seed: int = 0) -> World:
    """Write the four files into `folder` (made if missing) and return the world they tell of.

    Args:
        folder: where to write.
        seed: of the world; the same seed gives the same bytes.
    """
    world = make_world(seed)
    pages = {e.title: page_sentences(e, _rng(seed, "page", e)) for e in all_entities(world)}
    for index in NO_TEXT:
        pages[world.evidence[index].title] = []
    ids = count(10_000)
    dev, train = [], []
    for index, entity in enumerate(world.evidence):
        claims = _dev_claims(entity, index, pages, seed, ids)
        if index % 10 == 3:  # evidence on two pages, as many of FEVER's claims have
            other = world.evidence[index + 1].title
            claims[0]["evidence"][0].append([claims[0]["id"] * 10, claims[0]["id"] * 10 + 9, other, 0])
        dev += claims
        train += _train_claims(entity, index, pages, seed, ids)
    random.Random(f"order {seed}").shuffle(dev)
    random.Random(f"order {seed}").shuffle(train)
    _write_lines(folder / "fever" / "paper_dev.jsonl", dev)
    _write_lines(folder / "fever" / "train.jsonl", train)
    blank = {"id": "", "text": "", "lines": ""}
    listed = sorted(pages.items())
    _write_lines(folder / "wiki-pages" / "wiki-001.jsonl", [blank, *(_page(t, told) for t, told in listed)])
    records = counterfact_records(world, seed)
    text = json.dumps(records, ensure_ascii=False, indent=1)
    (folder / "counterfact.json").write_text(text, encoding="utf-8")
    return world


def all_entities(world: World) -> tuple[Entity, ...]:
    """Evidence and background entities, in this order."""
    return world.evidence + world.background


def page_text(told: list[tuple[str, str]]) -> str:
    """Join a page's sentences as FEVER does: a space after each."""
    return "".join(sentence + " " for _, sentence in told)


def counterfact_records(world: World, seed: int = 0) -> list[dict[str, Any]]:
    """Make two CounterFact-style records for every evidence entity.

    A relation's prompt is a claim wording that ends in the value; the counterfactual target is a wrong value.
    """
    records: list[dict[str, Any]] = []
    for entity in world.evidence:
        rng = _rng(seed, "counterfact", entity)
        usable = [a for a in VALUES[entity.kind] if all(w.endswith(" {v}.") for w in DEV[entity.kind, a])]
        for attribute in rng.sample(usable, 2):
            true, new = entity.facts[attribute], wrong_value(rng, entity, attribute)
            first, second = (wording.removesuffix(" {v}.") for wording in DEV[entity.kind, attribute])
            alike = [e for e in all_entities(world) if e is not entity and e.kind == entity.kind]
            same = [e for e in alike if e.facts[attribute] == true]
            also = [w.removesuffix(" {v}.") for w in TRAIN[entity.kind, attribute] if w.endswith(" {v}.")]
            records.append(
                {
                    "case_id": len(records),
                    "pararel_idx": len(records),
                    "requested_rewrite": {
                        "prompt": first.replace("{s}", "{}"),
                        "relation_id": f"{entity.kind}/{attribute}",
                        "target_new": {"str": new, "id": f"value/{new}"},
                        "target_true": {"str": true, "id": f"value/{true}"},
                        "subject": entity.name,
                    },
                    "paraphrase_prompts": [w.format(s=entity.name) for w in (second, *also)],
                    "neighborhood_prompts": [first.format(s=e.name) for e in same[:5]],
                    "attribute_prompts": [],
                    "generation_prompts": [first.format(s=entity.name), second.format(s=entity.name)],
                }
            )
    return records


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _rng(seed: int, use: str, entity: Entity) -> random.Random:
    return random.Random(f"{use} {seed} {entity.title}")


def _dev_claims(entity: Entity, index: int, pages: Pages, seed: int, ids: Iterator[int]) -> list[dict[str, Any]]:
    """Make a page's development claims: 14 for the first pages, 8 for the last, and one undecidable."""
    rng = _rng(seed, "dev", entity)
    asked = [(attribute, number) for attribute in VALUES[entity.kind] for number in (0, 1)]
    asked += [(attribute, number) for attribute in list(VALUES[entity.kind])[:1] for number in (0, 1)]
    rng.shuffle(asked)
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for attribute, number in asked[: 14 - index // 9]:
        true = rng.random() < 0.6
        for _ in range(20):
            value = entity.facts[attribute] if true else wrong_value(rng, entity, attribute)
            text = word_claim(DEV[entity.kind, attribute], number, entity, value)
            if text not in seen:
                break
            true = False
        seen.add(text)
        extra = 2 if len(rows) < 6 - index // 8 else int(len(rows) < 10 - index // 6)
        rows.append(_claim(next(ids), text, true, entity, attribute, pages, 1 + extra))
    rows.append(_undecided(next(ids), untold_claim(entity, False, rng)))
    return rows


def _train_claims(entity: Entity, index: int, pages: Pages, seed: int, ids: Iterator[int]) -> list[dict[str, Any]]:
    """Make a page's four to six training claims, and one undecidable."""
    rng = _rng(seed, "train", entity)
    rows = []
    wanted = 0 if index in NO_TRAIN_ROWS else 4 + index % 3
    for attribute in rng.sample(list(VALUES[entity.kind]), wanted):
        true = rng.random() < 0.6
        value = entity.facts[attribute] if true else wrong_value(rng, entity, attribute)
        text = word_claim(TRAIN[entity.kind, attribute], rng.randrange(2), entity, value)
        rows.append(_claim(next(ids), text, true, entity, attribute, pages, 1 + int(rng.random() < 0.2)))
    rows.append(_undecided(next(ids), untold_claim(entity, True, rng)))
    return rows


def _claim(
    number: int, text: str, true: bool, entity: Entity, attribute: str, pages: Pages, annotations: int
) -> dict[str, Any]:
    told = [name for name, _ in pages[entity.title]]
    line = told.index(attribute) if attribute in told else 0
    # FEVER writes accented page names decomposed in the claims and composed in the page dump
    title = unicodedata.normalize("NFD", entity.title)
    evidence = [[[number * 10 + k, number * 10 + k, title, line]] for k in range(annotations)]
    label = "SUPPORTS" if true else "REFUTES"
    return {"id": number, "verifiable": "VERIFIABLE", "label": label, "claim": text, "evidence": evidence}


def _undecided(number: int, text: str) -> dict[str, Any]:
    evidence = [[[number * 10, None, None, None]]]
    label = "NOT ENOUGH INFO"
    return {"id": number, "verifiable": "NOT VERIFIABLE", "label": label, "claim": text, "evidence": evidence}


def _page(title: str, told: list[tuple[str, str]]) -> dict[str, str]:
    lines = "\n".join(f"{i}\t{sentence}" for i, (_, sentence) in enumerate(told))
    return {"id": title, "text": page_text(told), "lines": lines}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")
