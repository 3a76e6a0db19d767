"""What the sample models are trained on: texts about a population they get to know, and answered questions.

Of the evidence pages, every second entity is *known*: the models read its facts in the training wordings,
never its page and never a development claim. The others are new to them, as is the text of every evidence
page. So a frozen sample model judges claims about the known half better than chance, and has the rest left to
memorise.
"""

from __future__ import annotations

import random

from trainables.data.prompts import POOL, POOL_LETTERS, render_template
from trainables.data.sample.facts import VALUES, Entity, World, wrong_value
from trainables.data.sample.wording import DEV, TRAIN, page_sentences, untold_claim, word_claim
from trainables.data.sample.world import page_text

NUM_LEARNED = 12
"""Background entities whose facts are repeated often enough to be learned, in all wordings."""

CLAIMS_PER_PROMPT = 6
"""Five examples and one question: every answer in a row is a target, so rows teach 0 to 5 shots at once."""

_TEXT_SHARE = 0.15
_STRANGER_SHARE = 0.1
_UNTOLD_SHARE = 0.15
_POOL_SHARE = 0.03


class Background:
    """An endless, seeded stream of training texts about a world.

    Args:
        world: whose entities the texts are about.
        seed: of the stream.
    """

    def __init__(self, world: World, seed: int = 0) -> None:
        """Start the stream."""
        self._rng = random.Random(f"background {seed}")
        self._known = known_entities(world)
        self._learned = world.background[:NUM_LEARNED]
        self._strangers = world.background[NUM_LEARNED:]
        self._known_names = {entity.name for entity in self._known}
        pool = [[(text, letter) for text in texts] for texts, letter in zip(POOL, POOL_LETTERS, strict=True)]
        self._pool = [claim for claims in pool for claim in claims]

    def text(self) -> str:
        """Draw one training text: a prompt with its answers, or two short texts."""
        if self._rng.random() < _TEXT_SHARE:
            return f"{self._about(self._familiar())}\n{self._about(self._familiar())}"
        return self._prompt()

    def _familiar(self) -> Entity:
        return self._rng.choice(self._known + self._learned)

    def _prompt(self) -> str:
        stranger = self._rng.random() < _STRANGER_SHARE
        entity = self._rng.choice(self._strangers) if stranger else self._familiar()
        claims = [self._claim(entity) for _ in range(CLAIMS_PER_PROMPT)]
        return render_template(claims[:-1], *claims[-1])

    def _claim(self, entity: Entity) -> tuple[str, str]:
        """Word a claim about an entity, with its letter; one of the pool's lists at times."""
        rng = self._rng
        if rng.random() < _POOL_SHARE:
            return rng.choice(self._pool)
        if rng.random() < _UNTOLD_SHARE:
            return untold_claim(entity, self._in_train_wording(entity), rng), "c"
        attribute = rng.choice(list(VALUES[entity.kind]))
        true = rng.random() < 0.55
        value = entity.facts[attribute] if true else wrong_value(rng, entity, attribute)
        text = word_claim(self._wordings(entity, attribute), rng.randrange(2), entity, value)
        return text, "a" if true else "b"

    def _in_train_wording(self, entity: Entity) -> bool:
        return entity.name in self._known_names or self._rng.random() < 0.5

    def _wordings(self, entity: Entity, attribute: str) -> tuple[str, str]:
        return (TRAIN if self._in_train_wording(entity) else DEV)[entity.kind, attribute]

    def _about(self, entity: Entity) -> str:
        """Tell all facts of an entity as its page would or, of an evidence entity always, in claim wordings."""
        rng = self._rng
        if entity.name not in self._known_names and rng.random() < 0.5:
            return page_text(page_sentences(entity, rng)).strip()
        attributes = list(VALUES[entity.kind])
        rng.shuffle(attributes)
        told = [
            word_claim(self._wordings(entity, attribute), rng.randrange(2), entity, entity.facts[attribute])
            for attribute in attributes
        ]
        return " ".join(told)


def known_entities(world: World) -> tuple[Entity, ...]:
    """Return the evidence entities whose facts the sample models learn."""
    return world.evidence[::2]
