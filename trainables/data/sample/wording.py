"""How the sample world's facts are put into words: page sentences and claims.

Development claims, training claims and page sentences word the same fact differently, so that answering a
development claim takes more than repeating a string.
"""

from __future__ import annotations

import random

from trainables.data.sample.facts import UNTOLD, VALUES, Entity

PAGE: dict[tuple[str, str], tuple[str, ...]] = {
    ("person", "job"): ("{s} was a {v} by trade .", "{s} made a living as a {v} ."),
    ("person", "birthplace"): ("{s} came into the world in {v} .", "The birthplace of {s} was {v} ."),
    ("person", "birth_year"): ("{s} was born in the year {v} .", "The year of birth of {s} was {v} ."),
    ("person", "country"): ("{s} was a citizen of {v} .", "The country of {s} was {v} ."),
    ("person", "subject"): ("As a student {s} chose {v} .", "{s} read {v} at school ."),
    ("person", "award"): ("{s} was given the {v} Prize .", "{s} was honoured with the {v} Prize ."),
    ("work", "genre"): ("{s} was written as a {v} .", "In its form {s} was a {v} ."),
    ("work", "year"): ("{s} came out in the year {v} .", "{s} was first shown in {v} ."),
    ("work", "setting"): ("The story of {s} unfolds in {v} .", "{s} tells a tale from {v} ."),
    ("work", "maker"): ("{s} was the work of {v} .", "The creator of {s} was {v} ."),
    ("work", "country"): ("{s} was a production of {v} .", "The country of {s} was {v} ."),
    ("work", "award"): ("{s} was given the {v} Prize .", "{s} was honoured with the {v} Prize ."),
    ("place", "country"): ("{s} was a town of {v} .", "The country of {s} was {v} ."),
    ("place", "river"): ("Past {s} flows the {v} .", "{s} grew up along the {v} ."),
    ("place", "product"): ("The trade of {s} was {v} .", "{s} made a living from {v} ."),
    ("place", "building"): ("The pride of {s} was its {v} .", "In {s} stood a famous {v} ."),
    ("place", "founded"): ("{s} was settled in the year {v} .", "The first houses of {s} rose in {v} ."),
    ("place", "twin"): ("The sister town of {s} was {v} .", "{s} kept friendship with {v} ."),
}
"""Two sentences a fact, in FEVER's tokenisation (spaces around punctuation)."""

DEV: dict[tuple[str, str], tuple[str, str]] = {
    ("person", "job"): ("{s} is a {v}.", "{s} has the job of a {v}."),
    ("person", "birthplace"): ("{s} was born in {v}.", "{s} is a native of {v}."),
    ("person", "birth_year"): ("{s} was born in {v}.", "{s} has lived since {v}."),
    ("person", "country"): ("{s} is from {v}.", "{s} has the passport of {v}."),
    ("person", "subject"): ("{s} studied {v}.", "{s} has a degree in {v}."),
    ("person", "award"): ("{s} won the {v} Prize.", "{s} is holder of the {v} Prize."),
    ("work", "genre"): ("{s} is a {v}.", "{s} has the form of a {v}."),
    ("work", "year"): ("{s} was released in {v}.", "{s} is from the year {v}."),
    ("work", "setting"): ("{s} is set in {v}.", "{s} has its plot in {v}."),
    ("work", "maker"): ("{s} was made by {v}.", "{s} is by {v}."),
    ("work", "country"): ("{s} is from {v}.", "{s} was made in {v}."),
    ("work", "award"): ("{s} won the {v} Prize.", "{s} is holder of the {v} Prize."),
    ("place", "country"): ("{s} is in {v}.", "{s} is part of {v}."),
    ("place", "river"): ("{s} lies on the {v}.", "{s} has the river {v}."),
    ("place", "product"): ("{s} is known for {v}.", "{s} has traders of {v}."),
    ("place", "building"): ("{s} has a {v}.", "{s} is home to a {v}."),
    ("place", "founded"): ("{s} was founded in {v}.", "{s} has stood since {v}."),
    ("place", "twin"): ("{s} is twinned with {v}.", "{s} has a twin in {v}."),
}
"""Two claims a fact, used in paper_dev.jsonl."""

TRAIN: dict[tuple[str, str], tuple[str, str]] = {
    ("person", "job"): ("{s} works as a {v}.", "{s} earned money as a {v}."),
    ("person", "birthplace"): ("{s} first lived in {v}.", "{s} comes from {v}."),
    ("person", "birth_year"): ("{s} dates from {v}.", "{s} started life in {v}."),
    ("person", "country"): ("{s} belongs to {v}.", "{s} lived in {v}."),
    ("person", "subject"): ("{s} took courses in {v}.", "{s} was taught {v}."),
    ("person", "award"): ("{s} got the {v} Prize.", "{s} received the {v} Prize."),
    ("work", "genre"): ("{s} counts as a {v}.", "{s} was made as a {v}."),
    ("work", "year"): ("{s} dates from {v}.", "{s} appeared in {v}."),
    ("work", "setting"): ("{s} takes place in {v}.", "{s} plays in {v}."),
    ("work", "maker"): ("{s} comes from {v}.", "{s} was created by {v}."),
    ("work", "country"): ("{s} belongs to {v}.", "{s} was produced in {v}."),
    ("work", "award"): ("{s} got the {v} Prize.", "{s} received the {v} Prize."),
    ("place", "country"): ("{s} belongs to {v}.", "{s} can be found in {v}."),
    ("place", "river"): ("{s} stands on the {v}.", "{s} is crossed by the {v}."),
    ("place", "product"): ("{s} sells {v}.", "{s} was famous for {v}."),
    ("place", "building"): ("{s} built a {v}.", "{s} shows visitors a {v}."),
    ("place", "founded"): ("{s} dates from {v}.", "{s} started in {v}."),
    ("place", "twin"): ("{s} is partner of {v}.", "{s} chose as its twin {v}."),
}
"""Two claims a fact, used in train.jsonl."""

UNTOLD_CLAIMS: dict[str, tuple[str, str]] = {
    "person": ("{s} keeps a {v}.", "{s} owns a {v}."),
    "work": ("{s} cost {v} million.", "{s} had {v} actors."),
    "place": ("{s} has a {v} club.", "{s} likes {v}."),
}
"""A development and a training wording for what no page tells."""


_SHORT = {"work": "this work", "place": "this town"}


def page_sentences(entity: Entity, rng: random.Random) -> list[tuple[str, str]]:
    """Word an entity's page: `(attribute, sentence)` for every fact, in a drawn order and wording.

    Every other sentence names the subject in full; those between write the family name, `this work`
    or `this town`.
    """
    attributes = list(VALUES[entity.kind])
    rng.shuffle(attributes)
    short = entity.name.split(" ")[-1] if entity.kind == "person" else _SHORT[entity.kind]
    sentences = []
    for index, attribute in enumerate(attributes):
        wording = rng.choice(PAGE[entity.kind, attribute])
        sentence = wording.format(s=short if index % 2 else entity.name, v=entity.facts[attribute])
        sentences.append((attribute, sentence[0].upper() + sentence[1:]))
    return sentences


def word_claim(wordings: tuple[str, str], number: int, entity: Entity, value: str) -> str:
    """Word a claim about an entity; `number` picks the wording."""
    return wordings[number % 2].format(s=entity.name, v=value)


def untold_claim(entity: Entity, train: bool, rng: random.Random) -> str:
    """Word a claim that no page can decide."""
    _, values = UNTOLD[entity.kind]
    return UNTOLD_CLAIMS[entity.kind][int(train)].format(s=entity.name, v=rng.choice(values))
