from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.documents import LABELS, Claim, Document
from trainables.data.prompts import HEADER, POOL, choose_examples, choose_examples_for, render_prompt, render_template
from trainables.errors import ConfigError

POOL_LABELS = dict.fromkeys(POOL[0], "a") | dict.fromkeys(POOL[1], "c") | dict.fromkeys(POOL[2], "b")
NOTES_LABELS = dict.fromkeys(POOL[0], "a") | dict.fromkeys(POOL[1], "b") | dict.fromkeys(POOL[2], "c")


def document(*claims: tuple[str, str], title: str = "Ann") -> Document:
    train = tuple(Claim(str(i), text, label) for i, (text, label) in enumerate(claims))
    return Document(title, "text", train, (), "fever")


claim_texts = st.sampled_from(["One.", "Two.", "Three.", "Four.", *POOL[0][:2], POOL[2][0]])
claim_lists = st.lists(st.tuples(claim_texts, st.sampled_from(LABELS)), max_size=6)


def test_the_prompt_is_the_notes_character_for_character() -> None:
    examples = [
        ("Roman Atwood is a content creator.", "a"),
        ("System of a Down briefly disbanded in limbo.", "b"),
    ]
    assert render_prompt(examples, "Adrienne Bailon is an accountant.") == (
        "Determine the factuality of the following claims \n"
        "Answer candidates: (a) supports, (b) refutes, (c) not enough info\n"
        "Claim: Roman Atwood is a content creator.\n"
        "A: (a)\n"
        "Claim: System of a Down briefly disbanded in limbo.\n"
        "A: (b)\n"
        "Claim: Adrienne Bailon is an accountant.\n"
        "A:"
    )


def test_the_template_is_the_prompt_with_its_answer() -> None:
    assert render_prompt([], "X.") == f"{HEADER}Claim: X.\nA:"
    assert render_template([], "X.", "c") == f"{HEADER}Claim: X.\nA: (c)"


def test_the_pool_is_the_notes_own() -> None:
    assert [len(texts) for texts in POOL] == [5, 6, 6]
    assert len(set(sum(POOL, ()))) == 17


def test_no_shots_are_no_examples() -> None:
    assert choose_examples(document(("One.", "SUPPORTS")), 0, seed=0) == ()


def test_claims_of_the_page_come_before_the_pool() -> None:
    page = document(("One.", "SUPPORTS"), ("Two.", "SUPPORTS"))
    examples = choose_examples(page, 4, seed=0)
    assert {text for text, _ in examples[:2]} == {"One.", "Two."}
    assert [letter for _, letter in examples] == ["a", "a", "b", "c"], "missing answers are covered first"


def test_an_empty_page_is_topped_up_in_the_order_of_the_labels() -> None:
    assert [letter for _, letter in choose_examples(document(), 5, seed=3)] == ["a", "b", "c", "a", "b"]


@pytest.mark.parametrize(("notes_labels", "labels"), [(False, POOL_LABELS), (True, NOTES_LABELS)])
def test_pool_claims_carry_fevers_labels_or_the_notes(notes_labels: bool, labels: dict[str, str]) -> None:
    examples = choose_examples(document(), 17, seed=0, notes_labels=notes_labels)
    assert dict(examples) == labels


@given(claim_lists, st.integers(0, 5), st.integers(0, 3), st.booleans(), claim_texts)
def test_examples_are_distinct_complete_and_never_the_claim_asked(
    claims: list[tuple[str, str]], num_shots: int, seed: int, notes_labels: bool, asked: str
) -> None:
    page = document(*claims)
    examples = choose_examples(page, num_shots, seed, notes_labels, exclude=(asked,))
    texts = [text for text, _ in examples]
    assert len(examples) == num_shots
    assert len(set(texts)) == num_shots
    assert asked not in texts
    own = {text for text, _ in claims} - {asked}
    assert sum(text in own for text in texts) == min(num_shots, len(own))
    assert examples == choose_examples(page, 5, seed, notes_labels, exclude=(asked,))[:num_shots]


@given(claim_lists, st.integers(1, 5))
def test_excluding_a_claim_leaves_the_others_in_place(claims: list[tuple[str, str]], shots: int) -> None:
    page = document(*claims)
    examples = choose_examples(page, shots, seed=1)
    own = {text for text, _ in claims}
    kept = [pair for pair in examples if pair[0] != "One." and pair[0] in own]
    assert [p for p in choose_examples(page, shots, seed=1, exclude=("One.",)) if p in kept] == kept


@given(claim_lists, st.integers(0, 5), st.integers(0, 3), st.booleans(), claim_texts)
def test_a_claim_asked_is_never_its_own_example_and_others_keep_theirs(
    claims: list[tuple[str, str]], shots: int, seed: int, notes_labels: bool, asked: str
) -> None:
    page, shared = document(*claims), choose_examples(document(*claims), shots, seed, notes_labels)
    spelled = f"  {asked.upper()} \n"
    for text in (asked, spelled):
        found = choose_examples_for(text, page, shots, seed, notes_labels)
        assert asked.lower() not in {example.lower() for example, _ in found} and len(set(found)) == shots
        if asked not in dict(shared):
            assert found == shared
    own = [pair for pair in shared if pair[0] in dict(claims) and pair[0] != asked]
    found = choose_examples_for(asked, page, shots, seed, notes_labels)
    assert list(found[: len(own)]) == own, "the next one comes at the end, the others move up"


def test_a_sentence_is_the_same_whatever_its_case_and_white_space() -> None:
    page = document(("Ann  sings.", "SUPPORTS"), ("ann sings. ", "SUPPORTS"), ("Ann sang.", "REFUTES"))
    assert choose_examples_for("Ann sings.", page, 1, seed=0) == (("Ann sang.", "b"),)
    pool = POOL[0][3]
    asked = choose_examples_for(pool.lower(), document(), 5, seed=0)
    assert pool not in dict(asked) and len(asked) == 5


def test_seeds_and_pages_draw_differently() -> None:
    claims = [(f"Claim {i}.", "SUPPORTS") for i in range(20)]
    draws = {choose_examples(document(*claims, title=t), 3, seed=s) for t in ("A", "B") for s in range(5)}
    assert len(draws) == 10


def test_the_choice_is_the_same_in_every_process() -> None:
    code = (
        "from trainables.data.documents import Claim, Document\n"
        "from trainables.data.prompts import choose_examples\n"
        "train = tuple(Claim(str(i), f'Claim {i}.', 'REFUTES') for i in range(20))\n"
        "print(choose_examples(Document('Zoë', '', train, (), 'fever'), 5, 7))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            cwd=Path(__file__).parents[3],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_too_many_shots_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_shots=19: page Ann and the pool have 18"):
        choose_examples(document(("One.", "SUPPORTS")), 19, seed=0)
