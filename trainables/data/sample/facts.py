"""The generated world: people, works and places, each with one value for every attribute of its kind.

Everything here is a pure function of the seed. A claim of this world is true exactly when the value it names
is the entity's value (`World.is_true`): every attribute holds one value only.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

SAMPLE_VERSION = "1"
"""Changes whenever the sample world or the sample models, which learn from it, change: part of their cache keys."""

CITIES = ("Orsk", "Velm", "Tarn", "Dubra", "Lissen", "Karo", "Pell", "Sundal", "Ymer", "Brack")
JOBS = ("painter", "singer", "judge", "baker", "pilot", "dancer", "writer", "farmer", "teacher", "sailor")
COUNTRIES = ("Norvia", "Estland", "Calder", "Morva", "Zarland", "Tuvia")
SUBJECTS = ("law", "music", "history", "biology", "chess", "theology", "geometry", "medicine")
AWARDS = ("Lantern", "Falcon", "Silver", "Harbour", "Crown", "Meridian", "Laurel", "Comet")
YEARS = tuple(str(year) for year in (1901, 1908, 1913, 1924, 1932, 1946, 1955, 1967, 1978, 1989))
GENRES = ("comedy", "tragedy", "romance", "mystery", "satire", "thriller", "fantasy", "western")
MAKERS = ("Hale", "Ruiz", "Lind", "Bohm", "Kern", "Sato", "Vance", "Moro")
RIVERS = ("Isel", "Drova", "Marn", "Tolk", "Senn", "Wye", "Ulva", "Gant")
GOODS = ("cheese", "glass", "wool", "copper", "wine", "salt", "timber", "silk", "pottery", "honey")
BUILDINGS = ("lighthouse", "castle", "bridge", "cathedral", "tower", "museum", "theatre", "market")
PETS = ("cat", "dog", "horse", "parrot", "goat", "tortoise", "rabbit", "donkey")
COSTS = ("ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "ninety")
CLUBS = ("football", "rowing", "tennis", "hockey", "boxing", "archery", "curling", "fencing")

VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    "person": {
        "job": JOBS,
        "birthplace": CITIES,
        "birth_year": YEARS,
        "country": COUNTRIES,
        "subject": SUBJECTS,
        "award": AWARDS,
    },
    "work": {
        "genre": GENRES,
        "year": YEARS,
        "setting": CITIES,
        "maker": MAKERS,
        "country": COUNTRIES,
        "award": AWARDS,
    },
    "place": {
        "country": COUNTRIES,
        "river": RIVERS,
        "product": GOODS,
        "building": BUILDINGS,
        "founded": YEARS,
        "twin": CITIES,
    },
}
"""Attribute values by kind; what the pages tell and the claims are about."""

UNTOLD: dict[str, tuple[str, tuple[str, ...]]] = {
    "person": ("pet", PETS),
    "work": ("cost", COSTS),
    "place": ("club", CLUBS),
}
"""One attribute a kind that no page tells: its claims are NOT ENOUGH INFO."""

_ONSETS = ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "st", "gr", "th")
_VOWELS = ("a", "e", "i", "o", "u", "ai", "ea")
_CODAS = ("n", "r", "l", "s", "m", "th", "ck", "nd")
_FIRST = ("Ada", "Ivo", "Mira", "Otto", "Lena", "Hugo", "Nora", "Emil", "Zoë", "Karl", "Ines", "Rolf")
_WORK_NOUNS = ("Song", "Road", "Garden", "Letter", "Winter", "Mirror")


@dataclass(frozen=True)
class Entity:
    """One page's subject.

    Attributes:
        name: as claims write it, `Mira Talven`.
        title: as FEVER writes the page's name, `Mira_Talven` or `Road_to_Belm_-LRB-film-RRB-`.
        kind: `person`, `work` or `place`.
        facts: value by attribute, for every attribute of its kind.
    """

    name: str
    title: str
    kind: str
    facts: dict[str, str] = field(hash=False)


@dataclass(frozen=True)
class World:
    """All entities: those whose pages are evidence, and the background the sample models learn from.

    Attributes:
        evidence: the pages that development claims cite, in order of falling number of claims.
        background: the larger population; its pages are in the page dump, no claim cites them.
    """

    evidence: tuple[Entity, ...]
    background: tuple[Entity, ...]

    @staticmethod
    def is_true(entity: Entity, attribute: str, value: str) -> bool:
        """Say whether a claim holds; for an untold attribute nobody knows (KeyError)."""
        return entity.facts[attribute] == value


def make_world(seed: int = 0, num_evidence: int = 60, num_background: int = 90) -> World:
    """Generate the world.

    Args:
        seed: of everything drawn.
        num_evidence: pages with development claims.
        num_background: further pages.
    """
    rng = random.Random(f"sample world {seed}")
    names: set[str] = set()
    entities = [_entity(rng, names, index) for index in range(num_evidence + num_background)]
    return World(tuple(entities[:num_evidence]), tuple(entities[num_evidence:]))


def wrong_value(rng: random.Random, entity: Entity, attribute: str) -> str:
    """Draw a value that the entity does not have for this attribute."""
    values = [value for value in VALUES[entity.kind][attribute] if value != entity.facts[attribute]]
    return rng.choice(values)


def _entity(rng: random.Random, names: set[str], index: int) -> Entity:
    kind = ("person", "work", "person", "place", "work")[index % 5]
    word = _new_word(rng, names)
    if kind == "person":
        name = f"{rng.choice(_FIRST)} {word}"
    elif kind == "work":
        name = f"{rng.choice(_WORK_NOUNS)} of {word}"
    else:
        name = word
    suffix = "_-LRB-film-RRB-" if kind == "work" and rng.random() < 0.3 else ""
    facts = {attribute: rng.choice(values) for attribute, values in VALUES[kind].items()}
    return Entity(name, name.replace(" ", "_") + suffix, kind, facts)


def _new_word(rng: random.Random, used: set[str]) -> str:
    """Make a name of two syllables that is no other entity's."""
    while True:
        first = rng.choice(_ONSETS) + rng.choice(_VOWELS)
        word = (first + rng.choice(_ONSETS[:15]) + rng.choice(_VOWELS[:5]) + rng.choice(_CODAS)).capitalize()
        if word not in used and word not in CITIES:
            used.add(word)
            return word
