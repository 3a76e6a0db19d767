from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.corpus import subject_of
from trainables.data.titles import normal_title

FEVER = {
    "Alan_Bates_-LRB-actor-RRB-": [
        "Alan Bates (actor)",
        "Alan_Bates_(actor)",
        "Alan%20Bates_%28actor%29",
        "alan Bates -LRB-actor-RRB-",
        " Alan  Bates\u00a0(actor) ",
        "https://en.wikipedia.org/wiki/Alan_Bates_(actor)",
        "http://en.m.wikipedia.org/wiki/Alan_Bates_%28actor%29",
        "Alan_Bates__(actor)_",
    ],
    "Avengers-COLON-_Infinity_War": ["Avengers: Infinity War", "Avengers%3A_Infinity_War", "avengers: Infinity_War"],
    "Caf\u00e9_Zo\u00eb": ["Cafe\u0301 Zoe\u0308", "Caf%C3%A9_Zo%C3%AB", "caf\u00e9 Zo\u00eb", "Caf&#233; Zo&#xeb;"],
    "AT&T": ["AT&amp;T", "AT%26T"],
    "100%_Wolf": ["100% Wolf", "100%25 Wolf"],
    "NaN": ["naN"],
    "\u00c9cole": ["\u00e9cole", "e\u0301cole", "%C3%A9cole"],
}


@pytest.mark.parametrize(("name", "spelling"), [(name, other) for name, all_ in FEVER.items() for other in all_])
def test_every_spelling_of_a_name_becomes_fevers(name: str, spelling: str) -> None:
    assert normal_title(spelling) == name


@pytest.mark.parametrize(
    "name", [*FEVER, "Ice-T", "Phoenix,_Arizona", "A%ZZ_B", "\u00df-carotene", "2012", "%FF_oddity"]
)
def test_fevers_own_spelling_stays(name: str) -> None:
    assert normal_title(name) == name


def test_different_names_stay_different() -> None:
    names = [
        "Ann",
        "ANN",
        "Ann_-LRB-film-RRB-",
        "Ann-film",
        "X\u00b2",
        "X2",
        "Ann\u2013Bob",
        "Ann-Bob",
        "100%_Wolf",
        "100_Wolf",
    ]
    assert len({normal_title(name) for name in names}) == len(names)


def test_a_subject_is_written_as_counterfact_writes_it() -> None:
    assert subject_of("Alan_Bates_-LRB-actor-RRB-") == "Alan Bates (actor)"
    assert subject_of("Avengers-COLON-_Infinity_War") == "Avengers: Infinity War"


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20))
def test_any_name_gets_one_form_of_its_letters(name: str) -> None:
    once = normal_title(name)
    spaced = normal_title(once.replace("_", " "))
    assert unicodedata.is_normalized("NFC", once) and not set(once) & set(" ()[]{}:")
    assert spaced == normal_title(once), "a space and an underscore are one"
