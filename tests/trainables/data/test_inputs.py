"""Data that are not what they say: each is refused with file and line, or read right; never a silent change."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweep.planning.expand import build_plan
from sweep.planning.inputs import points_to_run, read_data
from sweep.space import Space, Stage, checked
from tests.trainables.data.conftest import COLUMNS, PAGES, TRAIN, VALID, claim, table_rows, write_jsonl
from trainables.data.corpus import load_corpus
from trainables.data.fever import group_by_page, read_rows
from trainables.data.sources import data_key
from trainables.errors import DataError

MakeFever = Callable[..., Path]
WRITTEN_FOR_NOTHING = ["nan", "NaN", "None", "NULL", "null", "NA", "N/A", "<NA>", "", " "]


def csv_claims(path: Path, records: list[Any], nothing: str) -> Path:
    rows = [row | {"evidence_wiki_url": row["evidence_wiki_url"] or nothing} for row in table_rows(records)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("nothing", WRITTEN_FOR_NOTHING)
def test_a_word_for_nothing_is_no_page_of_a_claim_without_enough_info(tmp_path: Path, nothing: str) -> None:
    many = [claim(100 + i, "NOT ENOUGH INFO", f"Claim {i}.", [None]) for i in range(20)]
    table = group_by_page(read_rows(csv_claims(tmp_path / "paper_dev.csv", VALID + many, nothing)))
    assert table.ranking()[0] == "Ann" and set(table.pages) == {"Ann", "Bob", "Cy", "Dee", "Caf\u00e9_Zo\u00eb"}
    assert table.rows == 11 + 20, "they still count as rows of the table"


def test_pages_that_are_called_so_are_pages_of_other_claims(tmp_path: Path) -> None:
    asked = [claim(1, "SUPPORTS", "NaN is a value.", ["NaN"]), claim(2, "REFUTES", "Null is a word.", ["Null"])]
    assert set(group_by_page(read_rows(csv_claims(tmp_path / "train.csv", asked, "nan"))).pages) == {"NaN", "Null"}


def test_a_float_nan_is_no_page_and_ids_that_became_floats_are_the_same(tmp_path: Path) -> None:
    import pandas as pd

    rows = [row | {"evidence_wiki_url": row["evidence_wiki_url"] or float("nan")} for row in table_rows(VALID)]
    frame = pd.DataFrame(rows).astype({"id": float})
    frame.to_parquet(tmp_path / "paper_dev.parquet")
    frame.to_csv(tmp_path / "paper_dev.csv", na_rep="nan", index=False)
    frame.to_json(tmp_path / "paper_dev.jsonl", orient="records", lines=True)
    write_jsonl(tmp_path / "official" / "paper_dev.jsonl", VALID)
    expected = group_by_page(read_rows(tmp_path / "official" / "paper_dev.jsonl"))
    for suffix in ("parquet", "csv", "jsonl"):
        assert group_by_page(read_rows(tmp_path / f"paper_dev.{suffix}")) == expected


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"claim": "nan"}, "claim 'nan': the claim is missing"),
        ({"claim": ""}, "claim '': the claim is missing"),
        ({"claim": "\ud800 is"}, r"field 'claim' holds \\ud800 at character 1, half of a surrogate pair"),
        ({"evidence": [[[1, 2, "A\udfff", 0]]]}, r"evidence page holds \\udfff at character 2"),
        ({"id": None}, "id None: a number or text is needed"),
        ({"id": True}, "id True"),
        ({"id": "nan"}, "id 'nan'"),
        ({"label": "supports"}, "label 'supports' must be one of"),
        ({"evidence": "A"}, "field 'evidence' must be lists"),
    ],
)
def test_a_claim_that_cannot_be_one_is_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = tmp_path / "train.jsonl"
    write_jsonl(path, [TRAIN[0], TRAIN[1] | row])
    with pytest.raises(DataError, match=rf"train\.jsonl:2: {said}"):
        list(read_rows(path))


# -- titles


def respelled(texts: dict[str, str], spell: Callable[[str], str]) -> list[dict[str, str]]:
    return [{"id": spell(title), "text": text, "lines": ""} for title, text in texts.items()]


@pytest.mark.parametrize(
    "spell",
    [
        lambda title: title.replace("_", " "),
        lambda title: title.replace("Caf\u00e9", "Cafe\u0301"),
        lambda title: title.replace("Caf\u00e9_Zo\u00eb", "Caf%C3%A9_Zo%C3%AB"),
        lambda title: title[:1].lower() + title[1:],
        lambda title: f"https://en.wikipedia.org/wiki/{title}" if title else title,
    ],
)
@pytest.mark.parametrize("form", ["pages", "claims"])
def test_pages_are_found_however_their_names_are_spelled(make_fever: MakeFever, spell: Any, form: str) -> None:
    expected = load_corpus(str(make_fever()))
    folder = make_fever(name="other") / "fever"
    if form == "pages":
        for path in (folder / "wiki-pages").iterdir():
            path.unlink()
        write_jsonl(folder / "wiki-pages" / "wiki-001.jsonl", respelled(PAGES, spell))
    else:
        for name, records in (("train", TRAIN), ("paper_dev", VALID)):
            spelled = json.loads(json.dumps(records))
            for entry in (e for record in spelled for group in record["evidence"] for e in group):
                entry[2] = spell(entry[2]) if entry[2] else None
            write_jsonl(folder / f"{name}.jsonl", spelled)
    assert load_corpus(str(folder)) == expected


def test_a_wikipedia_dump_is_read_by_its_titles(make_fever: MakeFever) -> None:
    import pyarrow
    import pyarrow.parquet

    expected = load_corpus(str(make_fever()))
    folder = make_fever(name="other") / "fever"
    for path in (folder / "wiki-pages").iterdir():
        path.unlink()
    dump = [
        {"id": str(i), "url": f"https://en.wikipedia.org/wiki/{t}", "title": t.replace("_", " "), "text": text}
        for i, (t, text) in enumerate({**PAGES, "10": "Ten ."}.items())
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(dump), folder / "wiki-pages" / "train-00000.parquet")
    assert load_corpus(str(folder)).pages == expected.pages
    (folder / "wiki-pages" / "train-00000.parquet").unlink()
    write_jsonl(folder / "wiki-pages" / "dump.jsonl", dump)
    assert load_corpus(str(folder)).pages == expected.pages
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(dump), folder / "wiki_docs.parquet")
    assert {d.title for d in load_corpus(str(folder)).articles} == {"", "Unasked", "10"}, "no evidence page twice"


def test_data_of_which_no_page_has_a_text_are_refused_with_titles_of_both_sides(make_fever: MakeFever) -> None:
    folder = make_fever()
    for path in (folder / "fever" / "wiki-pages").iterdir():
        path.unlink()
    write_jsonl(folder / "fever" / "wiki-pages" / "a.jsonl", respelled({"Q1": "x", "Q2": "y"}, str))
    with pytest.raises(
        DataError, match=r"0 of 5 evidence pages have a text in .*wiki-pages; titles .* 'Q1', 'Q2', mis"
    ):
        load_corpus(str(folder))


@pytest.mark.parametrize("name", ["wiki_docs.jsonl", "fever/wiki-pages/wiki-001.jsonl"])
def test_two_texts_under_one_name_are_refused(make_fever: MakeFever, name: str) -> None:
    folder = make_fever(articles=True)
    path = folder / name
    title = "Moon" if "docs" in name else "Ann"
    path.write_text(path.read_text() + json.dumps({"id": title.lower(), "text": "Another text."}) + "\n")
    with pytest.raises(DataError, match=rf"jsonl:\d: page '{title}' has another text at .*jsonl:\d; keep one"):
        load_corpus(str(folder))


@pytest.mark.parametrize("name", ["wiki_docs.jsonl", "fever/wiki-pages/wiki-001.jsonl"])
def test_half_a_surrogate_pair_in_a_page_is_named_with_its_line(make_fever: MakeFever, name: str) -> None:
    folder = make_fever(articles=True)
    path = folder / name
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    title = "Sun" if "docs" in name else "Bob"
    number = next(i for i, page in enumerate(lines, 1) if page["id"] == title)
    lines[number - 1]["text"] = "A \ud83d B"
    write_jsonl(path, lines)
    with pytest.raises(DataError, match=rf"jsonl:{number}: field 'text' holds \\ud83d at character 3"):
        load_corpus(str(folder))


# -- files


def rewritten(folder: Path, name: str, change: Callable[[bytes], bytes], ending: str = "") -> Path:
    path = folder / name
    content = change(path.read_bytes())
    path.unlink()
    target = path.with_name(path.name + ending)
    target.write_bytes(content)
    return target


def zst(content: bytes) -> bytes:
    import pyarrow

    return pyarrow.compress(content, "zstd", asbytes=True)  # type: ignore[no-any-return]


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}
NAMES = ["fever/train.jsonl", "fever/paper_dev.jsonl", "fever/wiki-pages/wiki-001.jsonl", "wiki_docs.jsonl"]


@pytest.mark.parametrize("ending", PACKED)
def test_compressed_files_are_read_and_are_other_data(make_fever: MakeFever, ending: str) -> None:
    folder = make_fever(articles=True)
    expected, key = load_corpus(str(folder)), data_key(str(folder))
    for name in NAMES:
        rewritten(folder, name, lambda content: PACKED[ending](content[:9]) + PACKED[ending](content[9:]), ending)
    assert load_corpus(str(folder)) == expected, "also of several parts"
    assert data_key(str(folder)) != key, "identity is the content of the files as they lie there"


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("how", ["cut off", "something else"])
def test_a_compressed_file_that_is_broken_is_named(make_fever: MakeFever, ending: str, how: str) -> None:
    folder = make_fever()
    broken = {"cut off": lambda content: PACKED[ending](content * 50)[:-7], "something else": lambda content: content}[
        how
    ]
    path = rewritten(folder, "fever/train.jsonl", broken, ending)
    with pytest.raises(DataError, match=rf"{path.name}: cannot be unpacked"):
        load_corpus(str(folder))


@pytest.mark.parametrize("name", NAMES)
def test_a_byte_order_mark_is_no_part_of_the_text(make_fever: MakeFever, name: str) -> None:
    folder = make_fever(articles=True)
    expected = load_corpus(str(folder))
    rewritten(folder, name, lambda content: b"\xef\xbb\xbf" + content)
    assert load_corpus(str(folder)) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("utf-16", "in UTF-16"),
        ("utf-16-le", "in UTF-16"),
        ("utf-16-be", "in UTF-16"),
        ("utf-32", "in UTF-32"),
        ("utf-32-be", "in UTF-32"),
        ("latin-1", r"not in UTF-8 \(byte 0xe9; in Latin-1 or Windows-1252 it reads .*Caf\u00e9"),
        ("cp1252", r"not in UTF-8 \(byte 0xe9; in Latin-1 or Windows-1252 it reads .*Caf\u00e9"),
    ],
)
def test_another_encoding_is_named(make_fever: MakeFever, name: str, encoding: str, said: str) -> None:
    folder = make_fever(articles=True)
    line = {
        "id": 99,
        "label": "SUPPORTS",
        "claim": "Caf\u00e9.",
        "evidence": [[[1, 2, "Ann", 0]]],
        "title": "Caf\u00e9",
    }
    added = json.dumps(line | {"text": "Caf\u00e9 ."}, ensure_ascii=False)
    rewritten(folder, name, lambda content: (content.decode() + added).encode(encoding, "ignore"))
    with pytest.raises(DataError, match=rf"{Path(name).name}.*: {said}"):
        load_corpus(str(folder))


def test_csv_in_another_encoding_or_broken_is_named_with_its_line(tmp_path: Path) -> None:
    path = csv_claims(tmp_path / "train.csv", TRAIN, "")
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for change, said in (
        (text.encode("latin-1"), r"train\.csv:5: not in UTF-8 \(byte 0xe9"),
        (text.encode("utf-16"), r"train\.csv: in UTF-16"),
        (
            "\n".join([*lines[:3], '14,SUPPORTS,"open', *lines[3:]]).encode(),
            r"train\.csv:\d+: not valid CSV .*quote left",
        ),
        ("\n".join([*lines[:3], "14,SUPPORTS", *lines[3:]]).encode(), r"train\.csv:4: 2 values where the header has 7"),
        ("\n".join([*lines[:3], lines[3] + ",more", *lines[4:]]).encode(), r"train\.csv:4: 8 values where"),
        (
            text.replace(",", ";").encode(),
            r"train\.csv:1: no column 'id', 'label', 'claim', 'evidence' or .*'id;label;",
        ),
        (text.replace("label", "id", 1).encode(), r"train\.csv:1: no column 'label' "),
        (text.replace("evidence_id", "id", 1).encode(), r"train\.csv:1: column 'id' more than once"),
        (b"", r"train\.csv:1: no column .*there are: none"),
    ):
        path.write_bytes(change)
        with pytest.raises(DataError, match=said):
            list(read_rows(path))


def test_all_missing_columns_of_pages_are_named(make_fever: MakeFever) -> None:
    folder = make_fever()
    (folder / "fever" / "wiki-pages" / "wiki-001.jsonl").write_text('{"name": "Ann", "body": "x"}\n')
    with pytest.raises(
        DataError, match=r"001\.jsonl:1: no field 'title' or 'id', 'text' \(there are: 'name', 'body'\)"
    ):
        load_corpus(str(folder))


@pytest.mark.parametrize("form", ["json", "csv", "csv.gz", "parquet", "datasets"])
def test_every_part_is_read_in_every_form(make_fever: MakeFever, form: str) -> None:
    import datasets

    folder = make_fever(articles=True)
    expected = load_corpus(str(folder))
    for name, records in (("train", TRAIN), ("paper_dev", VALID)):
        (folder / "fever" / f"{name}.jsonl").unlink()
        written(datasets.Dataset.from_list(table_rows(records)), folder / "fever" / name, form)
    for path in (folder / "fever" / "wiki-pages").iterdir():
        path.unlink()
    pages = datasets.Dataset.from_list(respelled(PAGES, str))
    written(pages, folder / "fever" / "wiki-pages" / ("" if form == "datasets" else "all"), form)
    articles = [json.loads(line) for line in (folder / "wiki_docs.jsonl").read_text().splitlines()]
    (folder / "wiki_docs.jsonl").unlink()
    written(datasets.Dataset.from_list(articles), folder / "wiki_docs", form)
    assert load_corpus(str(folder)) == expected


def written(table: Any, path: Path, form: str) -> None:
    if form == "datasets":
        table.save_to_disk(path)
    elif form == "parquet":
        table.to_parquet(f"{path}.parquet")
    elif form == "json":
        Path(f"{path}.json").write_text(json.dumps(table.to_list(), indent=1))
    else:
        table.to_pandas().to_csv(f"{path}.{form}", index=False)


def test_a_folder_that_datasets_has_saved_is_a_data_folder(make_fever: MakeFever, tmp_path: Path) -> None:
    import datasets

    expected = load_corpus(str(make_fever()))
    claims = {name: datasets.Dataset.from_list(table_rows(r)) for name, r in (("train", TRAIN), ("paper_dev", VALID))}
    datasets.DatasetDict(claims).save_to_disk(tmp_path / "saved")
    pages = datasets.DatasetDict({"train": datasets.Dataset.from_list(respelled(PAGES, str))})
    pages.save_to_disk(tmp_path / "saved" / "wiki-pages")
    assert load_corpus(str(tmp_path / "saved")) == expected, "a split of pages called `train` holds no claims"
    key = data_key(str(tmp_path / "saved"))
    (tmp_path / "saved" / "train").rename(tmp_path / "kept")
    (tmp_path / "saved" / "paper_dev").rename(tmp_path / "saved" / "train")
    (tmp_path / "kept").rename(tmp_path / "saved" / "paper_dev")
    assert data_key(str(tmp_path / "saved")) != key, "which split is which is part of the identity"


def test_a_saved_folder_that_is_broken_is_named(make_fever: MakeFever) -> None:
    import datasets

    folder = make_fever() / "fever"
    (folder / "train.jsonl").unlink()
    datasets.Dataset.from_list(table_rows(TRAIN)).save_to_disk(folder / "train")
    arrow = next((folder / "train").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[: arrow.stat().st_size // 2])
    with pytest.raises(DataError, match="train: cannot be read as a folder saved by `datasets`"):
        load_corpus(str(folder))
    (folder / "train" / "state.json").write_text("{")
    with pytest.raises(DataError, match="train: cannot be read as a folder saved by `datasets`"):
        load_corpus(str(folder))


# -- anything at all


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_never_end_in_a_traceback(make_fever: MakeFever, name: str, seed: int) -> None:
    folder = make_fever(articles=True)
    path = folder / name
    good = path.read_bytes()
    chance = random.Random(seed)
    for _ in range(40):
        broken = bytearray(good)
        for _ in range(chance.choice((1, 3))):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path.write_bytes(broken[: chance.choice((len(broken), chance.randrange(len(broken))))])
        try:
            load_corpus(str(folder)).select(4)
        except DataError as error:
            assert "\n" not in str(error) and str(folder) in str(error)


# -- what is said before a run


def notes_of(folder: Path, **values: Any) -> list[str]:
    fixed = {"data": str(folder), "model": "sample-llama", "layer": 1, "num_documents": 3, **values}
    space = checked(Space(name="s", title="", axes={}, fixed=fixed, stages=(Stage(name="one", axes={}),)))
    return read_data(points_to_run(build_plan(space)))


def test_few_pages_with_a_text_are_said(make_fever: MakeFever) -> None:
    folder = make_fever()
    (said,) = notes_of(folder, num_documents=5)
    place = folder / "fever" / "wiki-pages"
    assert f"4 of 5 evidence pages have a text in {place}; titles there look like 'Bob', 'Ann', 'Unasked'" in said
    assert said.endswith("missing are 'Cy'")


def test_a_page_without_a_text_that_no_trial_asks_for_is_not_said(make_fever: MakeFever) -> None:
    folder = make_fever()
    assert notes_of(folder, num_documents=3) == []
    (said,) = notes_of(folder, num_documents=4)
    assert "3 of 4 evidence pages have a text" in said
    record = {"prompt": "{} is", "subject": "Cy", "target_true": {"str": "a"}, "target_new": {"str": "b"}}
    (folder / "counterfact.json").write_text(json.dumps([{"case_id": 1, "requested_rewrite": record}]))
    first = {"page_order": "subjects", "probes": "counterfact", "counterfact_records": 1}
    (said,) = notes_of(folder, num_documents=3, **first)
    assert "2 of 3 evidence pages have a text" in said and said.endswith("missing are 'Cy'")


def test_the_sample_world_needs_no_note() -> None:
    assert [notes_of(Path("sample"), num_documents=number) for number in (4, 12)] == [[], []]


def test_a_probe_that_finds_nothing_to_ask_is_said(tmp_path: Path) -> None:
    told = "has no question to ask about the 3 documents; nothing is asked"
    assert notes_of(Path("sample"), probes=("fever", "choices")) == [f"probe choices: sample {told}"]
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"The {number}th of a user's own documents.")
    assert notes_of(tmp_path) == [
        f"probe fever: {tmp_path} has no claim to ask about the 3 documents; nothing is asked"
    ]


def test_more_records_than_there_are_is_said(make_fever: MakeFever) -> None:
    folder = make_fever()
    rewrite = {"prompt": "{} is", "subject": "Ann", "target_true": {"str": "a"}, "target_new": {"str": "b"}}
    records = [{"case_id": i, "requested_rewrite": rewrite} for i in range(3)]
    (folder / "counterfact.json").write_text(json.dumps(records))
    said = notes_of(folder, probes="counterfact", counterfact_records=100)
    assert f"counterfact_records=100: {folder} has 3; those are asked" in said
    assert not any("counterfact" in note for note in notes_of(folder, probes="counterfact", counterfact_records=3))
